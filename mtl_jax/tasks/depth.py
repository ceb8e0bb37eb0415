"""Depth: metres per pixel, learned from labels or from stereo pairs, judged by labels.

One difference from the multi-task literature's code (Liu et al., 2019; Navon et al., 2022): depth
is the output of a softplus and therefore positive, where theirs is linear and may be negative.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from mtl_jax.tasks import stereo
from mtl_jax.tasks.charts import Profile
from mtl_jax.tasks.losses import count
from mtl_jax.tasks.metrics import middle_bins, ratio
from mtl_jax.tasks.pictures import Scale
from mtl_jax.tasks.stored import MILLIMETRES
from mtl_jax.tasks.task import (
    INTRINSICS,
    Batch,
    Entry,
    Errors,
    LossSum,
    Metric,
    Sums,
    Task,
    Trivial,
)

SMALLEST_SIGMOID = 1e-4
# Depths below this, in metres, count as this in logarithms.
SMALLEST_DEPTH = 1e-6
# Errors are summed up in bins of true depth that begin at these metres; the last one has no end.
DISTANCES = (*np.arange(0.0, 5.0, 0.5).tolist(), *map(float, (*range(5, 10), *range(10, 81, 10))))

LABELS = Entry("depth", scale=lambda depth, factor: depth / factor)


def positive(raw: jax.Array, batch: Batch) -> jax.Array:
    """Returns depths f32[B, H, W] in metres from raw outputs f32[B, H, W, 1]."""
    # The shift lets training start at a room's typical 2.6 m instead of 0.7 m.
    return jax.nn.softplus(raw[..., 0] + 2.5)


def absolute(depth: jax.Array, target: jax.Array) -> LossSum:
    """Returns the L1 distance of depths; pixels whose true depth is 0 are ignored.

    Args:
      depth: f32[B, H, W] in metres.
      target: f32[B, H, W] in metres.

    Returns:
      The sum in metres and the number of pixels with a depth.
    """
    labelled = target > 0
    return jnp.sum(jnp.where(labelled, jnp.abs(depth - target), 0.0)), count(labelled)


def scale_invariant(depth: jax.Array, target: jax.Array, *, invariance: float = 0.5) -> LossSum:
    """Returns the scale-invariant error of Eigen et al. (2014).

    With the differences d of the logarithms, it is mean(d^2) - invariance mean(d)^2 over the pixels
    of an image whose true depth is known.

    Args:
      depth: f32[B, H, W] in metres.
      target: f32[B, H, W] in metres, 0 = missing.
      invariance: 0 for the squared error of the logarithms; with 1, a wrong scale costs nothing.

    Returns:
      The sum over the images and the number of images with a depth.
    """
    labelled = target > 0
    true = jnp.where(labelled, target, 1.0)
    predicted = jnp.where(labelled, jnp.maximum(depth, SMALLEST_DEPTH), 1.0)
    difference = jnp.log(predicted) - jnp.log(true)
    pixels = jnp.maximum(jnp.sum(labelled, (1, 2), jnp.float32), 1.0)
    mean = jnp.sum(difference, (1, 2)) / pixels
    # The same as the mean of squares minus the square of the mean, without cancellation.
    deviation = jnp.where(labelled, difference - mean[:, None, None], 0.0)
    variance = jnp.sum(jnp.square(deviation), (1, 2)) / pixels
    error = variance + (1 - invariance) * jnp.square(mean)
    return jnp.sum(error), count(jnp.any(labelled, (1, 2)))


def berhu(depth: jax.Array, target: jax.Array, *, threshold: float = 0.2) -> LossSum:
    """Returns the reverse Huber loss of Laina et al. (2016); pixels without a depth are ignored.

    With the absolute error x in metres it is x up to c, and (x^2 + c^2) / 2c above. c is a fraction
    of the largest error in the image, so it does not depend on the other images of a batch. No
    gradient flows through c.

    Args:
      depth: f32[B, H, W] in metres.
      target: f32[B, H, W] in metres.
      threshold: c as a fraction of the largest error.

    Returns:
      The sum in metres and the number of pixels with a depth.
    """
    labelled = target > 0
    error = jnp.where(labelled, jnp.abs(depth - target), 0.0)
    largest = jnp.max(error, axis=(1, 2), keepdims=True)
    limit = threshold * jax.lax.stop_gradient(largest)
    divisor = 2 * jnp.where(limit > 0, limit, 1.0)
    above = (jnp.square(error) + jnp.square(limit)) / divisor
    return jnp.sum(jnp.where(error <= limit, error, above)), count(labelled)


def tally(
    depth: jax.Array, target: jax.Array, *, starts: Sequence[float] = DISTANCES
) -> dict[str, jax.Array]:
    """Sums up depth errors over the pixels whose true depth is known.

    Args:
      depth: f32[B, H, W] in metres, positive.
      target: f32[B, H, W] in metres, 0 = missing.
      starts: where the bins of true depth begin; the last one has no end.
    """
    valid = target > 0
    truth = jnp.where(valid, target, 1.0)
    error = jnp.where(valid, jnp.abs(depth - target), 0.0)
    ratios = jnp.maximum(depth / truth, truth / depth)
    within = [jnp.sum(valid & (ratios < 1.25**power), dtype=jnp.int32) for power in (1, 2, 3)]

    def at_distance(ends: jax.Array) -> dict[str, jax.Array]:
        chosen = valid & (truth >= ends[0]) & (truth < ends[1])
        return {
            "pixels_at": jnp.sum(chosen, dtype=jnp.int32),
            "absolute_at": jnp.sum(jnp.where(chosen, error, 0.0)),
            "relative_at": jnp.sum(jnp.where(chosen, error / truth, 0.0)),
        }

    ends = jnp.array([*starts, jnp.inf], jnp.float32)
    return {
        "count": jnp.sum(valid, dtype=jnp.int32),
        "absolute": jnp.sum(error),
        "relative": jnp.sum(error / truth),
        "squared": jnp.sum(jnp.square(error)),
        "within": jnp.stack(within),
        # One bin after the other: sums of floating-point numbers by index depend on their order.
        **jax.lax.map(at_distance, jnp.stack([ends[:-1], ends[1:]], axis=-1)),
    }


def errors(depth: jax.Array, target: jax.Array) -> jax.Array:
    """Returns absolute differences f32[B, H, W] in metres; NaN where the true depth is 0."""
    return jnp.where(target > 0, jnp.abs(depth - target), jnp.nan)


def over_distance(sums: Sums) -> np.ndarray:
    """Returns pixels, absolute and relative errors f64[3, bins] over the true depth."""
    names = ("pixels_at", "absolute_at", "relative_at")
    return np.stack([np.asarray(sums[name], np.float64) for name in names])


def summarize(sums: Sums, *, name: str = "depth") -> dict[str, float]:
    """Returns absolute error and RMSE in metres, relative error, fractions with ratio < 1.25^k.

    All are NaN if a prediction was.

    Args:
      sums: of `tally`.
      name: name of the task, with which the metrics begin.
    """
    number = sums["count"]
    # A ratio of NaN is within no limit, but that does not make it wrong.
    known = 0 if np.isnan(sums["absolute"]) else number
    within = {f"{name}/delta{k + 1}": ratio(sums["within"][k], known) for k in range(3)}
    return {
        f"{name}/absolute_error": ratio(sums["absolute"], number),
        f"{name}/relative_error": ratio(sums["relative"], number),
        f"{name}/rmse": float(np.sqrt(ratio(sums["squared"], number))),
        **within,
    }


def count_depths(depth: np.ndarray, num_classes: int) -> np.ndarray:
    """Returns a histogram i64[65536] of depths over all numbers of half precision."""
    # The bit patterns of positive half-precision numbers are in the numbers' own order, so
    # a histogram over them holds the exact median of any number of pixels.
    half = depth.astype(np.float16)
    return np.bincount(half[half > 0].view(np.uint16), minlength=1 << 16)


def median(histogram: np.ndarray) -> np.ndarray:
    """Returns the median depth f32[] of `count_depths`."""
    middle = middle_bins(histogram).astype(np.uint16).view(np.float16)
    return np.asarray(np.mean(middle, dtype=np.float32))


DEPTH = Task(
    name="depth",
    channels=1,
    activation=positive,
    loss=lambda prediction, batch: absolute(prediction, batch["depth"]),
    loss_name="l1",
    loss_labels={
        "l1": "mean absolute error / m",
        "scale_invariant": "scale-invariant error of log depth",
        "berhu": "reverse Huber error / m",
        "stereo": "photometric error: structural similarity, absolute differences, smoothness",
        "stereo_l2": "photometric error: mean squared difference of the views",
    },
    reads=(LABELS,),
    labels=(LABELS,),
    label=lambda batch: batch["depth"],
    tally=tally,
    summarize=summarize,
    metrics=(
        Metric("depth/absolute_error", "AbsErr", False, unit="m", decimals=4),
        Metric("depth/relative_error", "RelErr", False, decimals=4),
        Metric("depth/rmse", "RMSE", False, unit="m", decimals=4, standard=False),
        Metric("depth/delta1", "δ<1.25", True, unit="%", percent=True, standard=False),
        Metric("depth/delta2", "δ<1.25²", True, unit="%", percent=True, standard=False),
        Metric("depth/delta3", "δ<1.25³", True, unit="%", percent=True, standard=False),
    ),
    trivial=Trivial("the median depth", count_depths, median),
    picture=Scale("depth", "Depth has one scale.", label="depth / m", largest=1e6),
    stored=MILLIMETRES,
    colour="#14888f",
    unit="metres along the optical axis",
    caution="Depth is in metres only for cameras with about the field of view of the training "
    "images: for a camera that sees half as much, everything appears to be half as far away.",
    errors=Errors(
        errors,
        label="absolute error / m",
        text="{:.2f} m",
        # A quarter of the range, of which good predictions stay well below.
        largest=lambda labels: 0.25 * max(float(np.max(labels, initial=0.0)), 1.0),
    ),
    charts=(
        Profile(
            "over_distance",
            over_distance,
            label="true depth / m",
            starts=DISTANCES,
            errors=("absolute error / m", "relative error"),
        ),
    ),
    settings={"depth_loss": "l1"},
)


def from_labels() -> Task:
    """Returns the task learned from depth labels by their absolute differences."""
    return DEPTH


def from_logarithms(invariance: float = 0.5) -> Task:
    """Returns the task learned from depth labels by `scale_invariant`.

    Raises:
      ValueError: for an `invariance` outside of 0 to 1.
    """
    if not 0 <= invariance <= 1:
        raise ValueError("invariance must be 0 to 1")
    return _from_labels("scale_invariant", partial(scale_invariant, invariance=invariance))


def from_large_errors(threshold: float = 0.2) -> Task:
    """Returns the task learned from depth labels by `berhu`.

    Raises:
      ValueError: for a `threshold` outside of 0 (excluded) to 1.
    """
    if not 0 < threshold <= 1:
        raise ValueError("threshold must be more than 0 and at most 1")
    return _from_labels("berhu", partial(berhu, threshold=threshold))


def from_stereo(
    nearest: float = 0.3,
    smoothness: float = stereo.SMOOTHNESS,
    edges: float = stereo.EDGES,
    order: int = stereo.ORDER,
    fill: bool = False,
) -> Task:
    """Returns the task learned from stereo pairs by `stereo.photometric_loss`.

    Args:
      nearest: the smallest depth that the network can predict, in metres.
      smoothness, edges, order, fill: see `stereo.photometric_loss`.

    Raises:
      ValueError: for a `nearest` that is not a positive number, a negative or infinite `smoothness`
        or `edges`, or an `order` other than 1 and 2.
    """
    for name, value in (("smoothness", smoothness), ("edges", edges)):
        if not 0 <= value < math.inf:
            raise ValueError(f"{name} must be a finite number of at least 0")
    if order not in (1, 2):
        raise ValueError("order must be 1 or 2")
    loss = partial(
        stereo.photometric_loss, smoothness=smoothness, edges=edges, order=order, fill=fill
    )
    return _from_stereo("stereo", loss, nearest)


def from_stereo_l2(nearest: float = 0.3) -> Task:
    """Returns the task learned from stereo pairs by `stereo.squared_loss`; see `from_stereo`."""
    return _from_stereo("stereo_l2", stereo.squared_loss, nearest)


LOSSES = {
    "l1": from_labels,
    "scale_invariant": from_logarithms,
    "berhu": from_large_errors,
    "stereo": from_stereo,
    "stereo_l2": from_stereo_l2,
}


def _from_labels(name: str, loss: Callable[[jax.Array, jax.Array], LossSum]) -> Task:
    return DEPTH._replace(
        loss=lambda prediction, batch: loss(prediction, batch["depth"]), loss_name=name
    )


def _from_stereo(name: str, loss: Callable[[jax.Array, Batch], LossSum], nearest: float) -> Task:
    """Returns the task learned by a loss of stereo pairs; it is still judged by depth labels.

    A sigmoid gives inverse depth, and disparity is proportional to it. The baseline cannot be seen
    in a single image; it enters only as a factor of the disparity.

    Raises:
      ValueError: if `nearest` is not a positive number.
    """
    if not 0 < nearest < math.inf:
        raise ValueError(f"nearest={nearest}: must be a positive number of metres")

    def activation(raw: jax.Array, batch: Batch) -> jax.Array:
        # Training starts at about 8 times the nearest depth; SMALLEST_SIGMOID keeps depth finite.
        return nearest / (jax.nn.sigmoid(raw[..., 0] - 2.0) + SMALLEST_SIGMOID)

    reads = (stereo.IMAGE_RIGHT, stereo.BASELINE, INTRINSICS)
    return DEPTH._replace(activation=activation, loss=loss, loss_name=name, reads=reads)
