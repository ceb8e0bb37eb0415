"""What runs left in their work directories, read so that a missing or broken piece stops nothing.

A run that is still going, or was killed, has written a part of its files: everything readable is
kept, and `Run.missing` says in words what is not there.
"""

import io
import json
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mtl_jax.tasks import TASKS

FILES = ("config.json", "metrics.jsonl", "result.json", "samples.npz")


class Epoch(NamedTuple):
    """One line of metrics.jsonl; whatever the line lacks is empty or NaN.

    Attributes:
      epoch: 1 for the first.
      facts: plain numbers such as `images_per_second` and `skipped_steps`.
      train: `task/loss` -> mean over the epoch.
      weights: task -> mean weight of its gradient in the shared parameters.
      diagnostics: of the weighting method, such as `cosine/segmentation-depth`.
      evaluation: `task/metric` -> value; empty in an epoch that did not evaluate.
    """

    epoch: int
    facts: dict[str, float]
    train: dict[str, float]
    weights: dict[str, float]
    diagnostics: dict[str, float]
    evaluation: dict[str, float]


class Result(NamedTuple):
    """The evaluation that a run ended with.

    Attributes:
      split: name of the evaluated split.
      metrics: `task/metric` -> value: the mean over the last evaluations where the run made
        several, the final evaluation otherwise.
      evaluations: over how many evaluations `metrics` is the mean.
      floor: the same metrics of the trivial predictor.
      class_iou: class -> intersection over union in the final evaluation.
      leaked: images of the split that are training images, too.
    """

    split: str
    metrics: dict[str, float]
    evaluations: int
    floor: dict[str, float]
    class_iou: dict[str, float]
    leaked: int = 0


class Run(NamedTuple):
    """One work directory.

    Attributes:
      path: the directory.
      config: what config.json says; empty if it can't be read.
      tasks: names of the tasks trained, in the order of the table TASKS.
      epochs: in order, each epoch once.
      result: None for a run that has not finished.
      samples: arrays of samples.npz; empty if there are none.
      missing: one phrase for each piece that is absent or can't be read.
    """

    path: Path
    config: dict[str, Any]
    tasks: tuple[str, ...]
    epochs: tuple[Epoch, ...]
    result: Result | None
    samples: dict[str, np.ndarray]
    missing: tuple[str, ...]


def read_runs(workdirs: Sequence[str | Path]) -> list[Run]:
    """Reads work directories in the order given, each once; of a sweep or study all of its runs.

    Raises:
      ValueError: if there are none, or one of them is no run's.
    """
    found = [path for workdir in workdirs for path in _runs_in(Path(workdir))]
    paths = list({path.resolve(): path for path in found}.values())
    if not paths:
        raise ValueError("a report needs one work directory of a run or more, got none")
    return [read_run(path) for path in paths]


def read_run(workdir: str | Path) -> Run:
    """Reads what is there of one run.

    Raises:
      ValueError: if the directory does not exist or has none of a run's files.
    """
    path = Path(workdir)
    if not _is_run(path):
        raise ValueError(
            f"{path} is not a run's work directory: it holds none of {', '.join(FILES)}; "
            "give the directory that a training run wrote"
        )
    missing: list[str] = []
    config = _read_json(path / "config.json", missing, "named after its directory")
    epochs = _read_epochs(path / "metrics.jsonl", missing)
    result = _read_result(path / "result.json", config, missing)
    samples = _read_samples(path / "samples.npz", missing)
    tasks = _tasks(config, epochs, result)
    return Run(path, config, tasks, epochs, result, samples, tuple(missing))


def _is_run(path: Path) -> bool:
    return any((path / name).is_file() for name in FILES)


def _runs_in(path: Path) -> list[Path]:
    """The directory itself, or where it is none of a run the runs that lie in it."""
    inside = sorted(path.iterdir()) if path.is_dir() and not _is_run(path) else []
    return [run for run in inside if _is_run(run)] or [path]


