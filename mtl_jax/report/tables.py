"""Result tables in the literature's form, as Markdown and CSV."""

import csv
import io
import math
from collections.abc import Sequence
from typing import NamedTuple

from mtl_jax.report.rows import Row
from mtl_jax.report.spread import is_ahead, mean_and_error
from mtl_jax.tasks import TASKS, Metric

DELTA_M = tuple(
    Metric(f"delta_m/{by}", f"Δm by {by}", higher_is_better=False, unit="%")
    for by in ("metrics", "tasks")
)
MEAN_RANK = Metric("mean_rank", "Mean rank", higher_is_better=False)
STEP_TIME = Metric("milliseconds", "ms per step", higher_is_better=False)
CLASS = "iou/"
ABSENT = "–"


class Table(NamedTuple):
    """Columns and rows, ready to print."""

    columns: tuple[Metric, ...]
    rows: tuple[Row, ...]


def standard_table(rows: Sequence[Row]) -> Table:
    """Returns those columns of the literature that any run has, and Delta-m.

    If rows are ranked, also their mean ranks and the time per step.
    """
    columns = [*(metric for metric in _metrics() if metric.standard), *DELTA_M]
    if any(row.values.get(MEAN_RANK.name) for row in rows):
        columns += [MEAN_RANK, STEP_TIME]
    return _table(columns, rows)


def further_table(rows: Sequence[Row]) -> Table:
    """Returns the other metrics."""
    return _table([metric for metric in _metrics() if not metric.standard], rows)


def class_table(rows: Sequence[Row]) -> Table:
    """Returns the IoU of each class, in the order in which the runs name them."""
    names = dict.fromkeys(name for row in rows for name in row.values if name.startswith(CLASS))
    return _table(
        [Metric(name, name.removeprefix(CLASS), True, unit=None, percent=True) for name in names],
        rows,
    )


def cells(table: Table) -> list[list[tuple[str, bool]]]:
    """Returns the text of each cell and whether it is its column's best, row by row."""
    best = [_best(column, table.rows) for column in table.columns]
    return [
        [
            (_text(column, row.values.get(column.name, ())), index in best[position])
            for position, column in enumerate(table.columns)
        ]
        for index, row in enumerate(table.rows)
    ]


def to_markdown(table: Table) -> str:
    """Returns the table in Markdown, the best value of each column in bold."""
    lines = ["| | " + " | ".join(_without_bars(x.head) for x in table.columns) + " |"]
    lines.append("|:--" + "|--:" * len(table.columns) + "|")
    for row, line in zip(table.rows, cells(table), strict=True):
        texts = [f"**{text}**" if best else text for text, best in line]
        lines.append(f"| {_without_bars(row.label)} | " + " | ".join(texts) + " |")
    return "\n".join(lines) + "\n"


def to_csv(rows: Sequence[Row], tables: Sequence[Table]) -> str:
    """Returns the columns of several tables as CSV: means, standard errors, number of runs.

    Values are in the units of the printed table, unrounded; an empty field is an absent value.
    """
    columns = [column for table in tables for column in table.columns]
    output = io.StringIO()
    writer = csv.writer(output, lineterminator="\n")
    heads = [
        f"{_csv_head(column)}{of}" for column in columns for of in ("", " standard error", " n")
    ]
    writer.writerow(["run", *heads])
    for row in rows:
        fields = []
        for column in columns:
            values = _scaled(column, row.values.get(column.name, ()))
            mean, error = mean_and_error(values)
            fields += [mean if values else "", "" if error is None else error, len(values) or ""]
        writer.writerow([row.label, *fields])
    return output.getvalue()


def _without_bars(text: str) -> str:
    """Returns a name of the user's without what would begin another column."""
    return text.replace("|", "/")


def _metrics() -> list[Metric]:
    return [metric for task in TASKS.values() for metric in task.metrics]


def _csv_head(column: Metric) -> str:
    if column.name.startswith(CLASS):
        return f"IoU {column.label} %"
    return f"{column.label} {column.unit}".strip()


def _table(columns: Sequence[Metric], rows: Sequence[Row]) -> Table:
    present = [c for c in columns if any(row.ranked and row.values.get(c.name) for row in rows)]
    shown = [row for row in rows if any(row.values.get(column.name) for column in present)]
    return Table(tuple(present), tuple(shown))


def _best(column: Metric, rows: Sequence[Row]) -> set[int]:
    """Returns rows with the best printed mean of their block, if it is ahead of the next best.

    A lead within the standard error of the difference could be chance: then there is no best. Nor
    is there one if nothing competes. Rows with the same printed value share the place.
    """
    best = set()
    for block in dict.fromkeys(row.block for row in rows):
        values = {
            index: _scaled(column, row.values[column.name])
            for index, row in enumerate(rows)
            if row.block == block and row.ranked and row.values.get(column.name)
        }
        means = {index: mean_and_error(numbers)[0] for index, numbers in values.items()}
        means = {i: round(x, column.decimals) for i, x in means.items() if math.isfinite(x)}
        if len(means) < 2:
            continue
        order = sorted(means, key=lambda index: means[index], reverse=column.higher_is_better)
        top = [index for index in order if means[index] == means[order[0]]]
        rest = order[len(top) :]
        following = [index for index in rest if means[index] == means[rest[0]]]
        if all(is_ahead(values[one], values[other]) for one in top for other in following):
            best |= set(top)
    return best


def _text(column: Metric, values: Sequence[float]) -> str:
    if not values:
        return ABSENT
    mean, error = mean_and_error(_scaled(column, values))
    if math.isnan(mean):
        return "nan"
    sign = "+" if column in DELTA_M else ""
    text = f"{mean:{sign}.{column.decimals}f}"
    return text if error is None else f"{text} ± {error:.{column.decimals}f}"


def _scaled(column: Metric, values: Sequence[float]) -> list[float]:
    return [column.printed(value) for value in values]
