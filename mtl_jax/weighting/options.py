"""A choice and its options as text: `NAME` or `NAME:key=value,key=value`.

`fairgrad:alpha=2` is `METHODS["fairgrad"](alpha=2.0)`. The keys are the keyword arguments of the
factory of that name, so that each of them can be set and none has to be declared twice. The name of
a function in a file or module of one's own is `FILE.py:FUNCTION` or `MODULE:FUNCTION`.
"""

import ast
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
    """What a text chooses.

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
    """Returns the choice that a text stands for.

    Args:
      text: `NAME` or `NAME:key=value,key=value`. Values are Python literals, words, or sequences
        such as `1+2+1`.
      table: name -> factory.
      context: keyword arguments that are no options, because the caller passes them.
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


def _find(
    text: str, table: Mapping[str, Callable[..., Any]], *, own: bool
) -> tuple[str, Callable[..., Any], str]:
    """Returns the name, its factory, and the rest of the text, which are the options."""
    name, _, rest = text.partition(":")
    if name in table:
        return name, table[name], rest
    choices = f"{text!r} is unknown: choose from {', '.join(table)}"
    if not own:
        raise ValueError(choices)
    function, _, rest = rest.partition(":")
    if not name or not function or "=" in function:
        raise ValueError(f"{choices}, or give a function of your own as FILE.py:FUNCTION")
    return f"{name}:{function}", _load(name, function), rest


def split(items: Sequence[str]) -> list[str]:
    """Puts choices together again that the commas of a list have torn apart.

    `["nash", "sdmgrad:pull=1", "momentum=0"]` is `["nash", "sdmgrad:pull=1,momentum=0"]`.
    """
    whole: list[str] = []
    for item in items:
        if whole and ":" in whole[-1] and re.match(r"\w+=", item):
            whole[-1] += f",{item}"
        else:
            whole.append(item)
    return whole


def _convert(value: str, parameter: inspect.Parameter, text: str) -> Any:
    """Returns a value of the type of the parameter's default."""
    default = parameter.default
    if isinstance(default, str):
        return value
    # A plus in a number such as 1e+3 does not separate.
    parts = [_literal(part) for part in re.split(r"(?<![\d.][eE])\+", value)]
    converted = parts[0] if len(parts) == 1 else tuple(parts)
    if isinstance(default, bool):
        fits, wanted = isinstance(converted, bool), "true or false"
    elif isinstance(default, int):
        fits, wanted = type(converted) is int, "a whole number"
    elif isinstance(default, float):
        fits, wanted = type(converted) in (int, float) and not math.isnan(parts[0]), "a number"
        converted = float(parts[0]) if fits else converted
    elif default is None or isinstance(default, tuple):
        converted = tuple(parts)
        fits = all(type(part) in (bool, int, float) for part in parts)
        wanted = "numbers such as 1+2+1"
    else:
        fits, wanted = True, ""
    if not fits:
        raise ValueError(f"{text!r}: {parameter.name} must be {wanted}, got {value!r}")
    return converted


def _literal(text: str) -> Any:
    """Returns the Python literal that a text is, or the text."""
    words = {"true": True, "false": False, "inf": math.inf, "-inf": -math.inf, "nan": math.nan}
    if text.lower() in words:
        return words[text.lower()]
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def _to_text(value: Any) -> str:
    """Returns the text that `_convert` turns into the value."""
    if isinstance(value, tuple):
        return "+".join(map(_to_text, value))
    if isinstance(value, bool):
        return str(value).lower()
    return repr(value).removesuffix(".0") if isinstance(value, float) else str(value)


def _load(place: str, function: str) -> Callable[..., Any]:
    """Returns a function of a Python file, or of a module, which may be in the current folder.

    Raises:
      ValueError: if there is none, or if its file can't be executed.
    """
    try:
        module = _execute(Path(place)) if place.endswith(".py") else _import(place)
    except Exception as error:
        raise ValueError(f"{place} can't be imported ({type(error).__name__}: {error})") from error
    found = getattr(module, function, None)
    if not callable(found):
        raise ValueError(f"{place} has no function {function!r}")
    return found


def _execute(path: Path) -> ModuleType:
    path = path.expanduser().resolve()
    # Named by its path: a file called nash.py must not replace a module of that name.
    loader = SourceFileLoader(str(path), str(path))
    module = ModuleType(loader.name)
    module.__file__ = loader.path
    sys.modules[loader.name] = module  # where dataclasses look for it
    loader.exec_module(module)
    return module


def _import(name: str) -> ModuleType:
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    return importlib.import_module(name)
