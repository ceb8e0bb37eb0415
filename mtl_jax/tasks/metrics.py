"""Functions that the tasks' metrics share.

A task's `tally` runs on the device and returns a dict of sums of one batch; the host adds them in
64 bits, and `summarize` turns the total into the numbers that the field prints. Void and missing
pixels don't count. Definitions: the multi-task benchmark of NYU-Depth V2 (Liu et al., CVPR 2019).
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np


def middle_bins(histogram: np.ndarray) -> np.ndarray:
    """Returns the bins i64[2] of the lower and upper median; zeros of an empty histogram."""
    cumulative = np.cumsum(histogram)
    number = cumulative[-1]
    ranks = np.array([(number + 1) // 2, number // 2 + 1])  # equal for an odd number
    return np.searchsorted(cumulative, np.minimum(ranks, number))


def delta_m(
    results: Mapping[str, float],
    baseline: Mapping[str, float],
    higher_is_better: Mapping[str, bool],
    *,
    by: str = "metrics",
) -> float:
    """Returns the mean relative drop against single-task results in percent: lower is better.

    Nash-MTL's definition (Navon et al., 2022): 100 * mean_k s_k (m_k - b_k) / b_k, with s_k = -1
    where higher is better and 1 elsewhere. `by="tasks"` first averages the metrics of each task,
    so that a task with five metrics weighs as much as one with two. (Maninis et al., 2019, and
    much of the later literature print it by tasks with the opposite sign.)

    Args:
      results: metric name `task/metric` -> value.
      baseline: the same of the single-task runs.
      higher_is_better: the metrics to compare.
      by: "metrics" or "tasks".

    Raises:
      ValueError: for another `by`, no metric, one that is missing, or a baseline that is zero or
        not finite, from which no drop is relative.
    """
    if by not in ("metrics", "tasks"):
        raise ValueError(f"by must be 'metrics' or 'tasks', got {by!r}")
    if not higher_is_better:
        raise ValueError("`higher_is_better` is empty: Delta-m compares one metric or more")
    for name in higher_is_better:
        if name not in results or name not in baseline:
            where = "results" if name not in results else "baseline"
            raise ValueError(f"`{where}` has no {name}")
        if not (math.isfinite(baseline[name]) and baseline[name]):
            raise ValueError(
                f"`baseline` has {name} = {baseline[name]}, from which no drop is relative"
            )
    drops: dict[str, list[float]] = {}
    for name, higher in higher_is_better.items():
        drop = (results[name] - baseline[name]) / baseline[name]
        drops.setdefault(name.split("/")[0], []).append(-drop if higher else drop)
    if by == "metrics":
        return 100.0 * float(np.mean([drop for task in drops.values() for drop in task]))
    return 100.0 * float(np.mean([np.mean(task) for task in drops.values()]))


def add(totals: Sequence[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Adds up the sums of several batches in 64 bits."""
    return {
        key: np.sum([np.asarray(total[key], _wide(total[key])) for total in totals], axis=0)
        for key in totals[0]
    }


def _wide(array: np.ndarray) -> type:
    return np.int64 if np.issubdtype(np.asarray(array).dtype, np.integer) else np.float64


def ratio(numerator: float | np.ndarray, denominator: float | np.ndarray) -> float:
    """Returns the quotient; NaN for a denominator of zero."""
    return float(numerator / denominator) if denominator else float("nan")
