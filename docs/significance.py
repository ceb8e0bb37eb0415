"""Prints the table of a sweep, and which weightings differ from equal weights.

python docs/significance.py FOLDER

Each seed of a weighting is paired with the same seed of equal weights, which has the same images in
the same order; weightings that lack one of these seeds are only named. The standard deviation of a
difference is pooled over the weightings, since three seeds alone say little about it, and the
threshold is Bonferroni's for all of them together.
"""

import sys
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

from mtl_jax.report.grouping import Group, distinct, group_runs
from mtl_jax.report.read import read_runs
from mtl_jax.report.rows import result_rows
from mtl_jax.report.spread import mean_and_error
from mtl_jax.runs.settings import label
from mtl_jax.tasks import TASKS

GAIN = "delta_m/metrics"
# The chance that any weighting is found to differ although it does not.
LEVEL = 0.05
# A weighting beyond this Delta-m has failed, and its spread says nothing about the others'.
FAILED = 50.0
LAST = ("Δm by metrics % ↓", "Δm by tasks % ↓", "Mean rank ↓", "Difference from equal")


class Comparison(NamedTuple):
    """Differences of weightings from equal weights.

    Attributes:
      differences: label -> Delta-m minus that of equal weights, of each seed.
      error: pooled standard error of a mean difference.
      threshold: number of pooled errors from which a difference counts.
    """

    differences: dict[str, np.ndarray]
    error: float
    threshold: float

    def different(self, sign: int) -> list[str]:
        """Returns the weightings that differ from equal upwards (1) or downwards (-1)."""
        least = self.threshold * self.error
        return [name for name, x in self.differences.items() if sign * np.mean(x) > least]


def compare(gains: dict[str, Sequence[float]], equal: Sequence[float]) -> Comparison:
    """Compares weightings with equal weights.

    Args:
      gains: label -> Delta-m of each seed, of all other weightings.
      equal: Delta-m of each seed with equal weights.
    """
    differences = {name: np.subtract(values, equal) for name, values in gains.items()}
    kept = [np.asarray(x) for x in [*gains.values(), equal] if np.abs(x).max() < FAILED]
    table = np.stack(kept)
    residuals = table - table.mean(1, keepdims=True) - table.mean(0) + table.mean()
    methods, seeds = table.shape
    freedom = (methods - 1) * (seeds - 1)
    error = float(np.sqrt(2 * (residuals**2).sum() / freedom / seeds))
    threshold = float(stats.t.ppf(1 - LEVEL / 2 / len(gains), freedom))
    return Comparison(differences, error, threshold)


