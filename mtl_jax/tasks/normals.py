"""Surface normals: a direction per pixel, learned as a vector or as a mixture of codewords."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from mtl_jax.tasks import codebook as codebooks
from mtl_jax.tasks import depth, geometry
from mtl_jax.tasks.charts import Distribution, merge_bins
from mtl_jax.tasks.losses import count, normalize
from mtl_jax.tasks.metrics import middle_bins, ratio
from mtl_jax.tasks.pictures import Colours
from mtl_jax.tasks.stored import UNIT_VECTORS
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

SOURCES = ("labels", "depth")
# Largest misfit of a plane in the depth that normals are learned from. With exact depth of rooms
# it leaves out 1.4 % of the pixels, at thin things and edges, and lowers the mean error from 5.8 to
# 4.8 degrees.
LARGEST_MISFIT = 0.05
# Angles are counted in bins of this many degrees, from which the median over all pixels of a
# split follows to half a bin without keeping the pixels.
ANGLE_BIN = 0.01
ANGLE_BINS = 18000
# The report's chart needs only bins of this many degrees.
CHART_BIN = 0.25
ANGLE_LIMITS = (11.25, 22.5, 30.0)


def random_directions(
    rng: np.random.Generator, shape: tuple[int, int, int], classes: int
) -> np.ndarray:
    """Returns unit vectors f16[B, H, W, 3] of all directions."""
    vectors = rng.normal(size=(*shape, 3))
    return (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)).astype(np.float16)


LABELS = Entry(
    "normals",
    # They are stored in half precision, whose rounding leaves lengths of one only to a thousandth.
    decode=lambda stored: normalize(stored.astype(jnp.float32)),
    flip=lambda mirrored: mirrored * jnp.array([-1.0, 1.0, 1.0]),
    example=random_directions,
)


def cosine(normals: jax.Array, target: jax.Array) -> LossSum:
    """Returns one minus the cosine of the angle between normals; zero vectors are ignored.

    Args:
      normals: f32[B, H, W, 3], unit.
      target: f32[B, H, W, 3], unit or zero.

    Returns:
      The sum (each pixel in 0..2) and the number of pixels with a normal.
    """
    labelled = jnp.any(target != 0, axis=-1)  # [B, H, W]
    similarity = jnp.sum(normals * target, axis=-1)
    return jnp.sum(jnp.where(labelled, 1.0 - similarity, 0.0)), count(labelled)


def tally(normals: jax.Array, target: jax.Array) -> dict[str, jax.Array]:
    """Sums up the angles between predicted and true normals, and makes their histogram.

    Args:
      normals: f32[B, H, W, 3], unit.
      target: f32[B, H, W, 3], unit; the zero vector = missing.
    """
    valid = jnp.any(target != 0, axis=-1)
    angle = angles(normals, target)
    bins = jnp.clip((angle / ANGLE_BIN).astype(jnp.int32), 0, ANGLE_BINS - 1)
    bins = jnp.where(valid, bins, ANGLE_BINS)
    within = [jnp.sum(valid & (angle < limit), dtype=jnp.int32) for limit in ANGLE_LIMITS]
    return {
        "count": jnp.sum(valid, dtype=jnp.int32),
        "angle": jnp.sum(jnp.where(valid, angle, 0.0)),
        "histogram": jnp.bincount(bins.ravel(), length=ANGLE_BINS + 1)[:-1],
        "within": jnp.stack(within),
    }


def angles(normals: jax.Array, target: jax.Array) -> jax.Array:
    """Returns the angles f32[B, H, W] between unit vectors f32[B, H, W, 3], in degrees."""
    # Kahan's formula for unit vectors keeps its precision at small angles, where arccos has none in
    # float32, and makes a prediction of no direction (zero) 90 degrees wrong, as arccos does.
    apart, along = (jnp.linalg.norm(x, axis=-1) for x in (normals - target, normals + target))
    return jnp.degrees(2.0 * jnp.arctan2(apart, along))


def errors(normals: jax.Array, target: jax.Array) -> jax.Array:
    """Returns `angles`; NaN where the true normal is missing."""
    return jnp.where(jnp.any(target != 0, axis=-1), angles(normals, target), jnp.nan)


def distribution(sums: Sums) -> np.ndarray:
    """Returns the histogram i64[bins] of the angles in bins of `CHART_BIN` degrees."""
    # See `summarize`.
    known = np.isfinite(sums["angle"])
    return merge_bins(sums["histogram"] * known, round(CHART_BIN / ANGLE_BIN))


def summarize(sums: Sums) -> dict[str, float]:
    """Returns mean and median angle in degrees (the median to 0.005), fractions within limits.

    All are NaN if a prediction was.
    """
    number = sums["count"]
    # An angle of NaN is within no limit, and the histogram counts it as zero degrees.
    known = number if np.isfinite(sums["angle"]) else 0
    median = (np.mean(middle_bins(sums["histogram"])) + 0.5) * ANGLE_BIN
    within = {
        f"normals/within_{limit:g}": ratio(sums["within"][k], known)
        for k, limit in enumerate(ANGLE_LIMITS)
    }
    return {
        "normals/mean": ratio(sums["angle"], number),
        "normals/median": float(median) if known else float("nan"),
        **within,
    }


def mean_direction(total: np.ndarray) -> np.ndarray:
    """Returns the direction f64[3] of a sum of normals."""
    return total / max(np.linalg.norm(total), 1e-12)


def paint(normals: np.ndarray) -> np.ndarray:
    """Returns normals [..., H, W, 3] as colours uint8[..., H, W, 3]; zero and NaN are black.

    Red, green and blue are (n + 1) / 2 with x to the right, y up and z towards the viewer; the
    normals themselves have y down and z forward.
    """
    # Entries of unit vectors are smaller; those of broken ones must not overflow.
    normals = np.clip(np.nan_to_num(np.asarray(normals, np.float64)), -2.0, 2.0)
    viewed = normals * np.array([1, -1, -1], np.float32)
    colours = np.clip(np.round(127.5 * (viewed + 1.0)), 0, 255).astype(np.uint8)
    return np.where(np.any(normals != 0, axis=-1, keepdims=True), colours, np.uint8(0))


def key(size: int) -> np.ndarray:
    """Returns a sphere uint8[size, size, 3] in the colours of its normals, on white."""
    x, y = np.meshgrid(*2 * [np.linspace(-1.02, 1.02, size, dtype=np.float32)])
    outside = x**2 + y**2 > 1
    z = -np.sqrt(np.maximum(1 - x**2 - y**2, 0))
    colours = paint(np.stack([x, y, z], axis=-1))
    return np.where(outside[..., None], np.uint8(255), colours)


NORMALS = Task(
    name="normals",
    channels=3,
    activation=lambda raw, batch: normalize(raw),
    loss=lambda prediction, batch: cosine(prediction, batch["normals"]),
    loss_name="cosine",
    loss_labels={
        "cosine": "1 − cosine of the angle",
        "codebook": "cross-entropy of the codewords / nats",
    },
    reads=(LABELS,),
    labels=(LABELS,),
    label=lambda batch: batch["normals"],
    tally=tally,
    summarize=summarize,
    metrics=(
        Metric("normals/mean", "Mean°", False),
        Metric("normals/median", "Median°", False),
        Metric("normals/within_11.25", "<11.25°", True, unit="%", percent=True),
        Metric("normals/within_22.5", "<22.5°", True, unit="%", percent=True),
        Metric("normals/within_30", "<30°", True, unit="%", percent=True),
    ),
    trivial=Trivial(
        "the mean normal",
        lambda normals, num_classes: normals.astype(np.float64).sum((0, 1)),
        mean_direction,
    ),
    picture=Colours(
        "normals",
        "Normals are drawn as (n + 1) / 2 in red, green and blue, with x to the right, y up and z "
        "towards the viewer.",
        channels=3,
        paint=paint,
        key=key,
        key_text="x right, y up,\nz to the viewer",
    ),
    stored=UNIT_VECTORS,
    colour="#d96a1d",
    unit="unit vector with x to the right, y down and z forward",
    flip=LABELS.flip,
    blend=normalize,
    errors=Errors(errors, label="angle / °", text="{:.1f}°", largest=lambda labels: 60.0),
    charts=(
        Distribution(
            "angles", distribution, label="angle / °", width=CHART_BIN, marks=ANGLE_LIMITS
        ),
    ),
    settings={"normals_source": "labels", "normals_loss": "cosine"},
)


def as_vectors(*, source: str, codebook: codebooks.Codebook | None = None) -> Task:
    """Returns the task learned by `cosine` from a source of `learned_from`; needs no codebook."""
    return NORMALS if source == "labels" else learned_from(source, NORMALS, cosine)


def as_classes(
    codewords: int = 20, *, source: str, codebook: codebooks.Codebook | None = None
) -> Task:
    """Returns the task learned as a classification of codewords.

    Args:
      codewords: number of codewords.
      source: see `learned_from`.
      codebook: codebook with the codewords; None before they are known, when a network can be
        built but not trained.

    Raises:
      ValueError: for fewer than four codewords, or another number than the codebook has.
    """
    if codewords < 4:
        raise ValueError(f"codewords={codewords}: must be at least 4")
    if codebook is not None and len(codebook.codewords) != codewords:
        raise ValueError(f"codewords={codewords}: the codebook has {len(codebook.codewords)}")

    def known() -> codebooks.Codebook:
        if codebook is None:
            raise ValueError("`codebook` is None: fit one before the task learns or predicts")
        return codebook

    task = NORMALS._replace(
        channels=codewords,
        activation=lambda raw, batch: jax.nn.log_softmax(raw),
        loss_name="codebook",
        decode=lambda prediction: codebooks.decode(known(), jnp.exp(prediction)),
        classification=True,
        codewords=codewords,
    )
    return learned_from(
        source,
        task,
        lambda prediction, target: codebooks.cross_entropy(prediction, target, known()),
    )


LOSSES = {"cosine": as_vectors, "codebook": as_classes}


def learned_from(source: str, task: Task, loss: Callable[[jax.Array, jax.Array], LossSum]) -> Task:
    """Returns a form of the task whose loss compares its predictions with normals of a source.

    Args:
      source: "labels", "depth" (the normals of the depth labels), or "predicted_depth" (those of
        the depth that the network predicts, through which no gradient flows).
      task: task without its loss.
      loss: (prediction, normals f32[B, H, W, 3]) -> (sum, count).
    """
    if source == "labels":
        return task._replace(loss=lambda prediction, batch: loss(prediction, batch["normals"]))
    return task._replace(
        loss=lambda prediction, batch: loss(prediction, normals_of_depth(batch, source)),
        reads=(depth.LABELS, INTRINSICS) if source == "depth" else (INTRINSICS,),
    )


def normals_of_depth(batch: Batch, name: str) -> jax.Array:
    """Returns normals f32[B, H, W, 3] of a batch's depth; zero where it shows no single surface.

    Args:
      batch: with `intrinsics`, which are zero for an image that only fills up the batch, or whose
        camera is not known: it has no normals.
      name: of the depth in the batch.
    """
    fit = partial(geometry.normals_from_depth, largest_misfit=LARGEST_MISFIT)
    normals = jax.vmap(fit)(batch[name], batch["intrinsics"])[0]
    real = batch["intrinsics"][:, 0] > 0
    return jnp.where(real[:, None, None, None], normals, 0.0)
