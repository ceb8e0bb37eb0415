"""Semantic segmentation: a class per pixel, judged by intersection over union."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mtl_jax.tasks import stored
from mtl_jax.tasks.charts import Confusion, class_iou
from mtl_jax.tasks.losses import count
from mtl_jax.tasks.metrics import ratio
from mtl_jax.tasks.pictures import Classes
from mtl_jax.tasks.task import Batch, Entry, Errors, LossSum, Metric, Sums, Task, Trivial

# The smallest 1 - p that the focal loss distinguishes from zero.
SMALLEST_DIFFICULTY = 1e-12

LABELS = Entry(
    "segmentation",
    missing=-1,
    decode=lambda stored: stored.astype(jnp.int32),
    withheld=True,
    example=lambda rng, shape, classes: rng.integers(0, classes, shape, np.int8),
)


def cross_entropy(
    log_probabilities: jax.Array,
    labels: jax.Array,
    *,
    label_smoothing: float = 0.0,
    class_weights: np.ndarray | None = None,
) -> LossSum:
    """Returns the cross-entropy of the true class; pixels labelled -1 (void) are ignored.

    Args:
      log_probabilities: f32[B, H, W, C].
      labels: i32[B, H, W] in -1..C-1.
      label_smoothing: part of the true class that is spread evenly over all classes.
      class_weights: f32[C]; None for equal ones.

    Returns:
      The weighted sum in nats and the number of labelled pixels.
    """
    log_p = _of_true_class(log_probabilities, labels)
    if class_weights is not None:
        log_p = log_p * _of_class(class_weights, labels)
    if label_smoothing:
        weights = 1.0 if class_weights is None else class_weights
        spread = jnp.mean(weights * log_probabilities, axis=-1)
        log_p = (1 - label_smoothing) * log_p + label_smoothing * spread
    labelled = labels >= 0
    return -jnp.sum(jnp.where(labelled, log_p, 0.0)), count(labelled)


def focal(
    log_probabilities: jax.Array,
    labels: jax.Array,
    *,
    gamma: float = 2.0,
    class_weights: np.ndarray | None = None,
) -> LossSum:
    """Returns the focal loss (Lin et al., 2017), a cross-entropy with less weight on easy pixels.

    It is -(1 - p)^gamma log p, where p is the probability of the true class. All else is as for
    `cross_entropy`.
    """
    log_p = _of_true_class(log_probabilities, labels)
    # A power below one has no derivative at zero.
    difficulty = jnp.maximum(-jnp.expm1(log_p), SMALLEST_DIFFICULTY) ** gamma
    if class_weights is not None:
        difficulty = difficulty * _of_class(class_weights, labels)
    labelled = labels >= 0
    return -jnp.sum(jnp.where(labelled, difficulty * log_p, 0.0)), count(labelled)


def dice(log_probabilities: jax.Array, labels: jax.Array) -> LossSum:
    """Returns one minus the soft Dice coefficient of each class that occurs in an image.

    Over the labelled pixels of an image, the coefficient of a class is twice the sum of its
    probabilities where it is true, divided by the sum of all its probabilities and the number of
    pixels where it is true.

    Args:
      log_probabilities: f32[B, H, W, C].
      labels: i32[B, H, W] in -1..C-1, -1 = void.

    Returns:
      The sum over images and classes that occur in them, and the number of these pairs.
    """
    true = jax.nn.one_hot(labels, log_probabilities.shape[-1])  # zero for -1
    probabilities = jnp.where((labels >= 0)[..., None], jnp.exp(log_probabilities), 0.0)
    overlap = jnp.sum(probabilities * true, axis=(1, 2))  # [B, C]
    pixels = jnp.sum(true, axis=(1, 2))
    occurs = pixels > 0
    size = jnp.where(occurs, jnp.sum(probabilities, axis=(1, 2)) + pixels, 1.0)
    return jnp.sum(jnp.where(occurs, 1 - 2 * overlap / size, 0.0)), count(occurs)


def balanced(counts: np.ndarray) -> np.ndarray:
    """Returns class weights f32[C] that are inversely proportional to the classes' frequencies.

    Their mean over all counted pixels is one, as scikit-learn's `class_weight="balanced"`, so that
    a loss keeps its scale. A class that never occurs has weight 0.

    Args:
      counts: number of pixels i64[C] of each class.
    """
    occurs = counts > 0
    weights = counts.sum() / (max(occurs.sum(), 1) * np.maximum(counts, 1))
    return np.where(occurs, weights, 0.0).astype(np.float32)


def _of_true_class(log_probabilities: jax.Array, labels: jax.Array) -> jax.Array:
    """Returns the log-probability of the true class f32[B, H, W]; that of class 0 for void."""
    index = jnp.maximum(labels, 0)[..., None]  # [B, H, W, 1]
    return jnp.take_along_axis(log_probabilities, index, axis=-1)[..., 0]


def _of_class(class_weights: np.ndarray, labels: jax.Array) -> jax.Array:
    """Returns the weight of the true class f32[B, H, W]; that of class 0 for void."""
    return jnp.asarray(class_weights)[jnp.maximum(labels, 0)]


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


def wrong(predicted: jax.Array, labels: jax.Array) -> jax.Array:
    """Returns 1 where the class is wrong and 0 where it is right, f32[B, H, W]; NaN for void."""
    return jnp.where(labels >= 0, (predicted != labels).astype(jnp.float32), jnp.nan)


def by_class(sums: Sums) -> np.ndarray:
    """Returns `class_iou` of a tally, NaN if a prediction was."""
    iou = class_iou(sums["confusion"])
    return np.full_like(iou, np.nan) if sums["unknown"] else iou


def count_classes(labels: np.ndarray, num_classes: int) -> np.ndarray:
    """Returns the number of pixels i64[C] of each class."""
    return np.bincount(labels[labels >= 0], minlength=num_classes)


def log_frequencies(counts: np.ndarray) -> np.ndarray:
    """Returns log-probabilities f64[C] of the classes, highest for the most frequent one."""
    return np.log(np.maximum(counts, 0.5) / max(counts.sum(), 1))


SEGMENTATION = Task(
    name="segmentation",
    channels=None,
    activation=lambda raw, batch: jax.nn.log_softmax(raw),
    loss=lambda prediction, batch: cross_entropy(prediction, batch["segmentation"]),
    loss_name="ce",
    loss_labels={
        "ce": "cross-entropy / nats",
        "focal": "focal loss / nats",
        "dice": "1 − Dice coefficient",
    },
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
    errors=Errors(wrong, label="wrong class", text="{:.1%} wrong", largest=lambda labels: 1.0),
    # Without a number there is no prediction, see `summarize`.
    charts=(Confusion("confusion", lambda sums: sums["confusion"] * (not sums["unknown"])),),
    settings={
        "label_fraction": 1.0,
        "label_seed": 0,
        "labelled_per_batch": 0,
        "segmentation_loss": "ce",
    },
)


def by_cross_entropy(label_smoothing: float = 0.0, weights: str = "equal") -> Task:
    """Returns the task learned by `cross_entropy`.

    Args:
      label_smoothing: see `cross_entropy`.
      weights: weights of the classes: "equal"; "frequency" for those that `balanced` makes of the
        training labels; or a number for each class, in their order, such as "1+2+0.5".

    Raises:
      ValueError: for other weights, or a `label_smoothing` outside of 0 to 1 (excluded).
    """
    if not 0 <= label_smoothing < 1:
        raise ValueError("label_smoothing must be 0 or more, and less than 1")
    return _learned_by("ce", partial(cross_entropy, label_smoothing=label_smoothing), weights)


def by_focal(gamma: float = 2.0, weights: str = "equal") -> Task:
    """Returns the task learned by `focal`; for the weights see `by_cross_entropy`.

    Raises:
      ValueError: for other weights, or a negative or infinite `gamma`.
    """
    if not 0 <= gamma < math.inf:
        raise ValueError("gamma must be a number that is 0 or more")
    return _learned_by("focal", partial(focal, gamma=gamma), weights)


def by_dice() -> Task:
    """Returns the task learned by `dice`, which is not a cross-entropy."""
    return _learned_by("dice", dice, "equal")._replace(classification=False)


LOSSES = {"ce": by_cross_entropy, "focal": by_focal, "dice": by_dice}


def _learned_by(name: str, loss: Callable[..., LossSum], weights: str) -> Task:
    """Returns the task learned by a loss; see `by_cross_entropy`."""
    given = None if weights in ("equal", "frequency") else _numbers(weights)

    def task_of(**kwargs: Any) -> Task:
        return SEGMENTATION._replace(
            loss=lambda prediction, batch: loss(prediction, batch["segmentation"], **kwargs),
            loss_name=name,
        )

    def fit(counts: np.ndarray, class_names: Sequence[str]) -> tuple[Task, str]:
        found = balanced(counts)
        named = (f"{name} {x:.3g}" for name, x in zip(class_names, found, strict=True))
        return task_of(class_weights=found), f"class weights: {', '.join(named)}"

    def unknown(prediction: jax.Array, batch: Batch) -> LossSum:
        raise ValueError("the class weights are not known: fit the task before it learns")

    if given is not None:
        return task_of(class_weights=given)._replace(classes=len(given))
    return task_of() if weights == "equal" else task_of()._replace(loss=unknown, fit=fit)


def _numbers(weights: str) -> np.ndarray:
    """Returns the class weights f32[C] in a text such as "1+2+0.5"."""
    advice = "choose equal or frequency, or give a number for each class, such as 1+2+0.5"
    try:
        found = np.array([float(part) for part in weights.split("+")], np.float32)
    except ValueError as error:
        raise ValueError(f"weights={weights}: unknown, {advice}") from error
    if not (np.all(np.isfinite(found)) and np.all(found >= 0) and np.any(found > 0)):
        raise ValueError(f"weights={weights}: they must be finite, 0 or more, and not all 0")
    return found
