"""Checks of a command, before anything is prepared or downloaded."""

import math
import os
from collections.abc import Collection
from pathlib import Path

from mtl_jax import data, files
from mtl_jax.commands import rates
from mtl_jax.commands.compilation import OFF
from mtl_jax.runs.settings import (
    IDLE,
    MAY_CHANGE,
    PAGE,
    PHOTOS,
    PLACES,
    Settings,
    holds_run,
    idle,
)
from mtl_jax.runs.text import as_text
from mtl_jax.weighting import METHODS

# Settings that have an effect only in some modes.
MODES_OF = {
    "checkpoint": ("evaluate", "export", "predict", "demo", "diagnose"),
    "split": ("evaluate",),
    "out": ("report", "export", "predict", "diagnose"),
    "weighting": ("train", "evaluate", "export", "predict", "demo", "compare", "benchmark"),
    "weightings": ("sweep", "study", "benchmark"),
    "seeds": ("sweep", "study"),
    "weigh_every": ("train", "sweep", "study", "compare"),
    "arms": ("study",),
    "label_fractions": ("study",),
    "benchmark_steps": ("benchmark", "compare"),
    "diagnose_steps": ("diagnose",),
    **dict.fromkeys(("benchmark", "compare_torch", "models"), ("benchmark",)),
    **dict.fromkeys(PHOTOS, ("predict", "demo")),
    "flip_test": ("evaluate", "predict", "demo"),
    **dict.fromkeys(("input", "overwrite", "sensor_depth"), ("predict",)),
    **dict.fromkeys(PAGE, ("demo",)),
}
# Settings that have an effect only in these kinds of benchmark.
BENCHMARKS_OF = {
    "models": ("inference",),
    "weightings": ("training",),
    "weighting": ("input",),
    "compare_torch": ("training", "inference"),
    **dict.fromkeys(("model", "precision", "batch_size", "devices"), ("training", "input")),
}
# The state counts steps in 32 bits.
MOST_STEPS = 2**31 - 1
# The default of `eval_batch_size`, which is accepted for smaller data sets, too.
USUAL_BATCH = 8
# These modes read the settings of a run from its folder, with which given ones must agree.
OF_RUN = ("evaluate", "export", "predict", "demo")
# If these have no effect, they are reported, not refused: commands that differ in the tasks or the
# weighting often share them.
HARMLESS = ("label_seed", "labelled_per_batch", "weigh_every")


def check(settings: Settings) -> None:
    """Refuses settings that make no sense for any data set.

    Raises:
      ValueError: naming the setting.
    """
    check_values(settings)
    check_paths(settings)


def without_effect(settings: Settings, defaults: Settings, *, from_file: bool = False) -> list[str]:
    """Returns lines about settings that have no effect; refuses those that are likely a mistake.

    Args:
      settings: settings of the command.
      defaults: default of each setting.
      from_file: whether they come from a file, such as the flags.txt of one run of a grid, which
        holds the settings of all.

    Raises:
      ValueError: naming the setting.
    """
    notes = []
    of_run = settings.mode in OF_RUN or (settings.mode == "diagnose" and holds_run(settings))
    found = (
        {}
        if of_run or settings.mode == "report"
        else idle(
            settings,
            tasks={name for arm in arms_of(settings) for name in arm},
            weightings=methods_in_use(settings),
            few_labels=settings.label_fraction < 1 or settings.mode == "study",
        )
    )
    for name, default in IDLE.items():
        value = getattr(settings, name)
        if name not in found or value == default:
            continue
        line = f"`{name}`={as_text(value)} has no effect: it needs {found[name]}"
        if name not in HARMLESS and not from_file:
            raise ValueError(line)
        notes.append(line)
    for name, modes in MODES_OF.items():
        if of_run and name not in MAY_CHANGE:
            continue
        if settings.mode not in modes and getattr(settings, name) != getattr(defaults, name):
            notes.append(f"`{name}` has no effect with `mode`={settings.mode}")
    name = "weighting" if settings.mode == "train" else "weightings"
    alone = max(map(len, arms_of(settings)), default=0) < 2
    given = getattr(settings, name) != getattr(defaults, name) and not from_file
    if alone and given and settings.mode in ("train", "sweep", "study"):
        notes.append(f"`{name}` has no effect with a single task")
    if settings.learning_rates and settings.mode != "sweep" and not (from_file or of_run):
        notes.append(f"no rate is chosen from `learning_rates` with `mode`={settings.mode}")
    own_rate = settings.learning_rate != defaults.learning_rate
    if settings.learning_rates and own_rate and settings.mode == "sweep" and not from_file:
        notes.append("`learning_rate` has no effect with `learning_rates`")
    for name, kinds in BENCHMARKS_OF.items() if settings.mode == "benchmark" else ():
        if settings.benchmark not in kinds and getattr(settings, name) != getattr(defaults, name):
            notes.append(f"`{name}` has no effect with `benchmark`={settings.benchmark}")
    return notes


