"""Evaluations as text for the terminal."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from mtl_jax.runs import labels, results
from mtl_jax.tasks import Metric, Task


def one_line(evaluation: Mapping[str, float | None], tasks: Sequence[Task]) -> str:
    """Returns the literature's columns of an evaluation, in one line with their units."""
    columns = [metric for task in tasks for metric in task.metrics if metric.standard]
    units = {m.name: m.unit or "" for m in columns}
    units = {name: f" {unit}" if unit.isalpha() else unit for name, unit in units.items()}
    return "  ".join(f"{m.label} {cell(evaluation, m)}{units[m.name]}" for m in columns)


def cell(values: Mapping[str, float | None], metric: Metric) -> str:
    """Returns a number of a table as text, in its unit; a dash for none."""
    value = results.numbers(values).get(metric.name, math.nan)
    if math.isnan(value):
        return "–"
    # More than the `metric.decimals` of a report, since small changes are watched in a terminal.
    return f"{metric.printed(value):.{2 if metric.percent else 4}f}"


def text_table(result: Mapping[str, Any], tasks: Sequence[Task], label: str) -> str:
    """Returns the final result next to the trivial predictor's, for the terminal.

    Args:
      result: `metrics`, `floor` and, where there are some, `last` and `labels` with the `split`, as
        in result.json.
      label: of the first row.
    """
    rows = [(label, result["metrics"]), ("trivial predictor", result["floor"])]
    last = result.get("last", {})
    if last.get("evaluations", 0) > 1:
        rows.insert(1, (f"mean of last {last['evaluations']} evaluations", last["metrics"]))
    columns = [metric for task in tasks for metric in task.metrics]
    lines = [["", *(metric.head for metric in columns)]]
    lines += [[name, *(cell(values, metric) for metric in columns)] for name, values in rows]
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    table = [
        "  ".join(cell.rjust(w) if i else cell.ljust(w) for i, (cell, w) in enumerate(pairs))
        for pairs in (list(zip(line, widths, strict=True)) for line in lines)
    ]
    if "labels" in result:
        table.append(labels.sentence(result["labels"], result["split"]))
    return "\n".join(table)
