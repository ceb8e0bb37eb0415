"""A choice and its options as text: `NAME` or `NAME:key=value,key=value`.

`fairgrad:alpha=2` is `METHODS["fairgrad"](alpha=2.0)`. The keys are the keyword arguments of the
factory of that name, so that each of them can be set and none has to be declared twice. The name of
a function in the user's own file or module is `FILE.py:FUNCTION` or `MODULE:FUNCTION`.
"""

import ast
import functools
import importlib
import inspect
import math
import os
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple


class Choice(NamedTuple):
    """The choice in a text.

    Attributes:
      name: key of the table, or `FILE.py:FUNCTION` or `MODULE:FUNCTION`.
      factory: the function of that name; it takes the options as keyword arguments.
      options: those whose value is not the default, in the factory's order and with the types of
        its defaults.
    """

    name: str
    factory: Callable[..., Any]
    options: dict[str, Any]

    def __str__(self) -> str:
        """Returns the canonical text, the same for all texts that choose the same."""
        pairs = ",".join(f"{key}={_to_text(value)}" for key, value in self.options.items())
        return f"{self.name}:{pairs}" if pairs else self.name


def parse(
    text: str,
    table: Mapping[str, Callable[..., Any]],
    *,
    context: Iterable[str] = (),
    supplied: Iterable[str] = (),
    own: bool = False,
) -> Choice:
    """Returns the choice in a text.

    Args:
      text: `NAME` or `NAME:key=value,key=value`. Values are Python literals, words, or sequences
        such as `1+2+1`.
      table: name -> factory.
      context: keyword arguments that are not options, because the caller passes them.
      supplied: keyword arguments that the caller passes unless the text sets them: such an option
        is kept even if its value is the factory's default.
      own: whether `FILE.py:FUNCTION` and `MODULE:FUNCTION` are names, too.

    Raises:
      ValueError: for an unknown name or key, a value of another type than the default's, or an
        option that is missing and has no default.
    """
    name, factory, rest = _find(text, table, own=own)
    parameters = keywords(factory)
    known = [key for key in parameters if key not in context]
    given = {}
    for pair in rest.split(",") if rest else []:
        key, equals, value = pair.partition("=")
        if not equals or key in given:
            raise ValueError(f"{text!r}: options are key=value, separated by commas, each key once")
        if key not in known:
            what = f"its options are {', '.join(known)}" if known else "it has no options"
            raise ValueError(f"{text!r}: {name} has no option {key!r}; {what}")
        given[key] = _convert(value, parameters[key], text)
    options = {}
    for key, parameter in parameters.items():
        if key in given and (key in supplied or given[key] != parameter.default):
            options[key] = given[key]
        missing = parameter.default is parameter.empty and key not in given
        if missing and key not in context and key not in supplied:
            raise ValueError(f"{text!r}: {name} needs the option {key}, as {name}:{key}=...")
    return Choice(name, factory, options)