def check_values(settings: Settings) -> None:
    """Refuses values that make no sense, alone or together.

    Raises:
      ValueError: naming the setting.
    """
    for name, value in vars(settings).items():
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"`{name}`={value}: give a finite number")
    if settings.learning_rates and settings.mode == "sweep":
        rates.check(settings)
    if settings.coordinator and settings.mode in (
        "benchmark",
        "compare",
        "diagnose",
        "export",
        "predict",
        "demo",
    ):
        raise ValueError(f"`coordinator`: `mode`={settings.mode} runs in one process")
    alone = (settings.num_processes, settings.process_id) == (None, None)
    if not settings.coordinator and not alone:
        raise ValueError("`num_processes` and `process_id` need `coordinator`=HOST:PORT")


def check_paths(settings: Settings) -> None:
    """Refuses paths that can't be what the setting needs.

    Raises:
      ValueError: naming the setting.
    """
    for name in (*PLACES, "folder", "pretrained"):
        value = getattr(settings, name)
        for text in value if isinstance(value, list) else [value]:
            if text is not None:
                files.check_name(f"`{name}`", text)
    # Without `data_dir`, TFDS keeps prepared data sets there.
    folder = os.environ.get("TFDS_DATA_DIR")
    if folder is not None and settings.data_dir is None and settings.mode != "report":
        files.check_name("TFDS_DATA_DIR", folder)
    for name in ("data_dir", "manual_dir", "folder"):
        files.check_no_file(f"`{name}`", Path(getattr(settings, name) or ".").expanduser())
    if settings.compilation_cache not in (None, OFF):
        folder = Path(settings.compilation_cache).expanduser()
        files.check_writable("`compilation_cache`", folder)


def arms_of(settings: Settings) -> list[list[str]]:
    """Returns the sets of tasks that are trained together."""
    if settings.mode == "study":
        return [arm.split("+") for arm in settings.arms]
    return [settings.tasks]


def methods_in_use(settings: Settings) -> Collection[str]:
    """Returns the texts of all weightings that the mode uses; none where no arm has two tasks."""
    if max(map(len, arms_of(settings)), default=0) < 2:
        return []
    if settings.mode not in MODES_OF["weightings"]:
        return [settings.weighting]
    return METHODS if settings.weightings == ["all"] else settings.weightings


def check_sizes(
    *,
    train: int,
    test: int,
    validation: int,
    images: int,
    batch_size: int,
    eval_batch_size: int,
    epochs: int,
) -> int:
    """Checks that batches and epochs fit a data set.

    Args:
      train: number of training images, those held out included.
      test: number of test images.
      validation: number of training images to hold out.
      images: number of images of an epoch.
      batch_size: images per step, over all devices.
      eval_batch_size: images per step of an evaluation.
      epochs: epochs of the run.

    Returns:
      The steps per epoch.

    Raises:
      ValueError: if they don't.
    """
    if not 0 <= validation < train:
        raise ValueError(
            f"`validation`={validation}: 0 to {train - 1} of the {train} training images can be "
            "held out"
        )
    per_epoch = data.steps_per_epoch(range(images), batch_size)
    if epochs * per_epoch > MOST_STEPS:
        raise ValueError(
            f"`epochs`={epochs}: {epochs * per_epoch} steps are more than can be counted "
            f"(at most {MOST_STEPS // per_epoch} epochs)"
        )
    largest = max(train, test, USUAL_BATCH)
    if eval_batch_size > largest:
        raise ValueError(
            f"`eval_batch_size`={eval_batch_size}: set at most {largest}; no split has more images"
        )
    return per_epoch
