"""Checks of a command, before anything is made or downloaded, and its settings as text."""

import csv
import fractions
import io
import math
import os
import re
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from mtl_jax import files, models, tasks
from mtl_jax.runs.settings import IDLE, PLACES, Settings, reads
from mtl_jax.training import optimizer
from mtl_jax.weighting import METHODS, options
from mtl_jax.weighting.make import parse

# In these modes alone a setting has an effect.
MODES_OF = {
    "checkpoint": ("evaluate", "export"),
    "split": ("evaluate",),
    "out": ("report", "export"),
    "weighting": ("train", "evaluate", "export", "compare"),
    "weightings": ("sweep", "study", "benchmark"),
    "seeds": ("sweep", "study"),
    "arms": ("study",),
    "label_fractions": ("study",),
    "benchmark_steps": ("benchmark", "compare"),
    "compare_torch": ("benchmark",),
}
LARGEST_SEED = 2**31 - 2
# The sets of tasks that a study compares unless others are given.
ARMS = "segmentation,segmentation+depth,segmentation+normals,segmentation+depth+normals"
# These take what a run is from its folder.
OF_FOLDER = ("evaluate", "export", "report")
# Without effect these are reported and not refused: they say how much or how often, and commands
# that differ in the tasks or the weighting may well have them in common.
HARMLESS = ("label_seed", "labelled_per_batch", "weigh_every")


def check(settings: Settings, defaults: Settings, *, from_file: bool = False) -> list[str]:
    """Refuses settings that make no sense for any data set.

    Args:
      settings: of the command.
      defaults: of all settings.
      from_file: whether they come from a file, which may be that of a run of a grid and have the
        settings of all its runs.

    Returns:
      Lines about settings that have no effect.

    Raises:
      ValueError: naming the setting.
    """
    check_values(settings)
    check_paths(settings)
    notes = []
    for name, choice in () if settings.mode in OF_FOLDER else _idle(settings, defaults):
        value = as_text(getattr(settings, name))
        line = f"`{name}`={value} has no effect: it goes with {choice}"
        if name not in HARMLESS and not from_file:
            raise ValueError(line)
        notes.append(line)
    for name, modes in MODES_OF.items():
        if settings.mode not in modes and getattr(settings, name) != getattr(defaults, name):
            notes.append(f"`{name}` has no effect with `mode`={settings.mode}")
    return notes


def check_values(settings: Settings) -> None:
    """Refuses values that make no sense, alone or together.

    Raises:
      ValueError: naming the setting.
    """
    for name, value in vars(settings).items():
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"`{name}`={value}: give a finite number")
    if settings.weight_decay * settings.learning_rate >= 1:
        raise ValueError(
            f"`weight_decay`={settings.weight_decay}: must be less than 1 / `learning_rate`: a "
            "step takes that part of every weight away"
        )
    if settings.coordinator and settings.mode in ("benchmark", "compare", "export"):
        raise ValueError(f"`coordinator`: `mode`={settings.mode} runs in one process")
    alone = (settings.num_processes, settings.process_id) == (None, None)
    if not settings.coordinator and not alone:
        raise ValueError("`num_processes` and `process_id` go with `coordinator`=HOST:PORT")


def check_paths(settings: Settings) -> None:
    """Refuses paths that can't be what the setting needs.

    Raises:
      ValueError: naming the setting.
    """
    for name in (*PLACES, "pretrained"):
        value = getattr(settings, name)
        for text in value if isinstance(value, list) else [value]:
            if text is not None:
                files.check_name(f"`{name}`", text)
    # Where TFDS then keeps prepared sets.
    folder = os.environ.get("TFDS_DATA_DIR")
    if folder is not None and settings.data_dir is None and settings.mode != "report":
        files.check_name("TFDS_DATA_DIR", folder)
    for name in ("data_dir", "manual_dir"):
        files.check_no_file(f"`{name}`", Path(getattr(settings, name) or ".").expanduser())
    if settings.compilation_cache:
        folder = Path(settings.compilation_cache).expanduser()
        files.check_writable("`compilation_cache`", folder)


