"""What a run measured: a row an epoch, the final result, the table on the terminal."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from tensorboardX import SummaryWriter
from tqdm import tqdm

from mtl_jax import titles, workdir
from mtl_jax.tasks import Metric, Task

# The literature prints the mean of the last ten evaluations of 200 epochs, one per epoch.
LAST_EVALUATIONS = 10


class Log:
    """The rows of a run, in `metrics.jsonl` and as TensorBoard scalars.

    Args:
      folder: of the run.
      tasks: of the run.
      start: step from which the run goes on; rows of later steps are dropped.
    """

    def __init__(self, folder: Path, tasks: Sequence[Task], *, start: int):
        self.folder = folder
        self.tasks = tasks
        self.rows = [row for row in workdir.read_metrics(folder) if row["step"] <= start]
        workdir.write_metrics(folder, self.rows)
        self.tensorboard = SummaryWriter(
            str(folder), purge_step=start + 1, write_to_disk=workdir.is_writer()
        )

    def add(self, row: dict[str, Any]) -> None:
        """Writes an epoch's row everywhere and prints its evaluation."""
        self.rows.append(row)
        workdir.write_metrics(self.folder, self.rows)
        for group in ("train", "weights", "diagnostics", "evaluation"):
            for name, value in row.get(group, {}).items():
                self.tensorboard.add_scalar(f"{group}/{name}", value, row["step"])
        self.tensorboard.flush()
        if "evaluation" in row:
            tqdm.write(f"epoch {row['epoch']}: {one_line(row['evaluation'], self.tasks)}")

    def close(self) -> None:
        """Ends the TensorBoard file."""
        self.tensorboard.close()

    def finish(
        self,
        final: Mapping[str, float],
        floor: Mapping[str, float],
        class_names: Sequence[str],
        *,
        watched: str,
        leaked: int,
    ) -> dict[str, Any]:
        """Writes `result.json` and returns it.

        A value that does not exist, such as the mIoU of images without labels, is None there.

        Args:
          final: results of the last state on the test split.
          floor: those of the trivial predictor.
          class_names: by index.
          watched: the split of the evaluations on the way.
          leaked: test images that are training images.
        """
        end = self.rows[-1]["epoch"]
        last = [row for row in self.rows if "evaluation" in row][-LAST_EVALUATIONS:]
        first = last[0]["epoch"] if len(last) == LAST_EVALUATIONS else 0
        averaged = watched == "test" and lie_at_the_end(first, end)
        evaluations = [row["evaluation"] for row in last] if averaged else [final]
        result = {
            "split": "test",
            "epoch": end,
            "step": self.rows[-1]["step"],
            "metrics": _known(without_classes(final)),
            "last": {
                "evaluations": len(evaluations),
                "epochs": [first if averaged else end, end],
                "metrics": _known(mean([without_classes(row) for row in evaluations])),
            },
            "floor": _known(without_classes(floor)),
            "class_iou": by_class(_numbers(final), class_names),
            "leaked": leaked,
            "skipped_steps": sum(row["skipped_steps"] for row in self.rows),
        }
        workdir.write_json(self.folder / "result.json", result)
        return result


def lie_at_the_end(first: int, end: int) -> bool:
    """Whether the epochs from `first` to `end` are within the last tenth of `end` epochs.

    A mean that reaches further back lags behind the end of a run: it is no result of it.
    """
    return 0 < first <= end and 10 * (end - first + 1) <= end


def epoch_row(
    sums: Mapping[str, jax.Array], tasks: Sequence[Task], *, epoch: int, step: int
) -> dict[str, Any]:
    """Means over an epoch's steps that were not skipped, from the sums of a `TrainState`.

    A loss is the mean over the steps that had labels of its task, `steps_without_labels` of a task
    counts the others.
    """
    sums = {name: float(value) for name, value in jax.device_get(dict(sums)).items()}
    count = max(sums["steps"], 1.0)
    prefix = "diagnostic/"
    return {
        "epoch": epoch,
        "step": step,
        "skipped_steps": int(sums["skipped"]),
        "steps_without_labels": {
            task.name: int(sums["steps"] - sums[f"labelled/{task.name}"]) for task in tasks
        },
        "train": {
            f"{task.name}/loss": sums[f"loss/{task.name}"] / max(sums[f"labelled/{task.name}"], 1.0)
            for task in tasks
        },
        "weights": {task.name: sums[f"weight/{task.name}"] / count for task in tasks},
        "diagnostics": {
            name.removeprefix(prefix): value / count
            for name, value in sums.items()
            if name.startswith(prefix)
        },
    }


