"""Reads the folders of runs; missing or broken files do not stop it.

A run that is still going, or was killed, has written a part of its files: everything readable is
kept, and `Run.missing` says in words what is not there.
"""

import json
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mtl_jax.report import arrays
from mtl_jax.runs import labels, results, workdir
from mtl_jax.runs.settings import ADDED
from mtl_jax.tasks import TASKS, Codebook

# A larger number of epochs comes from a damaged file.
MOST_EPOCHS = 10**9
FILES = ("config.json", "metrics.jsonl", "result.json", "samples.npz")


class Epoch(NamedTuple):
    """One line of metrics.jsonl; what the line lacks is empty or NaN.

    Attributes:
      epoch: 1 for the first.
      facts: plain numbers such as `images_per_second` and `skipped_steps`.
      train: `task/loss` -> mean over the epoch.
      weights: task -> mean weight of its gradient in the shared parameters.
      diagnostics: diagnostics of the weighting method, such as `cosine/segmentation-depth`.
      evaluation: `task/metric` -> value; empty in an epoch that did not evaluate.
    """

    epoch: int
    facts: dict[str, float]
    train: dict[str, float]
    weights: dict[str, float]
    diagnostics: dict[str, float]
    evaluation: dict[str, float]


class Mean(NamedTuple):
    """The mean over the last evaluations of a run, all within the last tenth of its epochs."""

    evaluations: int
    metrics: dict[str, float]


class Result(NamedTuple):
    """The evaluation that a run ended with.

    Attributes:
      split: name of the evaluated split.
      metrics: `task/metric` -> value of the final evaluation; from `alike` on, the value to show.
      evaluations: number of evaluations of which `metrics` is the mean.
      averaged: the mean over the last evaluations, where the run has one.
      floor: the same metrics of the trivial predictor.
      class_iou: class that occurs -> intersection over union in the final evaluation; NaN of all
        classes if predictions were not finite.
      leaked: number of images of the split that are training images, too.
      labels: numbers of images with labels, see `data.labels_found`; empty for older runs.
    """

    split: str
    metrics: dict[str, float]
    evaluations: int
    averaged: Mean | None
    floor: dict[str, float]
    class_iou: dict[str, float]
    leaked: int = 0
    labels: dict[str, dict[str, int]] = {}


class Run(NamedTuple):
    """What the folder of a run holds.

    Attributes:
      path: the folder.
      config: content of config.json; empty if it can't be read.
      tasks: names of the tasks trained, in the order of the table TASKS.
      epochs: epochs in order, each once.
      result: None for a run that has not finished.
      samples: arrays of samples.npz; empty if there are none.
      details: content of evaluation.npz, if there is one.
      codebook: of a run with one, if it can be read.
      missing: one phrase for each piece that is absent or can't be read.
    """

    path: Path
    config: dict[str, Any]
    tasks: tuple[str, ...]
    epochs: tuple[Epoch, ...]
    result: Result | None
    samples: dict[str, np.ndarray]
    details: arrays.Details | None
    codebook: Codebook | None
    missing: tuple[str, ...]

    @property
    def outcome(self) -> Result:
        """Returns the result of a run that has finished.

        Raises:
          ValueError: if it has not.
        """
        if self.result is None:
            raise ValueError(f"{self.path} has no result")
        return self.result


def read_runs(folders: Sequence[str | Path]) -> list[Run]:
    """Reads the folders of runs in the order given, each once; for a sweep or study, all its runs.

    Their values are of the same kind, see `alike`.

    Raises:
      ValueError: if there are none, or one of them does not belong to a run.
    """
    if not all(map(str, folders)):
        raise ValueError("`workdir` has an empty name: take out the extra comma")
    found = [path for folder in folders for path in _runs_in(Path(folder))]
    paths = list({path.resolve(): path for path in found}.values())
    if not paths:
        raise ValueError("a report needs the folder of at least one run, got none")
    return alike([read_run(path) for path in paths])


def alike(runs: Sequence[Run]) -> list[Run]:
    """Returns the runs with values of one kind: means of equally many evaluations, or final ones.

    The mean of the last evaluations is what the literature prints. It is smoother than a final
    value and lags behind it, so of the runs that are shown together either all use it or none does.
    """
    results = [run.result for run in runs if run.result]
    counts = {result.averaged.evaluations if result.averaged else 1 for result in results}
    if len(counts) != 1 or counts == {1}:
        return list(runs)
    return [run._replace(result=run.result and _smoothed(run.result)) for run in runs]


def _smoothed(result: Result) -> Result:
    mean = result.averaged
    if mean is None:
        return result
    return result._replace(metrics={**result.metrics, **mean.metrics}, evaluations=mean.evaluations)