def keywords(factory: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """Returns the keyword arguments of a function, in its order."""
    by_name = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    parameters = inspect.signature(factory).parameters
    return {key: value for key, value in parameters.items() if value.kind in by_name}


def is_weighting(parameter: inspect.Parameter) -> bool:
    """Returns whether a keyword argument is a weighting, which has a text of its own."""
    return "Weighting" in str(parameter.annotation)


def _find(
    text: str, table: Mapping[str, Callable[..., Any]], *, own: bool
) -> tuple[str, Callable[..., Any], str]:
    """Returns the name, its factory, and the rest of the text, which are the options."""
    name, _, rest = text.partition(":")
    if name in table:
        return name, table[name], rest
    if own and is_own(text, table):
        place, function, rest = _own_parts(text)
        # By its whole path the file is found from any working directory.
        place = str(Path(place).expanduser().resolve()) if place.endswith(".py") else place
        return f"{place}:{function}", _load(place, function), rest
    message = f"{text!r} is unknown: choose from {', '.join(table)}"
    if comma := re.fullmatch(r"([^,]+),(\w+=.*)", text):
        message = f"{text!r}: options follow a colon, as in {comma[1]}:{comma[2]}"
    elif own:
        message += ", or give a function of your own as FILE.py:FUNCTION"
    raise ValueError(message)


def is_own(text: str, table: Mapping[str, Callable[..., Any]]) -> bool:
    """Returns whether a text names the user's own function, which need not exist."""
    if text.partition(":")[0] in table:
        return False
    place, function, _ = _own_parts(text)
    return bool(place and function) and "=" not in function


def _own_parts(text: str) -> tuple[str, str, str]:
    """Returns file or module, function and options; the path of a file may have colons in it."""
    found = re.match(r"(.*?\.py(?=:)|[^:]*):?([^:]*):?(.*)", text, re.DOTALL)
    return (found[1], found[2], found[3]) if found else (text, "", "")


def parts(text: str) -> tuple[str, list[str]]:
    """Returns the name and the options of a text, such as "nash" and ["max_norm=2"]."""
    name, *rest = re.split(r":(?=\w+=)", text, maxsplit=1)
    return name, rest[0].split(",") if rest else []


def split(items: Sequence[str]) -> list[str]:
    """Joins again the options of a choice that a list has split at commas.

    `["nash", "sdmgrad:pull=1", "momentum=0"]` is `["nash", "sdmgrad:pull=1,momentum=0"]`. Options
    follow only what already has one: in `["a.py:f", "g=h.py:k"]` the second item names a file.
    """
    whole: list[str] = []
    for item in items:
        if whole and parts(whole[-1])[1] and re.match(r"\w+=", item):
            whole[-1] += f",{item}"
        else:
            whole.append(item)
    return whole


def _convert(value: str, parameter: inspect.Parameter, text: str) -> Any:
    """Returns a value of the type of the parameter's default."""
    default = parameter.default
    if isinstance(default, str) or is_weighting(parameter):
        return value
    # A plus in a number such as 1e+3 does not separate.
    items = [_literal(part) for part in re.split(r"(?<![\d.][eE])\+", value)]
    several = len(items) > 1 and "Sequence" in str(parameter.annotation)
    converted = items[0] if len(items) == 1 else tuple(items)
    if isinstance(default, bool):
        fits, wanted = isinstance(converted, bool), "true or false"
    elif isinstance(default, int):
        fits, wanted = type(converted) is int, "a whole number"
    elif isinstance(default, float) and not several:
        fits, wanted = _is_number(converted), "a number"
        converted = float(items[0]) if fits else converted
    elif default is None or several or isinstance(default, tuple):
        fits, wanted, converted = _sequence(items, str(parameter.annotation))
    else:
        fits, wanted = True, ""
    if not fits:
        raise ValueError(f"{text!r}: {parameter.name} must be {wanted}, got {value!r}")
    return converted


def _sequence(items: Sequence[Any], annotation: str) -> tuple[bool, str, tuple[Any, ...]]:
    """Returns whether the items are of the type in the annotation, what is wanted, and a tuple."""
    if "bool" in annotation:
        return all(type(x) is bool for x in items), "words such as true+false+true", tuple(items)
    fits = all(_is_number(x) for x in items)
    wanted = "numbers such as 1+2+1"
    return (
        fits,
        wanted,
        tuple(map(float, items)) if fits and "float" in annotation else tuple(items),
    )


def _is_number(value: Any) -> bool:
    """Returns whether a literal is a number that a float can hold."""
    try:
        return type(value) in (int, float) and not math.isnan(value)
    except OverflowError:
        return False


def _literal(text: str) -> Any:
    """Returns the Python literal that a text is, or the text."""
    words = {"true": True, "false": False, "inf": math.inf, "-inf": -math.inf, "nan": math.nan}
    if text.lower() in words:
        return words[text.lower()]
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
    # A number such as 1e999 is too large, and not meant as infinity.
    return text if isinstance(value, float) and math.isinf(value) else value


def _to_text(value: Any) -> str:
    """Returns the text that `_convert` turns into the value."""
    if isinstance(value, tuple):
        return "+".join(map(_to_text, value))
    if isinstance(value, bool):
        return str(value).lower()
    # The sum turns a negative zero into zero.
    return repr(value + 0.0).removesuffix(".0") if isinstance(value, float) else str(value)


def _load(place: str, function: str) -> Callable[..., Any]:
    """Returns a function of a Python file, or of a module, which may be in the current folder.

    Raises:
      ValueError: if there is none, or if its file can't be executed.
    """
    try:
        is_file = place.endswith(".py")
        module = _execute(Path(place).expanduser().resolve()) if is_file else _import(place)
    # A script may end the program.
    except (Exception, SystemExit) as error:
        raise ValueError(f"{place} can't be imported ({type(error).__name__}: {error})") from error
    found = getattr(module, function, None)
    if not callable(found):
        raise ValueError(f"{place} has no function {function!r}")
    return found


@functools.cache
def _execute(path: Path) -> ModuleType:
    """Executes a file, once per process; it may import files next to it."""
    _search(str(path.parent))
    # Named by its path: a file called nash.py must not replace a module of that name.
    loader = SourceFileLoader(str(path), str(path))
    module = ModuleType(loader.name)
    module.__file__ = loader.path
    sys.modules[loader.name] = module  # where dataclasses look for it
    loader.exec_module(module)
    return module


def _import(name: str) -> ModuleType:
    _search(os.getcwd())
    return importlib.import_module(name)


def _search(folder: str) -> None:
    """Makes Python look for modules in a folder, after all others."""
    if folder not in sys.path:
        sys.path.append(folder)
