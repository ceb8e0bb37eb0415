"""The rows of the result tables: values of each setting, Delta-m, the trivial predictor."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from mtl_jax.metrics import delta_m
from mtl_jax.report.runs import Run
from mtl_jax.report.settings import DATA, Setting, describe, protocol
from mtl_jax.tasks import TASKS

FLOOR = "Trivial predictor"


class Row(NamedTuple):
    """A row of a table.

    Attributes:
      label: its first cell.
      values: column name -> values of the seeds, as the runs wrote them.
      block: rows of one block are comparable: the best is marked among them.
      ranked: whether it competes for the best value.
    """

    label: str
    values: dict[str, tuple[float, ...]]
    block: tuple[str, ...]
    ranked: bool = True


def result_rows(settings: Sequence[Setting]) -> list[Row]:
    """A row a setting that has results, with Delta-m where it can be; each block ends in its floor.

    Delta-m of a setting compares with the single-task setting of the same protocol (data, image
    size, backbone, epochs, averaging) that covers all of its tasks (of several: the most alike).
    """
    rows: dict[tuple[str, ...], list[Row]] = {}
    floors: dict[tuple[str, ...], dict[str, tuple[float, ...]]] = {}
    different = _differing_data(settings)
    names: dict[tuple[str, ...], tuple[str, ...]] = {}
    for setting in settings:
        runs = _finished(setting)
        if not runs:
            continue
        block = (*_block(setting), *_data(setting))
        names[block] = (*_block(setting), *(x for x in _data(setting) if x in different))
        values = _values(run.result.metrics | _iou(run) for run in runs)
        values |= _delta_m(setting, settings) | _price(setting)
        rows.setdefault(block, []).append(Row(setting.label, values, block))
        for run in runs:
            floors.setdefault(block, {}).update(_values([run.result.floor]))
    for block, ranked in rows.items():
        rows[block] = _with_mean_ranks(ranked)
    for block, floor in floors.items():
        where = f" ({', '.join(names[block])})" if len(floors) > 1 else ""
        if floor:
            rows[block].append(Row(FLOOR + where, floor, block, ranked=False))
    return [row for block in rows.values() for row in block]


def mean_and_error(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean and its standard error, s / sqrt(n) with n - 1 in s; no error for fewer than two."""
    if len(values) < 2:
        return (float(np.mean(values)) if values else math.nan), None
    return float(np.mean(values)), float(np.std(values, ddof=1) / math.sqrt(len(values)))


def _price(setting: Setting) -> dict[str, tuple[float, ...]]:
    """Milliseconds of a step of each multi-task run, the mean over its epochs."""
    times = []
    for run in [] if setting.single_task else _finished(setting):
        speeds = [
            e.facts["images_per_second"] for e in run.epochs if "images_per_second" in e.facts
        ]
        speeds = [speed for speed in speeds if speed > 0]
        batch_size = run.config.get("batch_size")
        if speeds and isinstance(batch_size, int):
            times.append(1000.0 * batch_size / float(np.mean(speeds)))
    return {"milliseconds": tuple(times)} if times else {}


def _with_mean_ranks(rows: Sequence[Row]) -> list[Row]:
    """The rows with `mean_rank`: a row's place in each standard column, 1 for the best, averaged.

    Rows that tie share the mean of their places; a row that lacks a column has no mean rank, and
    fewer than three rows are no ranking.
    """
    columns = [m for task in TASKS.values() for m in task.metrics if m.standard]
    columns = [column for column in columns if any(column.name in row.values for row in rows)]
    complete = [row for row in rows if all(column.name in row.values for column in columns)]
    if len(complete) < 3 or not columns:
        return list(rows)
    places = []
    for column in columns:
        means = np.array([mean_and_error(row.values[column.name])[0] for row in complete])
        means = -means if column.higher_is_better else means
        ahead = (means < means[:, None]).sum(1) + ((means == means[:, None]).sum(1) - 1) / 2
        places.append(1.0 + ahead)
    ranks = dict(zip(map(id, complete), np.mean(places, axis=0).tolist(), strict=True))
    return [
        row._replace(values={**row.values, "mean_rank": (ranks[id(row)],)})
        if id(row) in ranks
        else row
        for row in rows
    ]


def _finished(setting: Setting) -> list[Run]:
    return [run for run in setting.runs if run.result is not None]


def _values(results: Iterable[Mapping[str, float]]) -> dict[str, tuple[float, ...]]:
    values: dict[str, tuple[float, ...]] = {}
    for result in results:
        for name, value in result.items():
            values[name] = (*values.get(name, ()), value)
    return values


def _iou(run: Run) -> dict[str, float]:
    """A class that never occurs has no intersection over union (NaN)."""
    iou = run.result.class_iou.items()
    return {f"iou/{name}": value for name, value in iou if not math.isnan(value)}


def _block(setting: Setting) -> tuple[str, ...]:
    keys = [key for key in ("dataset", "image_size") if key in setting.config]
    splits = dict.fromkeys(run.result.split for run in _finished(setting))
    return (*(describe(key, setting.config[key]) for key in keys), *splits)


def _data(setting: Setting) -> tuple[str, ...]:
    """What else sets results apart: other classes, images or ways to average."""
    return tuple(describe(key, setting.config[key]) for key in DATA if key in setting.config)


def _differing_data(settings: Sequence[Setting]) -> set[str]:
    """What `_data` says of some settings and not of others."""
    told = [set(_data(setting)) for setting in settings if _finished(setting)]
    return set.union(*told) - set.intersection(*told) if told else set()


def _delta_m(setting: Setting, settings: Sequence[Setting]) -> dict[str, tuple[float, ...]]:
    baseline = _baseline(setting, settings)
    metrics = [metric for task in setting.tasks for metric in TASKS[task].metrics]
    higher = {metric.name: metric.higher_is_better for metric in metrics if metric.standard}
    # A metric that is zero without multi-task learning has no relative drop.
    if setting.single_task or not higher or not all(baseline.get(name) for name in higher):
        return {}
    results = [run.result.metrics for run in _finished(setting)]
    comparable = [result for result in results if higher.keys() <= result.keys()]
    return {
        f"delta_m/{by}": tuple(delta_m(result, baseline, higher, by=by) for result in comparable)
        for by in ("metrics", "tasks")
    }


def _baseline(setting: Setting, settings: Sequence[Setting]) -> dict[str, float]:
    """Mean results of the single-task runs to compare with; empty if there are none."""
    candidates = [
        other
        for other in settings
        if other.single_task
        and _comparable(setting, other)
        and set(setting.tasks) <= {task for run in _finished(other) for task in run.tasks}
    ]
    if not candidates:
        return {}
    own = setting.config.items()
    closest = max(candidates, key=lambda other: sum(item in own for item in other.config.items()))
    values = _values(run.result.metrics for run in _finished(closest))
    return {name: mean_and_error(numbers)[0] for name, numbers in values.items()}


def _comparable(setting: Setting, other: Setting) -> bool:
    same_protocol = protocol(setting.config) == protocol(other.config)
    return same_protocol and _block(setting) == _block(other)