def ranks(values: dict[str, dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Returns each row's mean rank over the standard metrics, seed by seed.

    A row with a value that is not a number has no ranks, and the others are ranked without it.

    Args:
      values: label -> metric -> value of each seed.
    """
    metrics = [metric for task in TASKS.values() for metric in task.metrics if metric.standard]
    metrics = [metric for metric in metrics if all(metric.name in row for row in values.values())]
    whole = {
        label: row
        for label, row in values.items()
        if not any(np.isnan(row[metric.name]).any() for metric in metrics)
    }
    places = [
        stats.rankdata(
            [(-1 if metric.higher_is_better else 1) * row[metric.name] for row in whole.values()],
            axis=0,
        )
        for metric in metrics
    ]
    return dict(zip(whole, np.mean(places, axis=0), strict=True))


def rate_of(group: Group) -> str:
    """Returns the learning rates of a group; of single tasks, one for each."""
    rates = {"+".join(run.tasks): run.config["learning_rate"] for run in group.finished}
    return ", ".join(dict.fromkeys(f"{rate:g}" for rate in rates.values()))


def with_error(values: Sequence[float], digits: int, *, sign: str = "") -> str:
    """Returns mean and standard error."""
    mean, error = mean_and_error(tuple(values))
    return f"{mean:{sign}.{digits}f} ± {error or 0.0:.{digits}f}"


def seeds_of(group: Group) -> set[tuple[int, ...]]:
    """Returns the seeds of the finished runs; of single tasks, those of each task."""
    found: dict[tuple[str, ...], list[int]] = {}
    for run in group.finished:
        found.setdefault(run.tasks, []).append(run.config["seed"])
    return {tuple(sorted(seeds)) for seeds in found.values()}


def with_seeds_of_equal(groups: Sequence[Group], names: Mapping[str, str]) -> set[str]:
    """Returns the labels of the groups that have all seeds of equal weights and no others.

    Args:
      groups: of a sweep.
      names: label of each group of several tasks -> name of its weighting.

    Raises:
      ValueError: if there is nothing to pair.
    """
    wanted = next((seeds_of(g) for g in groups if names.get(g.label) == "Equal weights"), set())
    if not wanted or len(min(wanted)) < 2:
        raise ValueError("a comparison needs two seeds or more of equal weights")
    found = {group.label for group in groups if seeds_of(group) == wanted}
    if any(group.single_task and group.label not in found for group in groups):
        raise ValueError("the single tasks and equal weights must have the same seeds")
    return found


def report(folder: str) -> str:
    """Returns the table and the comparison of all runs in the folder of a sweep.

    Raises:
      ValueError: see `with_seeds_of_equal`.
    """
    # In this order the values of each group are those of the same seeds.
    runs = sorted(read_runs([folder]), key=lambda run: run.config.get("seed", 0))
    groups = group_runs(distinct(runs)[0])
    rows = {row.label: row for row in result_rows(groups) if row.ranked}
    single = next(group.label for group in groups if group.single_task)
    names = {g.label: label(g.config["weighting"]) for g in groups if g.label != single}
    paired = with_seeds_of_equal(groups, names)
    whole = {k: r for k, r in rows.items() if k in paired}
    places = ranks({k: {m: np.array(x) for m, x in r.values.items()} for k, r in whole.items()})
    gains = {names[k]: r.values[GAIN] for k, r in whole.items() if k != single}
    equal = gains.pop("Equal weights")
    comparison = compare(gains, equal)
    shown = [task.metrics[0] for task in TASKS.values()]
    shown = [m for m in shown if all(m.name in row.values for row in whole.values())]
    head = ["", "Learning rate", *(metric.head for metric in shown), *LAST]
    lines = [f"| {' | '.join(head)} |", "|:--" + "|--:" * (len(head) - 1) + "|"]
    means = {k: np.mean(row.values.get(GAIN, 0.0)) for k, row in whole.items()}
    order = sorted(whole, key=lambda k: (k != single, np.isnan(means[k]), means[k]))
    rates = {group.label: rate_of(group) for group in groups}
    for key in order:
        values = whole[key].values
        cells = [names.get(key, "Single task"), rates[key]]
        cells += [
            with_error(np.array(values[m.name]) * (100 if m.percent else 1), m.decimals)
            for m in shown
        ]
        cells += [
            with_error(values[f"delta_m/{by}"], 1, sign="+") if key != single else "–"
            for by in ("metrics", "tasks")
        ]
        cells.append(with_error(places[key], 1) if key in places else "–")
        difference = comparison.differences.get(names.get(key, ""))
        cells.append("–" if difference is None else with_error(difference, 1, sign="+"))
        lines.append("| " + " | ".join(cells) + " |")
    without = [name for key, name in names.items() if key not in paired]
    named = [f"left out, without all seeds of equal: {', '.join(without)}"] * bool(without)
    return "\n".join([*lines, "", *named, *summary(comparison)])


def summary(comparison: Comparison) -> list[str]:
    """Returns in lines which weightings differ from equal weights."""
    own = [
        name
        for name, x in comparison.differences.items()
        if abs(np.mean(x)) > 2 * (mean_and_error(tuple(x))[1] or 0.0)
    ]
    total = len(comparison.differences)
    lines = [
        f"beyond two of their own standard errors: {len(own)} of {total}",
        f"pooled standard error {comparison.error:.2f}, threshold {comparison.threshold:.2f} of it",
    ]
    for what, sign in (("better", -1), ("worse", 1)):
        found = comparison.different(sign)
        lines.append(f"{what} than equal, {len(found)} of {total}: {', '.join(found)}")
    return lines


if __name__ == "__main__":
    try:
        print(report(*sys.argv[1:]))
    except ValueError as error:
        sys.exit(f"significance.py: {error}")
