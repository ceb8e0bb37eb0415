"""A choice and its options as text: `NAME` or `NAME:key=value,key=value`.

`fairgrad:alpha=2` is `METHODS["fairgrad"](alpha=2.0)`. The keys are the keyword arguments of the
factory of that name, so that each of them can be set and none has to be declared twice. A function
in a file or module of one's own is `FILE.py:FUNCTION` or `MODULE:FUNCTION`, with options or without.
"""

import ast
import importlib
import importlib.util
import inspect
import math
import os
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple


class Choice(NamedTuple):
    """What a text chooses.

    Attributes:
      name: key of the table, or `FILE.py:FUNCTION` or `MODULE:FUNCTION`.
      factory: what the name stands for; it takes the options as keyword arguments.
      options: those that the text gives, with the types of the factory's defaults.
    """

    name: str
    factory: Callable[..., Any]
    options: dict[str, Any]

    def __str__(self) -> str:
        """The one text of all that choose the same; options that are the defaults are left out."""
        parameters = inspect.signature(self.factory).parameters
        given = [
            f"{key}={_to_text(self.options[key])}"
            for key, parameter in parameters.items()
            if key in self.options and self.options[key] != parameter.default
        ]
        return self.name + (f":{','.join(given)}" if given else "")


def parse(
    text: str,
    table: Mapping[str, Callable[..., Any]],
    *,
    context: Iterable[str] = (),
    own: bool = False,
) -> Choice:
    """The choice that a text stands for.

    Args:
      text: `NAME` or `NAME:key=value,key=value`. Values are Python literals, words, or sequences
        such as `1+2+1`.
      table: name -> factory.
      context: keyword arguments that are no options, because the caller passes them.
      own: whether `FILE.py:FUNCTION` and `MODULE:FUNCTION` are names, too.

    Raises:
      ValueError: for an unknown name or key, or a value of another type than the default's.
    """
    name, _, rest = text.partition(":")
    if own and name not in table:
        function, _, rest = rest.partition(":")
        if not function or "=" in function:
            raise ValueError(
                f"{text!r} is unknown: choose from {', '.join(table)}, or give a function of your "
                "own as FILE.py:FUNCTION"
            )
        factory = _load(name, function)
        name = f"{name}:{function}"
    elif name in table:
        factory = table[name]
    else:
        raise ValueError(f"{text!r} is unknown: choose from {', '.join(table)}")
    pairs = rest.split(",") if rest else []
    keys = [pair.partition("=")[0] for pair in pairs]
    if not all("=" in pair for pair in pairs) or len(set(keys)) < len(keys):
        raise ValueError(f"{text!r}: options are key=value, separated by commas, each key once")
    parameters = inspect.signature(factory).parameters
    known = [key for key in parameters if key not in context]
    options = {}
    for key, value in (pair.split("=", 1) for pair in pairs):
        if key not in known:
            what = f"its options are {', '.join(known)}" if known else "it has no options"
            raise ValueError(f"{text!r}: {name} has no option {key!r}; {what}")
        options[key] = _convert(value, parameters[key], text)
    return Choice(name, factory, options)


def split(items: Sequence[str]) -> list[str]:
    """Puts together what the commas of a list of choices have torn apart.

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
    """A value of the type of the parameter's default."""
    default = parameter.default
    converted: Any
    if isinstance(default, str):
        return value
    if re.fullmatch(r"[^+]+(\+[^+]+)+", value) and not re.search(r"[eE]\+", value):
        converted = tuple(_literal(part) for part in value.split("+"))
    else:
        converted = _literal(value)
    if isinstance(default, bool):
        fits, wanted = isinstance(converted, bool), "true or false"
    elif isinstance(default, int):
        fits, wanted = type(converted) is int, "a whole number"
    elif isinstance(default, float):
        fits, wanted = type(converted) in (int, float) and not math.isnan(converted), "a number"
        converted = float(converted) if fits else converted
    elif default is None:
        single = (converted,) if type(converted) in (int, float) else converted
        fits = isinstance(single, tuple) and all(type(x) in (int, float) for x in single)
        wanted, converted = "numbers such as 1+2+1", single
    else:
        fits, wanted = True, ""
    if not fits:
        raise ValueError(f"{text!r}: {parameter.name} must be {wanted}, got {value!r}")
    return converted


def _literal(text: str) -> Any:
    words = {"true": True, "false": False, "inf": math.inf, "-inf": -math.inf, "nan": math.nan}
    if text.lower() in words:
        return words[text.lower()]
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def _to_text(value: Any) -> str:
    if isinstance(value, (tuple, list)):
        return "+".join(map(_to_text, value))
    if isinstance(value, bool):
        return str(value).lower()
    return repr(value).removesuffix(".0") if isinstance(value, float) else str(value)


def _load(place: str, function: str) -> Callable[..., Any]:
    """A function of a Python file or of a module, which may lie in the current folder.

    Raises:
      ValueError: if there is none, or if its file can't be executed.
    """
    try:
        if place.endswith(".py"):
            path = Path(place).expanduser()
            spec = importlib.util.spec_from_file_location(path.stem, path)
            module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
        else:
            if os.getcwd() not in sys.path:
                sys.path.append(os.getcwd())
            module = importlib.import_module(place)
    except Exception as error:
        raise ValueError(f"{place} can't be imported ({type(error).__name__}: {error})") from error
    found = getattr(module, function, None)
    if not callable(found):
        raise ValueError(f"{place} has no function {function!r}")
    return found