def read_run(workdir: str | Path) -> Run:
    """Reads the available files of one run.

    Raises:
      ValueError: if the folder does not exist or has none of a run's files.
    """
    path = Path(workdir)
    if not _is_run(path):
        raise ValueError(
            f"`workdir`={path} is not the folder of a run: it holds none of {', '.join(FILES)}"
        )
    missing: list[str] = []
    config = _read_json(path / "config.json", missing, "named after its folder")
    epochs = _read_epochs(path / "metrics.jsonl", missing)
    result = _read_result(path / "result.json", config, epochs, missing)
    samples = arrays.read_samples(path / "samples.npz", missing)
    details = arrays.read_details(path / "evaluation.npz", missing) if result else None
    book = arrays.read_codebook(path / "codebook.npy", missing)
    tasks = _tasks(config, epochs, result)
    # Older runs lack settings of which they had the defaults.
    config = config and ADDED | config
    return Run(path, config, tasks, epochs, result, samples, details, book, tuple(missing))


def _is_run(path: Path) -> bool:
    return any((path / name).is_file() for name in FILES)


def _runs_in(path: Path) -> list[Path]:
    """Returns the folder itself if it is that of a run, else the runs in it."""
    inside = sorted(path.iterdir()) if path.is_dir() and not _is_run(path) else []
    return [run for run in inside if _is_run(run)] or [path]


def numbers(mapping: Any) -> dict[str, float]:
    """Returns the entries of a mapping that are plain numbers; none of anything else."""
    if not isinstance(mapping, Mapping):
        return {}
    return {str(key): _float(value) for key, value in mapping.items() if _is_number(value)}


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _float(value: float) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def _whole(value: Any) -> int:
    """Returns a count that is within reason, else 0."""
    sensible = _is_number(value) and 0 <= value <= MOST_EPOCHS and value == int(value)
    return int(value) if sensible else 0


def _no_numbers(content: Mapping[str, Any], parts: Sequence[str]) -> Iterator[str]:
    """Yields names of entries that should be numbers but are not; null is an absent number."""
    for part in parts:
        mapping = content.get(part)
        if isinstance(mapping, Mapping):
            odd = [key for key, x in mapping.items() if x is not None and not _is_number(x)]
            yield from (f"{part}/{key}" for key in odd)
        elif mapping is not None:
            yield part


def _parse(text: bytes) -> dict[str, Any]:
    """Returns the object in JSON text, with characters that can be printed.

    Raises:
      ValueError: if it is something else.
    """
    try:
        content = json.dumps(workdir.parse_object(text), ensure_ascii=False)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    # JSON can escape halves of characters, which can't be written to a file or picture.
    return json.loads(content.encode("utf-8", "replace").decode("utf-8"))


def _read_json(path: Path, missing: list[str], consequence: str) -> dict[str, Any]:
    try:
        content = _parse(path.read_bytes())
    except FileNotFoundError:
        missing.append(f"no {path.name} ({consequence})")
        return {}
    except (OSError, ValueError):
        content = None
    if not isinstance(content, dict):
        missing.append(f"{path.name} can't be read ({consequence})")
        return {}
    return content


def _read_epochs(path: Path, missing: list[str]) -> tuple[Epoch, ...]:
    try:
        lines = path.read_bytes().splitlines()
    except FileNotFoundError:
        missing.append(f"no {path.name} (no curves)")
        return ()
    except OSError:
        missing.append(f"{path.name} can't be read (no curves)")
        return ()
    epochs: dict[int, Epoch] = {}
    broken, odd = 0, {}
    for line in filter(bytes.strip, lines):
        content = _epoch_content(line)
        if content is None:
            broken += 1
            continue
        odd |= dict.fromkeys(_no_numbers(content, Epoch._fields[2:]))
        parts = [numbers(content.get(key)) for key in Epoch._fields[2:]]
        # A resumed run repeats the epochs since its last checkpoint; the later line counts.
        number = int(content["epoch"])
        epochs[number] = Epoch(number, numbers(content), *parts)
    if broken:
        missing.append(f"{broken} line{'s' * (broken > 1)} of {path.name} can't be read")
    elif not epochs:
        missing.append(f"{path.name} is empty (no curves)")
    if odd:
        missing.append(f"{path.name} has no numbers as {_some(odd)}")
    return tuple(epochs[number] for number in sorted(epochs))


def _epoch_content(line: bytes) -> dict[str, Any] | None:
    try:
        content = _parse(line)
    except ValueError:
        return None
    known = isinstance(content, dict) and _whole(content.get("epoch")) > 0
    return content if known else None


