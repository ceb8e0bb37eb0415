"""Semantic segmentation: a class per pixel, judged by intersection over union."""

import jax
import jax.numpy as jnp
import numpy as np

from mtl_jax.tasks import stored
from mtl_jax.tasks.losses import count
from mtl_jax.tasks.metrics import ratio
from mtl_jax.tasks.pictures import Classes
from mtl_jax.tasks.task import Entry, LossSum, Metric, Sums, Task, Trivial

LABELS = Entry(
    "segmentation",
    missing=-1,
    decode=lambda stored: stored.astype(jnp.int32),
    withheld=True,
    example=lambda rng, shape, classes: rng.integers(0, classes, shape, np.int8),
)


def cross_entropy(log_probabilities: jax.Array, labels: jax.Array) -> LossSum:
    """Returns the cross-entropy of the true class; pixels labelled -1 (void) are ignored.

    Args:
      log_probabilities: f32[B, H, W, C].
      labels: i32[B, H, W] in -1..C-1.

    Returns:
      The sum in nats and the number of labelled pixels.
    """
    labelled = labels >= 0
    index = jnp.maximum(labels, 0)[..., None]  # [B, H, W, 1]
    picked = jnp.take_along_axis(log_probabilities, index, axis=-1)[..., 0]
    return -jnp.sum(jnp.where(labelled, picked, 0.0)), count(labelled)


def tally(log_probabilities: jax.Array, labels: jax.Array) -> dict[str, jax.Array]:
    """Counts pixels by true and predicted class.

    Args:
      log_probabilities: f32[B, H, W, C].
      labels: i32[B, H, W], -1 = void.

    Returns:
      `confusion` i32[C, C], rows true, columns predicted, and `unknown` i32[], labelled pixels
      without a prediction.
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


def summarize(sums: Sums) -> dict[str, float]:
    """Returns mIoU over the classes that occur (as truth or prediction) and pixel accuracy.

    Both are fractions, and NaN if a prediction was.
    """
    if sums.get("unknown"):
        return {"segmentation/miou": float("nan"), "segmentation/pixel_accuracy": float("nan")}
    confusion = sums["confusion"]
    iou = class_iou(confusion)
    return {
        "segmentation/miou": float(np.nanmean(iou)) if np.any(~np.isnan(iou)) else float("nan"),
        "segmentation/pixel_accuracy": ratio(np.trace(confusion), confusion.sum()),
    }


def class_iou(confusion: np.ndarray) -> np.ndarray:
    """Returns intersection over union f64[C] of each class; NaN for a class that never occurs."""
    intersection = np.diag(confusion).astype(np.float64)
    union = confusion.sum(0) + confusion.sum(1) - intersection
    return np.divide(intersection, union, out=np.full_like(intersection, np.nan), where=union > 0)


def by_class(sums: Sums) -> np.ndarray:
    """Returns `class_iou` of a tally, NaN if a prediction was."""
    iou = class_iou(sums["confusion"])
    return np.full_like(iou, np.nan) if sums["unknown"] else iou


def count_classes(labels: np.ndarray, num_classes: int) -> np.ndarray:
    """Returns the number of pixels i64[C] of each class."""
    return np.bincount(labels[labels >= 0], minlength=num_classes)


def log_frequencies(counts: np.ndarray) -> np.ndarray:
    """Returns log-probabilities f64[C] of the classes, of which the most frequent one wins."""
    return np.log(np.maximum(counts, 0.5) / max(counts.sum(), 1))


SEGMENTATION = Task(
    name="segmentation",
    channels=None,
    activation=lambda raw, batch: jax.nn.log_softmax(raw),
    loss=lambda prediction, batch: cross_entropy(prediction, batch["segmentation"]),
    loss_name="cross_entropy",
    loss_labels={"cross_entropy": "cross-entropy / nats"},
    reads=(LABELS,),
    labels=(LABELS,),
    label=lambda batch: batch["segmentation"],
    tally=tally,
    summarize=summarize,
    metrics=(
        Metric("segmentation/miou", "mIoU", True, unit="%", percent=True),
        Metric("segmentation/pixel_accuracy", "PixAcc", True, unit="%", percent=True),
    ),
    trivial=Trivial("the most frequent class", count_classes, log_frequencies),
    picture=Classes("classes"),
    stored=stored.indices(),
    colour="#7a4fb0",
    sample=lambda prediction: prediction.argmax(-1),
    unit="index of a class",
    # The literature, too, takes its metrics from one confusion matrix of the whole split.
    pooled=True,
    by_class=by_class,
    classification=True,
)
