"""Settings from their texts on the command line, and a file that repeats a command."""

import csv
import fractions
import math
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path

from mtl_jax import models, tasks
from mtl_jax.commands.checks import MODES_OF
from mtl_jax.runs.settings import Settings
from mtl_jax.runs.text import as_text
from mtl_jax.training import optimizer
from mtl_jax.weighting import METHODS, options
from mtl_jax.weighting.make import parse

LARGEST_SEED = 2**31 - 2


def flag_lines(settings: Settings) -> str:
    """Returns the lines of a file that repeats a run: its settings as flags.

    Settings of a single mode are left out, so that the file can be used with others, and so are
    those of one process among several.
    """
    left_out = {"mode", "coordinator", "num_processes", "process_id", *MODES_OF} - {"weighting"}
    lines = [
        f"--{name}={as_text(value)}\n"
        for name, value in vars(settings).items()
        if name not in left_out and value is not None
    ]
    return "".join(sorted(lines))


def parse_fraction(text: str) -> float:
    """Returns the number of a text such as 1/8 or 0.125.

    Raises:
      ValueError: unless it is more than 0 and at most 1.
    """
    try:
        number = float(fractions.Fraction(text))
    except (ValueError, ZeroDivisionError, OverflowError):
        number = math.nan
    if not 0 < number <= 1:
        raise ValueError(f"{text} is not a fraction of the images; give one such as 1/8 or 0.125")
    return number


def parse_seed(text: str) -> int:
    """Returns the number of a text.

    Raises:
      ValueError: unless it is whole, not negative and at most `LARGEST_SEED`.
    """
    if not re.fullmatch("[0-9]{1,10}", text) or int(text) > LARGEST_SEED:
        raise ValueError(f"{text} is not a seed; give a whole number up to {LARGEST_SEED}")
    return int(text)


def parse_rate(text: str) -> float:
    """Returns the learning rate of a text.

    Raises:
      ValueError: unless it is positive and at most 100.
    """
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 < number <= 100:
        raise ValueError(f"{text} is not a learning rate; give one such as 1e-3")
    return number


def parse_crop_scales(text: str) -> list[float]:
    """Returns the numbers of a text.

    Raises:
      ValueError: unless there is one, and all are from 1 to 10.
    """
    try:
        numbers = [float(item) for item in _items(text)]
    except ValueError:
        numbers = []
    if not numbers or not all(1 <= number <= 10 for number in numbers):
        raise ValueError("give numbers from 1 to 10, such as 1,1.2,1.5")
    return numbers


def parse_arm(text: str) -> str:
    """Returns a text such as segmentation+depth if it is a set of tasks with `tasks.WITHHELD`.

    Raises:
      ValueError: if it is not.
    """
    names = text.split("+")
    try:
        tasks.select(names)
    except ValueError as error:
        raise ValueError(f"{text}: {str(error).replace('`tasks`', 'its tasks')}") from error
    needed = tasks.WITHHELD.name
    if needed not in names:
        raise ValueError(f"{text}: each needs {needed}, whose labels are withheld")
    return text


def parse_checkpoint(text: str) -> str:
    """Returns a text that names a checkpoint: latest, best or the number of a step.

    Raises:
      ValueError: for any other text.
    """
    if text not in ("latest", "best") and not re.fullmatch("[0-9]{1,10}", text):
        raise ValueError("give latest, best or the number of a step")
    return text


def parse_weighting(text: str) -> str:
    """Returns the canonical text of a weighting, such as `fairgrad:alpha=1`.

    The text of the user's own function is left to `resolved`: its file may use JAX, which several
    processes may do only after they have joined.
    """
    return text if options.is_own(text, METHODS) else str(parse(text))


def parse_weightings(text: str) -> list[str]:
    """Returns the texts of several weightings, or `all` alone."""
    found = options.split(_items(text))
    return found if found == ["all"] else [parse_weighting(item) for item in found]


def resolved(settings: Settings) -> Settings:
    """Returns the settings with canonical texts of all of the user's own functions.

    Their files and the folder of images become absolute, so that a run finds them from anywhere.

    Raises:
      ValueError: if a function or its file can't be used.
    """
    changes = {
        "weighting": _resolved("weighting", settings.weighting),
        "weightings": [_resolved("weightings", text) for text in settings.weightings],
        "dataset": _resolved_dataset(settings.dataset),
        "folder": settings.folder and str(Path(settings.folder).expanduser().resolve()),
    }
    return Settings(**vars(settings) | changes)


def _resolved(name: str, text: str) -> str:
    try:
        return str(parse(text)) if options.is_own(text, METHODS) else text
    except ValueError as error:
        raise ValueError(f"`{name}`={text}: {error}") from error


def _resolved_dataset(text: str) -> str:
    # In the text of a data set of the table, no name follows the first colon, only options.
    if not options.is_own(text, {}):
        return text
    try:
        return str(options.parse(text, {}, own=True))
    except ValueError as error:
        raise ValueError(f"`dataset`={text}: {error}") from error


def parse_tasks(text: str) -> list[str]:
    """Returns the names of tasks."""
    return [task.name for task in tasks.select(_items(text))]


def canonical(parse: Callable[[str], options.Choice]) -> Callable[[str], str]:
    """Returns a function from a text to the canonical text of the choice that `parse` finds."""
    return lambda text: str(parse(text))


parse_model = canonical(models.parse_model)
parse_optimizer = canonical(optimizer.parse_optimizer)
parse_schedule = canonical(optimizer.parse_schedule)
parse_segmentation_loss = canonical(partial(options.parse, table=tasks.SEGMENTATION_LOSSES))
parse_depth_loss = canonical(partial(options.parse, table=tasks.DEPTH_LOSSES))
parse_normals_loss = canonical(
    partial(options.parse, table=tasks.NORMALS_LOSSES, context=("source", "codebook"))
)


def parse_models(text: str) -> list[str]:
    """Returns the canonical texts of several networks."""
    return [parse_model(item) for item in options.split(_items(text))]


def _items(text: str) -> list[str]:
    return next(csv.reader([text], skipinitialspace=True), [])
