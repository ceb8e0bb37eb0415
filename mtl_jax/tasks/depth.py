"""Depth: metres per pixel, learned from labels or from stereo pairs, judged by labels.

One difference from the multi-task literature's code (Liu et al., 2019; Navon et al., 2022): depth
is the output of a softplus and therefore positive, where theirs is linear and may be negative.
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from mtl_jax.tasks import stereo
from mtl_jax.tasks.losses import count
from mtl_jax.tasks.metrics import middle_bins, ratio
from mtl_jax.tasks.pictures import Scale
from mtl_jax.tasks.stored import MILLIMETRES
from mtl_jax.tasks.task import Batch, Entry, LossSum, Metric, Sums, Task, Trivial

SMALLEST_SIGMOID = 1e-4

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


def tally(depth: jax.Array, target: jax.Array) -> dict[str, jax.Array]:
    """Sums up depth errors over the pixels whose true depth is known.

    Args:
      depth: f32[B, H, W] in metres, positive.
      target: f32[B, H, W] in metres, 0 = missing.
    """
    valid = target > 0
    truth = jnp.where(valid, target, 1.0)
    error = jnp.where(valid, jnp.abs(depth - target), 0.0)
    ratios = jnp.maximum(depth / truth, truth / depth)
    within = [jnp.sum(valid & (ratios < 1.25**power), dtype=jnp.int32) for power in (1, 2, 3)]
    return {
        "count": jnp.sum(valid, dtype=jnp.int32),
        "absolute": jnp.sum(error),
        "relative": jnp.sum(error / truth),
        "squared": jnp.sum(jnp.square(error)),
        "within": jnp.stack(within),
    }


def summarize(sums: Sums) -> dict[str, float]:
    """Returns absolute error and RMSE in metres, relative error, fractions with ratio < 1.25^k."""
    number = sums["count"]
    within = {f"depth/delta{k + 1}": ratio(sums["within"][k], number) for k in range(3)}
    return {
        "depth/absolute_error": ratio(sums["absolute"], number),
        "depth/relative_error": ratio(sums["relative"], number),
        "depth/rmse": float(np.sqrt(ratio(sums["squared"], number))),
        **within,
    }


def count_depths(depth: np.ndarray, num_classes: int) -> np.ndarray:
    """Returns a histogram i64[65536] of depths over all numbers of half precision."""
    # The bit patterns of positive half-precision numbers are in the numbers' own order, so
    # a histogram over them holds the exact median of any number of pixels.
    bits = depth.astype(np.float16).view(np.uint16)
    return np.bincount(bits[bits > 0], minlength=1 << 16)


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
)


def from_labels() -> Task:
    """Returns the task learned from depth labels by their absolute differences."""
    return DEPTH


def from_stereo(nearest: float = 0.3) -> Task:
    """Returns the task learned from stereo pairs by `stereo.photometric_loss`.

    Args:
      nearest: the smallest depth that the network can predict, in metres.
    """
    return _from_stereo("stereo", stereo.photometric_loss, nearest)


def from_stereo_l2(nearest: float = 0.3) -> Task:
    """Returns the task learned from stereo pairs by `stereo.squared_loss`, as `from_stereo`."""
    return _from_stereo("stereo_l2", stereo.squared_loss, nearest)


LOSSES = {"l1": from_labels, "stereo": from_stereo, "stereo_l2": from_stereo_l2}


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
        # Training starts at 8 times the nearest depth; SMALLEST_SIGMOID keeps depth finite.
        return nearest / (jax.nn.sigmoid(raw[..., 0] - 2.0) + SMALLEST_SIGMOID)

    reads = (stereo.IMAGE_RIGHT, stereo.BASELINE)
    return DEPTH._replace(activation=activation, loss=loss, loss_name=name, reads=reads)