def score(evaluation: Mapping[str, float], tasks: Sequence[Task]) -> float:
    """What the best checkpoint has most of: minus the mean log error of the tasks.

    A task's error is its first metric (1 - mIoU, absolute depth error, mean angle), so that a
    halved error counts the same in every task, whatever its unit.
    """
    errors = []
    for task in tasks:
        value = evaluation[task.metrics[0].name]
        errors.append(1.0 - value if task.metrics[0].higher_is_better else value)
    return -float(np.mean(np.log(np.maximum(errors, 1e-6))))


def mean(rows: Sequence[Mapping[str, float | None]]) -> dict[str, float]:
    """The mean of each value over evaluations; NaN if one of them lacks it."""
    names = dict.fromkeys(name for row in rows for name in row)
    columns = {name: [_numbers(row).get(name, math.nan) for row in rows] for name in names}
    return {name: float(np.mean(column)) for name, column in columns.items()}


def without_classes(results: Mapping[str, float]) -> dict[str, float]:
    """Results less the IoU of each class."""
    return {name: x for name, x in results.items() if not name.startswith("class_iou/")}


def by_class(results: Mapping[str, float], class_names: Sequence[str]) -> dict[str, float | None]:
    """IoU of each class by its name; None for a class that does not occur."""
    iou = {name: results.get(f"class_iou/{i}", math.nan) for i, name in enumerate(class_names)}
    return {name: None if math.isnan(x) else x for name, x in iou.items()}


def one_line(evaluation: Mapping[str, float | None], tasks: Sequence[Task]) -> str:
    """The literature's columns of an evaluation, in one line with their units."""
    columns = [metric for task in tasks for metric in task.metrics if metric.standard]
    units = {metric.name: titles.unit(metric).replace("m", " m") for metric in columns}
    return "  ".join(f"{m.label} {cell(evaluation, m)}{units[m.name]}" for m in columns)


def cell(values: Mapping[str, float | None], metric: Metric) -> str:
    """A number of a table as text, in the unit of `titles.unit`; a dash for an absent one."""
    value = _numbers(values).get(metric.name, math.nan)
    if math.isnan(value):
        return "–"
    return f"{100 * value:.2f}" if metric.percent else f"{value:.4f}"


def text_table(result: Mapping[str, Any], tasks: Sequence[Task], label: str) -> str:
    """The final result over the trivial predictor, for the terminal.

    Args:
      result: `metrics`, `floor` and, where there is one, `last`, as in result.json.
      tasks: of the columns.
      label: of the first row; a weighting's name on the command line becomes its title.
    """
    label = titles.TITLES.get(label, label)
    rows = [(label, result["metrics"]), ("trivial predictor", result["floor"])]
    last = result.get("last", {})
    if last.get("evaluations", 0) > 1:
        rows.insert(1, (f"mean of last {last['evaluations']} evaluations", last["metrics"]))
    columns = [metric for task in tasks for metric in task.metrics]
    lines = [["", *map(titles.head, columns)]]
    lines += [[name, *(cell(values, metric) for metric in columns)] for name, values in rows]
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    return "\n".join(
        "  ".join(cell.rjust(w) if i else cell.ljust(w) for i, (cell, w) in enumerate(pairs))
        for pairs in (list(zip(line, widths, strict=True)) for line in lines)
    )


def _numbers(values: Mapping[str, float | None]) -> dict[str, float]:
    return {name: math.nan if value is None else value for name, value in values.items()}


def _known(values: Mapping[str, float | None]) -> dict[str, float | None]:
    """JSON has no NaN."""
    return {name: x if x is not None and math.isfinite(x) else None for name, x in values.items()}
