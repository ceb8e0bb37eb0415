"""The results of a run: a row per epoch, and the final result."""

import functools
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from mtl_jax.runs import metrics_file, workdir
from mtl_jax.tasks import Task

# The literature prints the mean of the last ten evaluations of 200 epochs, one per epoch.
LAST_EVALUATIONS = 10

# The parts of a row that map names to numbers.
GROUPS = ("train", "weights", "diagnostics", "steps_without_labels", "evaluation")


class Log:
    """The rows of a run, in `metrics.jsonl` and as TensorBoard scalars.

    Rows that can't be used are reported in one line, and the others kept: a run resumes from its
    checkpoint, never from a row.

    Args:
      folder: folder of the run.
      tasks: tasks of the run.
      start: step of the checkpoint from which the run resumes; 0 for a new one.
      epoch: epochs that were complete at that step.
      class_names: by index.
    """

    def __init__(
        self,
        folder: Path,
        tasks: Sequence[Task],
        *,
        start: int,
        epoch: int = 0,
        class_names: Sequence[str] = (),
    ):
        self.folder = folder
        self.tasks = tasks
        self.step = start
        self.epoch = epoch
        self.class_names = class_names
        self.added = False
        self.rows = self._take_up()
        metrics_file.write(folder, self.rows)
        self.start = start

    @functools.cached_property
    def events(self) -> Any:
        """Returns TensorBoard's `Events`, made for the first row."""
        # Here, because tensorboardX imports PyTorch if that is installed.
        from mtl_jax.runs import events

        return events.Events(self.folder, start=self.start)

    def _take_up(self) -> list[dict[str, Any]]:
        """Returns the rows up to the checkpoint and prints what is wrong with the others."""
        rows, notes = metrics_file.read(self.folder)
        whole = [row for row in rows if _is_row(row, self.tasks)]
        reached = [row for row in whole if row["step"] <= self.step]
        kept = in_order(reached)
        odd = len(rows) - len(whole) + len(reached) - len(kept)
        if odd:
            notes.append(f"{odd} of its lines can't be rows of this run")
        if notes:
            # The old file may be worth repairing by hand.
            notes.append(f"it is kept as {metrics_file.set_aside(self.folder).name}")
        if len(reached) < len(whole):
            notes.append(f"rows beyond step {self.step} of the checkpoint will be made again")
        lost = sorted(set(range(1, self.epoch + 1)) - {row["epoch"] for row in kept})
        if lost:
            notes.append(f"the rows of {spans(lost)} are lost, and the curves lack them")
        if notes:
            tqdm.write(f"{self.folder / 'metrics.jsonl'}: {'; '.join(notes)}")
        return kept

    def add(self, row: dict[str, Any]) -> None:
        """Writes an epoch's row everywhere."""
        self.rows.append(row)
        self.added = True
        self.step, self.epoch = row["step"], row["epoch"]
        metrics_file.write(self.folder, self.rows)
        if workdir.is_writer():
            self.events.add(scalars(row, self.class_names), row["step"])

    def finish(
        self,
        final: Mapping[str, float],
        floor: Mapping[str, float],
        *,
        watched: str,
        leaked: int,
        labels: Mapping[str, Mapping[str, int]],
        patience: int = 0,
    ) -> dict[str, Any]:
        """Writes `result.json` and returns it.

        A value that does not exist, such as the mIoU of images without labels, is None there.

        Args:
          final: results of the last state on the test split.
          floor: results of the trivial predictor.
          watched: the split that was evaluated during training.
          leaked: number of test images that are training images.
          labels: numbers of images with labels, as of `data.labels_found`.
          patience: number of evaluations that ended the run before its last epoch; 0 if none did.
        """
        complete = [row["epoch"] for row in self.rows] == list(range(1, self.epoch + 1))
        rows = self.rows if complete else []
        last = [row for row in rows if "evaluation" in row][-LAST_EVALUATIONS:]
        first = last[0]["epoch"] if len(last) == LAST_EVALUATIONS else 0
        averaged = watched == "test" and lie_at_the_end(first, self.epoch)
        evaluations = [row["evaluation"] for row in last] if averaged else [final]
        result = {
            "split": "test",
            "epoch": self.epoch,
            "step": self.step,
            "metrics": without_classes(final),
            "last": {
                "evaluations": len(evaluations),
                "epochs": [first if averaged else self.epoch, self.epoch],
                "metrics": mean([without_classes(row) for row in evaluations]),
            },
            "floor": without_classes(floor),
            "class_iou": by_class(numbers(final), self.class_names),
            "leaked": leaked,
            "labels": labels,
            # Unknown if the rows of some epochs are lost.
            "skipped_steps": sum(row["skipped_steps"] for row in rows) if complete else None,
        }
        if patience:
            result["patience"] = patience
        result = workdir.jsonable(result)
        workdir.write_json(self.folder / "result.json", result)
        return result


