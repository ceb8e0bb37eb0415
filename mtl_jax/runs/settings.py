"""What a run is: its settings, which of them may differ, and how config.json records them.

A setting has the name and the value of a flag of launch.py. One that is neither in `MAY_DIFFER` nor
in `MAY_CHANGE` defines a run: a setting that is forgotten here keeps runs apart.
"""

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from mtl_jax.data import CROP_SCALES
from mtl_jax.runs import grid, workdir
from mtl_jax.runs.text import shown
from mtl_jax.tasks import TASKS
from mtl_jax.weighting import TITLES, make, options

# All settings of a command, by name.
Settings = SimpleNamespace

# Between runs that are compared: how tasks are weighed, which tasks, and seeds.
MAY_DIFFER = ("weighting", "weigh_every", "gradients", "tasks", "seed", "label_seed")
# When a run is resumed: where it reads and writes, how fast it is, how long it is, and what
# concerns the command and not the run.
PLACES = ("workdir", "out", "input", "sensor_depth", "data_dir", "manual_dir", "compilation_cache")
SPEED = ("devices", "cache", "coordinator", "num_processes", "process_id")
LENGTH = ("epochs", "evaluate_every", "eval_batch_size", "keep", "patience")
MEMORY = ("accumulate",)
COMMAND = ("mode", "debug", "checkpoint", "split")
BENCHMARK = ("benchmark", "benchmark_steps", "compare_torch", "models", "diagnose_steps")
PHOTOS = ("overwrite", "save_arrays", "flip_test", "tile", "point_cloud", "focal_length")
PAGE = ("host", "port")
GRID = ("weightings", "seeds", "arms", "label_fractions")
MAY_CHANGE = (*PLACES, *SPEED, *LENGTH, *MEMORY, *COMMAND, *BENCHMARK, *PHOTOS, *PAGE, *GRID)
# Recorded nevertheless, because runs that differ in them are not compared.
RECORDED = ("epochs", "evaluate_every", "eval_batch_size", "patience", *MEMORY)
# Settings that older runs do not record -> the defaults that they had.
ADDED = {
    "accumulate": 1,
    "average": 0.0,
    "channels": 3,
    "crop_scales": list(CROP_SCALES),
    "learning_rates": None,
    "patience": 0,
}
# Defaults of settings that may have no effect; the default is then recorded in their place.
IDLE = {
    "colour_jitter": 0.0,
    "crop_scales": list(CROP_SCALES),
    "folder": None,
    "pretrained": None,
    "weigh_every": 1,
    "gradients": "parameters",
    **{name: default for task in TASKS.values() for name, default in task.settings.items()},
}
# What is recorded about the data set besides settings.
FACTS = ("class_names", "channels", "data")


def method(settings: Settings) -> str:
    """Returns the text of the weighting; with a single task there is nothing to weigh."""
    return settings.weighting if len(settings.tasks) > 1 else "equal"


def reads(weighting: str) -> str:
    """Returns what a weighting, given as text, needs: "losses", "gram" or "gradients".

    Raises:
      ValueError: for options that are out of their range.
    """
    try:
        return make(weighting, steps_per_epoch=1, classification=(False, False)).needs
    except ValueError as error:
        raise ValueError(f"`weighting`={weighting}: {error}") from error


def title(weighting: str) -> tuple[str, list[str]]:
    """Returns the name of a weighting in the literature, and its options as texts.

    Of `fairgrad:alpha=1` that is "FairGrad" and ["alpha=1"], of `my_file.py:mine` "mine" and none.
    """
    name, chosen = options.parts(weighting)
    return TITLES.get(name, name.rpartition(":")[2]), chosen


def label(weighting: str) -> str:
    """Returns a weighting's title with its options, such as `FairGrad (alpha=1)`."""
    name, chosen = title(weighting)
    return f"{name} ({', '.join(chosen)})" if chosen else name