def _read_result(
    path: Path, config: Mapping[str, Any], epochs: Sequence[Epoch], missing: list[str]
) -> Result | None:
    content = _read_json(path, missing, "no row in the tables")
    split = content.get("split")
    split = split if isinstance(split, str) else "unknown"
    counted = _labels(content.get("labels"))
    unlabelled = labels.none_of(counted, split)
    metrics = _metrics(content.get("metrics"), unlabelled)
    odd = list(_no_numbers(content, ("metrics", "floor", "class_iou")))
    if odd:
        missing.append(f"{path.name} has no numbers as {_some(odd)}")
    if not metrics:
        if content and not odd:
            missing.append(f"{path.name} has no metrics (no row in the tables)")
        return None
    end, planned = _whole(content.get("epoch")), _whole(config.get("epochs"))
    if end and planned and end != planned and not _whole(content.get("patience")):
        missing.append(
            f"{path.name} is of epoch {end}, but the run has {planned} (no row in the tables)"
        )
        return None
    absent = [name for name, value in metrics.items() if math.isnan(value)]
    if absent:
        missing.append(f"{path.name} has no number for {_some(absent)}")
    return Result(
        split=split,
        metrics=metrics,
        evaluations=1,
        averaged=_averaged(content, config, epochs, end, unlabelled),
        floor=numbers(content.get("floor")),
        class_iou=_class_iou(content.get("class_iou"), metrics),
        leaked=_whole(content.get("leaked")),
        labels=counted,
    )


def _metrics(content: Any, unlabelled: Collection[str]) -> dict[str, float]:
    """Returns metrics, NaN where a run wrote null, since a mean over seeds must not leave it out.

    Args:
      content: of a result.
      unlabelled: tasks without labels in the split, whose metrics are left out.
    """
    content = content if isinstance(content, Mapping) else {}
    known = numbers({key: math.nan if x is None else x for key, x in content.items()})
    return {name: x for name, x in known.items() if name.split("/")[0] not in unlabelled}


def _class_iou(content: Any, metrics: Mapping[str, float]) -> dict[str, float]:
    """Returns the IoU of the classes; a run wrote null for those that don't occur.

    It also wrote null for all of them if it has no metrics, which a mean over seeds must not leave
    out.
    """
    content = content if isinstance(content, Mapping) else {}
    known = {name: x for name, x in numbers(content).items() if not math.isnan(x)}
    by_class = [task.metrics[0].name for task in TASKS.values() if task.by_class is not None]
    if not known and any(math.isnan(metrics.get(name, 0.0)) for name in by_class):
        return dict.fromkeys(content, math.nan)
    return known


def _labels(content: Any) -> dict[str, dict[str, int]]:
    """Returns the numbers of labelled images; none unless all parts are there."""
    parts = content if isinstance(content, Mapping) else {}
    found = {name: numbers(parts.get(name)) for name in ("trained", "present", "judged")}
    if not all(labels.IMAGES in counts for counts in found.values()):
        return {}
    return {name: {key: _whole(x) for key, x in counts.items()} for name, counts in found.items()}


def _averaged(
    content: Mapping[str, Any],
    config: Mapping[str, Any],
    epochs: Sequence[Epoch],
    end: int,
    unlabelled: Collection[str],
) -> Mean | None:
    last = content.get("last")
    # If images are held out for validation, evaluations during training use those.
    if not isinstance(last, dict) or config.get("validation"):
        return None
    number, means = _whole(last.get("evaluations")), _metrics(last.get("metrics"), unlabelled)
    evaluated = [epoch.epoch for epoch in epochs if epoch.evaluation]
    first = evaluated[-number] if 2 <= number <= len(evaluated) else 0
    # Older results don't record the epochs.
    span = last.get("epochs", [first, end])
    if number < 2 or not means or not isinstance(span, list) or len(span) != 2:
        return None
    late = results.lie_at_the_end(*map(_whole, span))
    return Mean(number, means) if late else None


def _some(names: Sequence[str] | Mapping[str, Any]) -> str:
    """Returns a few of the names, and how many there are."""
    first = " ".join(", ".join(list(names)[:3]).split())
    return first if len(names) <= 3 else f"{first} and {len(names) - 3} more"


def _tasks(config: dict, epochs: Sequence[Epoch], result: Result | None) -> tuple[str, ...]:
    """Returns the tasks that config.json names, otherwise those with numbers."""
    named = config.get("tasks")
    if not isinstance(named, list):
        keys = [key for epoch in epochs for key in epoch.train] + list(
            result.metrics if result else ()
        )
        named = [key.split("/")[0] for key in keys]
    return tuple(name for name in TASKS if name in named)
