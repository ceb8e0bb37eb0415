"""The rows of the result tables: values of each group, Delta-m, the trivial predictor."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from mtl_jax.report import labels
from mtl_jax.report.baseline import find_baseline, splits, standard_metrics
from mtl_jax.report.grouping import Group, differing, protocol
from mtl_jax.report.read import numbers
from mtl_jax.report.spread import mean_and_error
from mtl_jax.report.wording import descriptions, distinguishing
from mtl_jax.tasks import TASKS
from mtl_jax.tasks.metrics import delta_m

FLOOR = "Trivial predictor"
# The settings on which the trivial predictor depends. It sees all labels of the training split.
FLOOR_READS = (
    "dataset", "folder", "data", labels.KEY, "image_size", "validation", "metric_protocol",
    "eval_batch_size",
)  # fmt: skip


class Row(NamedTuple):
    """A row of a table.

    Attributes:
      label: text of its first cell.
      values: column name -> values of the seeds, as the runs wrote them.
      block: rows of one block are comparable: the best is marked among them.
      ranked: whether it competes for the best value.
    """

    label: str
    values: dict[str, tuple[float, ...]]
    block: tuple
    ranked: bool = True


class Floor(NamedTuple):
    """The trivial predictor's values on some data.

    Attributes:
      reads: what it depends on: settings, the tasks and the split.
      digits: the values, rounded to digits in which two runs on the same data agree.
      values: as in a row.
    """

    reads: dict[str, Any]
    digits: dict[str, str]
    values: dict[str, tuple[float, ...]]

    def equals(self, other: "Floor") -> bool:
        """Returns whether one row can stand for both."""
        return (self.reads, self.digits) == (other.reads, other.digits)


def result_rows(groups: Sequence[Group]) -> list[Row]:
    """Returns a row for each group that has results, with Delta-m where it has a baseline.

    The rows of one block follow each other. Consecutive blocks with the same trivial predictor
    share its row, which follows them.
    """
    blocks: dict[tuple, list[Group]] = {}
    for group in groups:
        if group.finished:
            blocks.setdefault((protocol(group.runs[0]), splits(group)), []).append(group)
    floors = [_floor(members) for members in blocks.values()]
    names = _floor_names(floors)
    rows = []
    for index, (block, members) in enumerate(blocks.items()):
        rows += _with_mean_ranks([_row(group, groups, block) for group in members])
        floor, *following = floors[index:]
        if floor.values and not (following and following[0].equals(floor)):
            rows.append(Row(names[index], floor.values, block, ranked=False))
    return rows


def _step_time(group: Group) -> dict[str, tuple[float, ...]]:
    """Returns milliseconds per step of each multi-task run, the mean over its epochs."""
    times = []
    for run in [] if group.single_task else group.finished:
        speeds = [e.facts.get("images_per_second", 0.0) for e in run.epochs]
        speeds = [speed for speed in speeds if 0 < speed < math.inf]
        batch_size = numbers(run.config).get("batch_size", 0.0)
        if speeds and batch_size > 0:
            times.append(float(np.mean([1000.0 * batch_size / speed for speed in speeds])))
    return {"milliseconds": tuple(times)} if times else {}


def _with_mean_ranks(rows: Sequence[Row]) -> list[Row]:
    """Adds `mean_rank`: the mean of a row's places in the standard columns, 1 for the best.

    Rows that tie share the mean of their places; a row that lacks a column has no mean rank, and
    fewer than three rows are not ranked.
    """
    columns = [m for task in TASKS.values() for m in task.metrics if m.standard]
    columns = [column for column in columns if any(column.name in row.values for row in rows)]
    means = {
        id(row): [mean_and_error(row.values.get(column.name, ()))[0] for column in columns]
        for row in rows
    }
    complete = [row for row in rows if not np.isnan(means[id(row)]).any()]
    if len(complete) < 3 or not columns:
        return list(rows)
    places = []
    for index, column in enumerate(columns):
        errors = np.array([means[id(row)][index] for row in complete])
        errors = -errors if column.higher_is_better else errors
        ahead = (errors < errors[:, None]).sum(1) + ((errors == errors[:, None]).sum(1) - 1) / 2
        places.append(1.0 + ahead)
    ranks = dict(zip(map(id, complete), np.mean(places, axis=0).tolist(), strict=True))
    return [
        row._replace(values={**row.values, "mean_rank": (ranks[id(row)],)})
        if id(row) in ranks
        else row
        for row in rows
    ]


def _row(group: Group, groups: Sequence[Group], block: tuple) -> Row:
    values = _values(
        run.outcome.metrics | {f"iou/{name}": x for name, x in run.outcome.class_iou.items()}
        for run in group.finished
    )
    return Row(group.label, values | _delta_m(group, groups) | _step_time(group), block)


def _floor(members: Sequence[Group]) -> Floor:
    """Returns the trivial predictor of a block, all tasks together."""
    floors = [run.outcome.floor for group in members for run in group.finished]
    config = members[0].config
    reads = {key: config[key] for key in FLOOR_READS if config.get(key) is not None}
    reads["tasks"] = list(dict.fromkeys(task for group in members for task in group.tasks))
    reads["split"] = ", ".join(splits(members[0]))
    values = {name: value for floor in floors for name, value in floor.items()}
    digits = {name: f"{value:.5g}" for name, value in values.items()}
    row: dict[str, tuple[float, ...]] = {name: (value,) for name, value in values.items()}
    return Floor(reads, digits, row)


def _floor_names(floors: Sequence[Floor]) -> list[str]:
    """Returns names; those of several floors include what distinguishes them."""
    known = [floor.reads for floor in floors if floor.values]
    keys = distinguishing(known, differing(known, free=frozenset()))
    phrases = [", ".join(descriptions(floor.reads, keys)) for floor in floors]
    return [f"{FLOOR} ({words})" if words else FLOOR for words in phrases]


def _values(results: Iterable[Mapping[str, float]]) -> dict[str, tuple[float, ...]]:
    values: dict[str, tuple[float, ...]] = {}
    for result in results:
        for name, value in result.items():
            values[name] = (*values.get(name, ()), value)
    return values


def _delta_m(group: Group, groups: Sequence[Group]) -> dict[str, tuple[float, ...]]:
    if group.single_task:
        return {}
    baseline, missing = find_baseline(group, groups)
    if missing:
        return {}
    higher = standard_metrics(group)
    results = [run.outcome.metrics for run in group.finished]
    complete = [result for result in results if higher.keys() <= result.keys()]
    return {
        f"delta_m/{by}": tuple(delta_m(result, baseline, higher, by=by) for result in complete)
        for by in ("metrics", "tasks")
    }