def unread(tasks: Collection[str]) -> set[str]:
    """Returns the settings that a run with these tasks does not read."""
    return {name for task in TASKS.values() if task.name not in tasks for name in task.settings}


def idle(
    settings: Settings, *, tasks: Collection[str], weightings: Iterable[str], few_labels: bool
) -> dict[str, str]:
    """Returns the settings that have no effect -> the choice with which they would have one.

    Args:
      settings: of a command or a run.
      tasks: all that are trained.
      weightings: texts of those that are used; none where no two tasks are trained together.
      few_labels: whether labels are withheld in a run.

    Raises:
      ValueError: for options of a weighting that are out of their range.
    """
    needs = {reads(text) for text in weightings}
    found = {
        name: f"{task.name} among `tasks`"
        for task in TASKS.values()
        if task.name not in tasks
        for name in task.settings
    }
    if not few_labels:
        found |= dict.fromkeys(("label_seed", "labelled_per_batch"), "`label_fraction` below 1")
    if not settings.augment:
        found |= dict.fromkeys(("colour_jitter", "crop_scales"), "`augment`, which is off")
    if options.parts(settings.dataset)[0] != "folder":
        found["folder"] = "`dataset`=folder"
    if not needs - {"losses"}:
        found["weigh_every"] = "weightings by the gradients, such as nash"
    if "gram" not in needs:
        found["gradients"] = "weightings by the Gram matrix, such as nash"
    return found


def folder_of(settings: Settings) -> Path:
    """Returns the folder of the one run that the settings describe, or of all runs of a grid.

    Raises:
      ValueError: if `workdir` names several.
    """
    if settings.workdir is None:
        dataset, _ = options.parts(grid.short(settings.dataset))
        what = grid.short(settings.weighting) if len(settings.tasks) > 1 else settings.tasks[0]
        if settings.mode in ("benchmark", "compare", "diagnose"):
            return Path("runs", settings.mode)
        if settings.mode in ("sweep", "study"):
            return Path("runs", grid.folder_name(settings.mode, dataset))
        return Path("runs", grid.folder_name(dataset, what, settings.seed))
    if len(settings.workdir) != 1:
        raise ValueError(
            f"`workdir`={','.join(settings.workdir)}: `mode`={settings.mode} takes one folder "
            "(if its name has a comma, put it in double quotes, and these in single quotes)"
        )
    return Path(settings.workdir[0]).expanduser()


def holds_run(settings: Settings) -> bool:
    """Returns whether the one folder that the settings describe is that of a run."""
    return (folder_of(settings) / "config.json").exists()


def record(
    settings: Settings, *, class_names: Collection[str], channels: int = 3, data: str = ""
) -> dict[str, Any]:
    """Returns what `config.json` says of a run: all settings but those that may change.

    Args:
      settings: settings of the run, with the size of its images.
      class_names: class names of the segmentation.
      channels: channels of the images.
      data: see `Outline`.
    """
    kept = {
        name: value
        for name, value in vars(settings).items()
        if name not in MAY_CHANGE or name in RECORDED
    }
    kept["image_size"] = list(settings.image_size)
    kept["weighting"] = method(settings)
    # Settings that only other tasks read are kept, so that the single-task runs of a sweep agree.
    without_effect = idle(
        settings,
        tasks=TASKS,
        weightings=[settings.weighting] if len(settings.tasks) > 1 else [],
        few_labels=settings.label_fraction < 1,
    )
    kept |= {name: IDLE[name] for name in without_effect}
    if settings.metric_protocol == "pooled":
        # Under this protocol it changes nothing but the speed.
        kept["eval_batch_size"] = None
    if not settings.patience:
        # Evaluations then end no run.
        kept["evaluate_every"] = None
    facts = {"class_names": list(class_names), "channels": channels, "data": data or None}
    return kept | facts