def in_order(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Returns the rows whose epoch and step are later than those of the row before."""
    found: list[dict[str, Any]] = []
    for row in rows:
        if not found or all(row[name] > found[-1][name] for name in ("epoch", "step")):
            found.append(row)
    return found


def _is_row(row: Mapping[str, Any], tasks: Sequence[Task]) -> bool:
    """Returns whether a JSON object has what every row has, of the right kinds."""
    counts = [row.get(name) for name in ("epoch", "step", "skipped_steps")]
    groups = [row.get(name, {}) for name in GROUPS]
    names = [metric.name for task in tasks for metric in task.metrics]
    return (
        all(type(x) is int and x >= 0 for x in counts)
        and all(isinstance(group, dict) for group in groups)
        and all(type(x) in (int, float) for group in groups for x in group.values())
        and set(row.get("evaluation", names)) >= set(names)
    )


def spans(numbers: Sequence[int]) -> str:
    """Returns epochs in words, such as "epochs 1 to 3, 7", of numbers in order."""
    parts: list[list[int]] = []
    for number in numbers:
        if parts and number == parts[-1][-1] + 1:
            parts[-1][1:] = [number]
        else:
            parts.append([number])
    text = ", ".join(" to ".join(map(str, part)) for part in parts)
    return f"epoch{'s' * (len(numbers) > 1)} {text}"


def scalars(row: Mapping[str, Any], class_names: Sequence[str]) -> dict[str, float]:
    """Returns a row's finite numbers as TensorBoard names them, IoUs by the names of classes."""
    single = ("learning_rate", "images_per_second", "seconds", "skipped_steps")
    found = {f"train/{name}": row.get(name) for name in single}
    for group in GROUPS:
        found |= {f"{group}/{name}": value for name, value in row.get(group, {}).items()}
    for i, name in enumerate(class_names):
        found[f"class_iou/{name}"] = found.pop(f"evaluation/class_iou/{i}", None)
    return {name: x for name, x in found.items() if x is not None and math.isfinite(x)}


def lie_at_the_end(first: int, end: int) -> bool:
    """Returns whether the epochs from `first` to `end` are within the last tenth of `end` epochs.

    A mean that reaches further back lags behind the end of a run.
    """
    return 0 < first <= end and 10 * (end - first + 1) <= end


def score(evaluation: Mapping[str, float], tasks: Sequence[Task]) -> float | None:
    """Returns the score by which the best checkpoint is chosen: minus the tasks' mean log error.

    A task's error is its first metric (1 - mIoU, absolute depth error, mean angle), so halving an
    error counts the same in every task and every unit.

    Returns:
      None if a task's error is not finite: such a state is never the best one.
    """
    errors = []
    for task in tasks:
        value = evaluation[task.metrics[0].name]
        errors.append(1.0 - value if task.metrics[0].higher_is_better else value)
    if not np.all(np.isfinite(errors)):
        return None
    return -float(np.mean(np.log(np.maximum(errors, 1e-6))))


def since_best(rows: Iterable[Mapping[str, Any]], tasks: Sequence[Task]) -> int:
    """Returns how many evaluations in these rows came after the one with the best score."""
    found = [score(numbers(row["evaluation"]), tasks) for row in rows if "evaluation" in row]
    scores = [-math.inf if value is None else value for value in found]
    best = max(scores, default=-math.inf)
    return len(scores) - 1 - scores.index(best) if math.isfinite(best) else len(scores)


def mean(rows: Sequence[Mapping[str, float | None]]) -> dict[str, float]:
    """Returns the mean of each value over evaluations; NaN if one of them lacks it."""
    names = dict.fromkeys(name for row in rows for name in row)
    columns = {name: [numbers(row).get(name, math.nan) for row in rows] for name in names}
    return {name: float(np.mean(column)) for name, column in columns.items()}


def without_classes(results: Mapping[str, float]) -> dict[str, float]:
    """Returns results without the IoU of each class."""
    return {name: x for name, x in results.items() if not name.startswith("class_iou/")}


def by_class(results: Mapping[str, float], class_names: Sequence[str]) -> dict[str, float | None]:
    """Returns the IoU of each class by its name; None for a class that does not occur."""
    iou = {name: results.get(f"class_iou/{i}", math.nan) for i, name in enumerate(class_names)}
    return {name: None if math.isnan(x) else x for name, x in iou.items()}


def numbers(values: Mapping[str, float | None]) -> dict[str, float]:
    """Returns the values with NaN for None, which stands for it in JSON."""
    return {name: math.nan if value is None else value for name, value in values.items()}
