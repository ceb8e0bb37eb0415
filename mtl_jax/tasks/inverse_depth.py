"""Inverse depth, the depth task of the multi-task literature on Cityscapes.

Its labels are disparities divided by the largest number of 16 bits: proportional to one over depth,
without a unit, 0 = missing. The errors are those of these numbers. They are never turned into
metres, so neither stereo pairs nor points in space go with this task.

The relative error is large, 20 to 50 in published tables, because the smallest labels, of what is
almost infinitely far away, are less than a thousandth of the usual ones.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from mtl_jax.tasks import depth
from mtl_jax.tasks.charts import Profile
from mtl_jax.tasks.pictures import Scale
from mtl_jax.tasks.stored import PARTS_OF_ONE
from mtl_jax.tasks.task import Batch, Entry, Errors, Metric, Sums, Task, Trivial

NAME = "inverse_depth"
# Errors are summed up in bins of true inverse depth that begin here; the last one has no end.
STARTS = tuple(np.round(np.arange(0.0, 0.4, 0.02), 2).tolist())
# The smallest label; smaller predictions are kept and drawn as this.
SMALLEST = 1 / 65535


def _example(rng: np.random.Generator, shape: tuple[int, int, int], classes: int) -> np.ndarray:
    return rng.uniform(0.01, 0.4, shape).astype(np.float32)


# The published augmentation divides these labels by the scale, as it does depth. Something that
# looks closer has a larger inverse depth, so multiplying would be right, but its results could not
# be compared with the published ones.
LABELS = Entry(NAME, scale=lambda inverse, factor: inverse / factor, example=_example)


def linear(raw: jax.Array, batch: Batch) -> jax.Array:
    """Returns inverse depths f32[B, H, W] from raw outputs f32[B, H, W, 1].

    They may be negative, as in the published code. A function that keeps numbers this small
    positive would have hardly any slope where a prediction is too small.
    """
    return raw[..., 0]


def summarize(sums: Sums) -> dict[str, float]:
    """Returns the absolute and the relative error, the two that the literature prints."""
    found = depth.summarize(sums, name=NAME)
    return {metric.name: found[metric.name] for metric in METRICS}


METRICS = (
    Metric(f"{NAME}/absolute_error", "AbsErr (inverse depth)", False, decimals=4),
    Metric(f"{NAME}/relative_error", "RelErr (inverse depth)", False, decimals=2),
)
INVERSE_DEPTH = Task(
    name=NAME,
    channels=1,
    activation=linear,
    loss=lambda prediction, batch: depth.absolute(prediction, batch[NAME]),
    loss_name="inverse_l1",
    loss_labels={"inverse_l1": "mean absolute error of inverse depth"},
    reads=(LABELS,),
    labels=(LABELS,),
    label=lambda batch: batch[NAME],
    tally=partial(depth.tally, starts=STARTS),
    summarize=summarize,
    metrics=METRICS,
    sample=lambda prediction: jnp.maximum(prediction, SMALLEST),
    trivial=Trivial("the median inverse depth", depth.count_depths, depth.median),
    picture=Scale(
        "inverse depth",
        "Inverse depth has one scale.",
        label="inverse depth",
        largest=1e6,
        colormap="viridis",
    ),
    stored=PARTS_OF_ONE,
    colour="#b5651d",
    unit="disparity in pixels of the full-size images divided by 256, as the labels have it",
    caution="Inverse depth is that of the cameras of the training images, and not in metres.",
    errors=Errors(
        depth.errors,
        label="absolute error",
        text="{:.4f}",
        # A quarter of the range, of which good predictions stay well below.
        largest=lambda labels: 0.25 * max(float(np.max(labels, initial=0.0)), 0.01),
    ),
    charts=(
        Profile(
            "over_inverse_depth",
            depth.over_distance,
            label="true inverse depth",
            starts=STARTS,
            errors=("absolute error", "relative error"),
        ),
    ),
)
