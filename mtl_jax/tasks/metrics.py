"""Metrics as sums over pixels, which add up exactly over batches and devices.

`tally_*` run on the device and return a dict of sums of one batch; the host adds them in 64 bits
and `summarize_*` turns the total into the numbers that the field prints. Void or missing pixels
count nowhere. Definitions: the multi-task benchmark of NYU-Depth V2 (Liu et al., CVPR 2019).
"""

import math
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np

# Angles are counted in bins of this many degrees, from which the median over all pixels of a
# split follows to half a bin without keeping the pixels.
ANGLE_BIN = 0.01
ANGLE_BINS = 18000
ANGLE_LIMITS = (11.25, 22.5, 30.0)


def tally_segmentation(log_probabilities: jax.Array, labels: jax.Array) -> dict[str, jax.Array]:
    """The confusion matrix i32[C, C], rows true, columns predicted, and how many pixels have none.

    Args:
      log_probabilities: f32[B, H, W, C].
      labels: i32[B, H, W], -1 = void.
    """
    classes = log_probabilities.shape[-1]
    predicted = jnp.argmax(log_probabilities, axis=-1).astype(jnp.int32)
    # Void pixels go to one bin past the end, which is cut off.
    index = jnp.where(labels >= 0, labels * classes + predicted, classes * classes)
    counts = jnp.bincount(index.ravel(), length=classes * classes + 1)
    # Without a number there is no prediction, although the largest entry would have an index.
    unknown = (labels >= 0) & jnp.any(jnp.isnan(log_probabilities), axis=-1)
    return {
        "confusion": counts[:-1].reshape(classes, classes),
        "unknown": jnp.sum(unknown, dtype=jnp.int32),
    }


def summarize_segmentation(sums: Mapping[str, np.ndarray]) -> dict[str, float]:
    """mIoU over the classes that occur (as truth or prediction) and pixel accuracy, fractions.

    Both are NaN if a prediction was.
    """
    if sums.get("unknown"):
        return {"segmentation/miou": float("nan"), "segmentation/pixel_accuracy": float("nan")}
    iou = class_iou(sums["confusion"])
    confusion = sums["confusion"]
    return {
        "segmentation/miou": float(np.nanmean(iou)) if np.any(~np.isnan(iou)) else float("nan"),
        "segmentation/pixel_accuracy": _ratio(np.trace(confusion), confusion.sum()),
    }


def class_iou(confusion: np.ndarray) -> np.ndarray:
    """Intersection over union f64[C] of each class; NaN for a class that never occurs."""
    intersection = np.diag(confusion).astype(np.float64)
    union = confusion.sum(0) + confusion.sum(1) - intersection
    return np.divide(intersection, union, out=np.full_like(intersection, np.nan), where=union > 0)


def tally_depth(depth: jax.Array, target: jax.Array) -> dict[str, jax.Array]:
    """Sums of depth errors over the pixels whose true depth is known.

    Args:
      depth: f32[B, H, W] in metres, positive.
      target: f32[B, H, W] in metres, 0 = missing.
    """
    valid = target > 0
    truth = jnp.where(valid, target, 1.0)
    error = jnp.where(valid, jnp.abs(depth - target), 0.0)
    ratio = jnp.maximum(depth / truth, truth / depth)
    within = [jnp.sum(valid & (ratio < 1.25**power), dtype=jnp.int32) for power in (1, 2, 3)]
    return {
        "count": jnp.sum(valid, dtype=jnp.int32),
        "absolute": jnp.sum(error),
        "relative": jnp.sum(error / truth),
        "squared": jnp.sum(jnp.square(error)),
        "within": jnp.stack(within),
    }


def summarize_depth(sums: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Absolute error and RMSE in metres, relative error, fractions with ratio < 1.25^k."""
    count = sums["count"]
    within = {f"depth/delta{k + 1}": _ratio(sums["within"][k], count) for k in range(3)}
    return {
        "depth/absolute_error": _ratio(sums["absolute"], count),
        "depth/relative_error": _ratio(sums["relative"], count),
        "depth/rmse": float(np.sqrt(_ratio(sums["squared"], count))),
        **within,
    }


def tally_normals(normals: jax.Array, target: jax.Array) -> dict[str, jax.Array]:
    """Sums of the angles between predicted and true normals, and their histogram.

    Args:
      normals: f32[B, H, W, 3], unit.
      target: f32[B, H, W, 3], unit; the zero vector = missing.
    """
    valid = jnp.any(target != 0, axis=-1)
    # Kahan's formula for unit vectors keeps its precision at small angles, where arccos has none in
    # float32, and makes a prediction of no direction (zero) 90 degrees wrong, as arccos does.
    apart, along = (jnp.linalg.norm(x, axis=-1) for x in (normals - target, normals + target))
    angle = jnp.degrees(2.0 * jnp.arctan2(apart, along))
    bins = jnp.clip((angle / ANGLE_BIN).astype(jnp.int32), 0, ANGLE_BINS - 1)
    bins = jnp.where(valid, bins, ANGLE_BINS)
    within = [jnp.sum(valid & (angle < limit), dtype=jnp.int32) for limit in ANGLE_LIMITS]
    return {
        "count": jnp.sum(valid, dtype=jnp.int32),
        "angle": jnp.sum(jnp.where(valid, angle, 0.0)),
        "histogram": jnp.bincount(bins.ravel(), length=ANGLE_BINS + 1)[:-1],
        "within": jnp.stack(within),
    }


def summarize_normals(sums: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Mean and median angle in degrees (the median to 0.005), fractions within three limits."""
    count = sums["count"]
    median = (np.mean(middle_bins(sums["histogram"])) + 0.5) * ANGLE_BIN
    within = {
        f"normals/within_{limit:g}": _ratio(sums["within"][k], count)
        for k, limit in enumerate(ANGLE_LIMITS)
    }
    return {
        "normals/mean": _ratio(sums["angle"], count),
        # The histogram would count an angle that is no number as one of zero degrees.
        "normals/median": float(median) if count and np.isfinite(sums["angle"]) else float("nan"),
        **within,
    }


def middle_bins(histogram: np.ndarray) -> np.ndarray:
    """Bins i64[2] of the lower and upper median of what a histogram counts; zeros for nothing."""
    cumulative = np.cumsum(histogram)
    number = cumulative[-1]
    ranks = np.array([(number + 1) // 2, number // 2 + 1])  # the same one of an odd number
    return np.searchsorted(cumulative, np.minimum(ranks, number))


def delta_m(
    results: Mapping[str, float],
    baseline: Mapping[str, float],
    higher_is_better: Mapping[str, bool],
    *,
    by: str = "metrics",
) -> float:
    """Mean relative drop against single-task results in percent: negative is better.

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
    """Sums of several batches added up in 64 bits."""
    return {
        key: np.sum([np.asarray(total[key], _wide(total[key])) for total in totals], axis=0)
        for key in totals[0]
    }


def _wide(array: np.ndarray) -> type:
    return np.int64 if np.issubdtype(np.asarray(array).dtype, np.integer) else np.float64


def _ratio(numerator: float, denominator: float) -> float:
    return float(numerator / denominator) if denominator else float("nan")