def _idle(settings: Settings, defaults: Settings) -> Iterator[tuple[str, str]]:
    """Yields settings that change nothing, because they belong to another choice, and to which."""
    trained = {name for arm in arms_of(settings) for name in arm}
    read = any(getattr(settings, name) != getattr(defaults, name) for name in IDLE)
    # Not made without need: several processes have to meet before one of them uses JAX.
    needs = {reads(text) for text in weightings_of(settings)} if read else set()
    fewer = settings.label_fraction < 1 or settings.mode == "study"
    conditions = {
        "label_fraction": ("segmentation" in trained, "segmentation among `tasks`"),
        "label_seed": (fewer, "`label_fraction` below 1"),
        "labelled_per_batch": (fewer, "`label_fraction` below 1"),
        "colour_jitter": (settings.augment, "`augment`, which is off"),
        "pretrained": (settings.model.startswith("resnet_unet"), "`model`=resnet_unet"),
        "depth_loss": ("depth" in trained, "depth among `tasks`"),
        "normals_source": ("normals" in trained, "normals among `tasks`"),
        "normals_loss": ("normals" in trained, "normals among `tasks`"),
        "weigh_every": (needs - {"losses"}, "weightings by gradients, such as nash"),
        "gradients": ("gram" in needs, "weightings by the Gram matrix, such as nash"),
    }
    for name, (has_effect, choice) in conditions.items():
        if not has_effect and getattr(settings, name) != getattr(defaults, name):
            yield name, choice


def arms_of(settings: Settings) -> list[list[str]]:
    """Returns the sets of tasks that are trained together."""
    if settings.mode == "study":
        return [arm.split("+") for arm in settings.arms]
    return [settings.tasks]


def weightings_of(settings: Settings) -> Collection[str]:
    """Returns the texts of all weightings that the mode uses; none where no arm has two tasks."""
    if max(map(len, arms_of(settings)), default=0) < 2:
        return []
    if settings.mode not in MODES_OF["weightings"]:
        return [settings.weighting]
    return METHODS if settings.weightings == ["all"] else settings.weightings


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
        raise ValueError(f"{text} is no part of the images; give parts such as 1/8 or 0.125")
    return number


def parse_seed(text: str) -> int:
    """Returns the number of a text.

    Raises:
      ValueError: unless it is whole, not negative and at most `LARGEST_SEED`.
    """
    if not re.fullmatch("[0-9]{1,10}", text) or int(text) > LARGEST_SEED:
        raise ValueError(f"{text} is no seed; give a whole number up to {LARGEST_SEED}")
    return int(text)


def parse_arm(text: str) -> str:
    """Returns a text such as segmentation+depth if it is a set of tasks with segmentation.

    Raises:
      ValueError: if it is not.
    """
    names = text.split("+")
    tasks.select(names)
    if "segmentation" not in names:
        raise ValueError(f"{text}: each needs segmentation, whose labels are withheld")
    return text


def parse_checkpoint(text: str) -> str:
    """Returns a text that names a checkpoint: latest, best or the number of a step.

    Raises:
      ValueError: for any other text.
    """
    if text not in ("latest", "best") and not re.fullmatch("[0-9]{1,10}", text):
        raise ValueError("give latest, best or the number of a step")
    return text


def as_text(value: Any) -> str:
    """Returns a value as it is written on the command line."""
    if isinstance(value, list):
        text = io.StringIO()
        csv.writer(text, lineterminator="").writerow(value)
        return text.getvalue()
    if isinstance(value, tuple):
        return "x".join(map(str, value))
    return str(value).lower() if isinstance(value, bool) else "" if value is None else str(value)


def flag_lines(settings: Settings) -> str:
    """Returns the lines of a file that repeats a run: its settings as flags.

    Those of one mode alone are left out, so that the file serves others, and those of one process
    of several.
    """
    left_out = {"mode", "coordinator", "num_processes", "process_id", *MODES_OF} - {"weighting"}
    lines = [
        f"--{name}={as_text(value)}\n"
        for name, value in vars(settings).items()
        if name not in left_out and value is not None
    ]
    return "".join(sorted(lines))


def parse_weighting(text: str) -> str:
    """Returns the one text of all that choose the same weighting, such as `fairgrad:alpha=1`."""
    return str(parse(text))


def parse_weightings(text: str) -> list[str]:
    """Returns the texts of several weightings, or `all` alone."""
    found = options.split(_items(text))
    return found if found == ["all"] else [parse_weighting(item) for item in found]


def parse_tasks(text: str) -> list[str]:
    """Returns the names of tasks."""
    return [task.name for task in tasks.select(_items(text))]


def parse_model(text: str) -> str:
    """Returns the one text of all that choose the same network."""
    return str(models.parse_model(text))


def parse_depth_loss(text: str) -> str:
    """Returns the one text of all that choose the same way to learn depth."""
    return str(options.parse(text, tasks.DEPTH_LOSSES))


def parse_normals_loss(text: str) -> str:
    """Returns the one text of all that choose the same way to learn normals."""
    return str(options.parse(text, tasks.NORMALS_LOSSES, context=("source", "codebook")))


def parse_schedule(text: str) -> str:
    """Returns the one text of all that choose the same schedule of the learning rate."""
    return str(optimizer.parse_schedule(text))


def _items(text: str) -> list[str]:
    return next(csv.reader([text], skipinitialspace=True), [])