def check_folder(
    settings: Settings, *, class_names: Collection[str], channels: int = 3, data: str = ""
) -> Path:
    """Checks that the folder holds no other run; the length of the run may differ.

    Args:
      settings: settings of the run, with the size of its images.
      class_names: class names of the segmentation.
      channels: channels of the images.
      data: see `Outline`.

    Raises:
      ValueError: if it holds another run, naming the first difference.
    """
    # The learning rate depends on the length, the metrics and batch statistics on the batches.
    held = {"epochs"} if settings.schedule == "cosine" else set()
    held |= set() if {"norm=group", "norm=frozen"} & set(_options(settings.model)) else set(MEMORY)
    held |= {"eval_batch_size"} if settings.metric_protocol == "mtan" else set()
    config = record(settings, class_names=class_names, channels=channels, data=data)
    folder, free = folder_of(settings), set(RECORDED) - held
    # An older run does not say which data it had.
    defaults = ADDED | {"data": config["data"]}
    try:
        return workdir.check(folder, config, free=free, defaults=defaults)
    except ValueError as error:
        if " `data`=" in str(error):
            raise ValueError(
                f"{folder} holds a run on other data: the data set has changed since then. Set "
                "another `workdir`, or restore the files of the data set"
            ) from error
        if "epochs" in held and " `epochs`=" in str(error):
            raise ValueError(
                f"{error}. With `schedule`=cosine the learning rate depends on the length of the "
                "run, which therefore can't change"
            ) from error
        raise


def _options(text: str) -> list[str]:
    return options.parts(text)[1]


def class_names_of(folder: Path) -> tuple[str, ...]:
    """Returns the names of the classes that the run in a folder was trained on."""
    return tuple(workdir.read_json(folder / "config.json")["class_names"])


def channels_of(folder: Path) -> int:
    """Returns the number of channels of the images that the run in a folder was trained on."""
    return workdir.read_json(folder / "config.json").get("channels", ADDED["channels"])


def of_folder(folder: Path, *, checkpoint: str) -> Settings:
    """Returns what the run in a folder records of its settings, and which state of it to use.

    Raises:
      ValueError: if there is no run.
    """
    config = workdir.read_config(folder)
    place = {"workdir": [str(folder)], "checkpoint": checkpoint}
    # Older runs lack settings of which they had the defaults.
    return Settings(**ADDED | IDLE | config | place | {"image_size": _image_size(folder, config)})


def _image_size(folder: Path, config: Mapping[str, Any]) -> tuple[int, int]:
    """Returns height and width of a run's images.

    Raises:
      ValueError: if its config lacks what every run records.
    """
    if not {"image_size", "tasks", "class_names"} <= config.keys():
        raise ValueError(
            f"{folder / 'config.json'} does not say what the run is: put a good copy there or set "
            "another `workdir`"
        )
    height, width = config["image_size"]
    return height, width


def of_run(
    settings: Settings, *, given: Collection[str], may_change: Collection[str] = ()
) -> Settings:
    """Returns the settings of the run in the folder `workdir`, with those that a command changes.

    Args:
      settings: settings of the command line.
      given: names of settings that were given; they must agree with the run's, unless they may
        change.
      may_change: names of settings besides `MAY_CHANGE` that may differ from the run's.

    Raises:
      ValueError: if there is no run, it is of another version, or a given setting disagrees.
    """
    folder, command = folder_of(settings), vars(settings)
    config = ADDED | workdir.read_config(folder, known=(*command, *FACTS))
    size = _image_size(folder, config)
    free = {name for name in given if name in MAY_CHANGE or name in may_change}
    own = {
        name: value
        for name, value in config.items()
        if name in command and name not in free and (name not in RECORDED or value is not None)
    }
    found = Settings(**command | own | {"image_size": size})
    wanted = Settings(**vars(found) | {name: command[name] for name in given})
    one, other = (record(each, class_names=()) for each in (found, wanted))
    for name in one:
        if one[name] != other[name]:
            raise ValueError(
                f"{folder} holds a run with `{name}`={shown(name, one[name])}, not "
                f"{shown(name, other[name])}: leave that out, or set another `workdir`"
            )
    return found