def numbers(mapping: Any) -> dict[str, float]:
    """The entries of a mapping that are plain numbers; none if it is no mapping."""
    if not isinstance(mapping, Mapping):
        return {}
    return {
        str(key): float(value)
        for key, value in mapping.items()
        if isinstance(value, (int, float)) and not isinstance(value, bool)
    }


def _read_json(path: Path, missing: list[str], consequence: str) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
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
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        missing.append(f"no {path.name} (no curves)")
        return ()
    epochs: dict[int, Epoch] = {}
    broken = 0
    for line in filter(str.strip, lines):
        epoch = _epoch(line)
        if epoch is None:
            broken += 1
        else:
            # A resumed run repeats the epochs since its last checkpoint: the later line holds.
            epochs[epoch.epoch] = epoch
    if broken:
        missing.append(f"{broken} line{'s' * (broken > 1)} of {path.name} can't be read")
    elif not epochs:
        missing.append(f"{path.name} is empty (no curves)")
    return tuple(epochs[number] for number in sorted(epochs))


def _epoch(line: str) -> Epoch | None:
    try:
        content = json.loads(line)
    except ValueError:
        return None
    facts = numbers(content)
    if not np.isfinite(facts.get("epoch", np.nan)):
        return None
    parts = [numbers(content.get(key)) for key in Epoch._fields[2:]]
    return Epoch(int(facts["epoch"]), facts, *parts)


def _read_result(path: Path, config: Mapping[str, Any], missing: list[str]) -> Result | None:
    content = _read_json(path, missing, "no row in the tables")
    metrics, evaluations = numbers(content.get("metrics")), 1
    last = content.get("last")
    # Where images are held out for validation, the evaluations on the way are of those.
    same_split = not config.get("validation")
    if same_split and isinstance(last, dict) and numbers(last).get("evaluations", 0) > 1:
        # The mean of the last evaluations is what the literature prints.
        metrics = {**metrics, **numbers(last.get("metrics"))}
        evaluations = int(last["evaluations"])
    if not metrics:
        if content:
            missing.append(f"{path.name} has no metrics (no row in the tables)")
        return None
    return Result(
        split=str(content.get("split", "unknown")),
        metrics=metrics,
        evaluations=evaluations,
        floor=numbers(content.get("floor")),
        class_iou=numbers(content.get("class_iou")),
        leaked=int(numbers({"": content.get("leaked", 0)}).get("", 0)),
    )


def _read_samples(path: Path, missing: list[str]) -> dict[str, np.ndarray]:
    try:
        # NumPy leaves a file that is no archive open.
        with np.load(io.BytesIO(path.read_bytes())) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except FileNotFoundError:
        missing.append(f"no {path.name} (no pictures)")
        return {}
    except (OSError, ValueError, TypeError, EOFError, KeyError, zipfile.BadZipFile, zlib.error):
        missing.append(f"{path.name} can't be read (no pictures)")
        return {}
    image = arrays.get("image", np.zeros(0))
    if image.ndim != 4 or image.shape[-1] != 3 or not image.size:
        missing.append(f"{path.name} has no images (no pictures)")
        return {}
    shapes = {"image": image.shape}
    for task in TASKS:
        shape = image.shape if task == "normals" else image.shape[:3]
        shapes |= {task: shape, f"predicted_{task}": shape}
    known = {name: array for name, array in arrays.items() if name in shapes}
    odd = [name for name, array in known.items() if array.shape != shapes[name]]
    if odd:
        missing.append(f"{path.name} has {', '.join(odd)} in another shape than its images")
    return {name: array for name, array in known.items() if name not in odd}


def _tasks(config: dict, epochs: Sequence[Epoch], result: Result | None) -> tuple[str, ...]:
    """The tasks that config.json names, else those that the numbers are about."""
    named = config.get("tasks")
    if not isinstance(named, list):
        keys = [key for epoch in epochs for key in epoch.train] + list(
            result.metrics if result else ()
        )
        named = [key.split("/")[0] for key in keys]
    return tuple(name for name in TASKS if name in named)
