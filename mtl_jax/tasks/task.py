"""The tasks: what each predicts, how it is judged, how it is drawn.

One difference from the multi-task literature's code (Liu et al., 2019; Navon et al., 2022): depth
comes out of a softplus, so that it is positive, where theirs is linear and may be negative.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mtl_jax.tasks import codebook, geometry, losses, metrics, stereo

# Of a plane in the depth that normals are learned from. Exact depth of rooms: it leaves out 1.4 %
# of the pixels, at thin things and edges, and takes the mean error from 5.8 to 4.8 degrees.
LARGEST_MISFIT = 0.05
SMALLEST_SIGMOID = 1e-4

# Handa's colours of the 13 NYU classes (SceneNet), as the field draws them; void is black.
COLOURS_13 = np.array(
    [
        (0, 0, 255), (232, 88, 47), (0, 217, 0), (148, 0, 240), (222, 241, 23),
        (255, 205, 205), (0, 223, 228), (106, 135, 204), (116, 28, 41), (240, 35, 235),
        (0, 166, 156), (249, 139, 0), (225, 228, 194),
    ],
    np.uint8,
)  # fmt: skip


Batch = Mapping[str, jax.Array]


class Metric(NamedTuple):
    """One column of a result table.

    Attributes:
      name: key in the results, `task/metric`.
      label: head of the column.
      higher_is_better: whether more is better.
      percent: whether the fraction is printed as a percentage.
      standard: whether it is one of the nine columns that the literature prints.
    """

    name: str
    label: str
    higher_is_better: bool
    percent: bool = False
    standard: bool = True


class Task(NamedTuple):
    """A dense prediction task.

    Attributes:
      name: key of the task's labels in a batch, of its head in the parameters.
      channels: of the head's output; None for one a class.
      activation: (f32[B, H, W, channels] of the head, batch) -> the prediction.
      loss: (prediction, batch) -> (sum, count). The batch holds, beside what the task reads,
        `predicted_*` of all tasks, through which no gradient flows.
      tally: (decoded prediction, labels) -> sums that add up over batches: a `confusion` matrix, or
        errors with the `count` of labelled pixels.
      summarize: sums -> {metric name: value}, on the host.
      metrics: what `summarize` returns, in the order of a table.
      reads: entries of a batch that the loss reads beside `image` and `intrinsics`.
      missing: the label of a pixel of which nothing is known.
      decode: the prediction -> what is judged and drawn.
      classification: whether the loss is a cross-entropy of classes, which `uw` with
        `form="likelihood"` weighs otherwise than a regression.
    """

    name: str
    channels: int | None
    activation: Callable[[jax.Array, Batch], jax.Array]
    loss: Callable[[jax.Array, Batch], tuple[jax.Array, jax.Array]]
    tally: Callable[[jax.Array, jax.Array], dict[str, jax.Array]]
    summarize: Callable[[dict[str, np.ndarray]], dict[str, float]]
    metrics: tuple[Metric, ...]
    reads: tuple[str, ...]
    missing: int = 0
    decode: Callable[[jax.Array], jax.Array] = lambda prediction: prediction
    classification: bool = False


def _positive(raw: jax.Array, batch: Batch) -> jax.Array:
    # The shift lets training start at a room's typical 2.6 m instead of 0.7 m.
    return jax.nn.softplus(raw[..., 0] + 2.5)


SEGMENTATION = Task(
    name="segmentation",
    channels=None,
    activation=lambda raw, batch: jax.nn.log_softmax(raw),
    loss=lambda prediction, batch: losses.cross_entropy(prediction, batch["segmentation"]),
    tally=metrics.tally_segmentation,
    summarize=metrics.summarize_segmentation,
    metrics=(
        Metric("segmentation/miou", "mIoU", True, percent=True),
        Metric("segmentation/pixel_accuracy", "PixAcc", True, percent=True),
    ),
    reads=("segmentation",),
    missing=-1,
    classification=True,
)

DEPTH = Task(
    name="depth",
    channels=1,
    activation=_positive,
    loss=lambda prediction, batch: losses.absolute(prediction, batch["depth"]),
    tally=metrics.tally_depth,
    summarize=metrics.summarize_depth,
    metrics=(
        Metric("depth/absolute_error", "AbsErr", False),
        Metric("depth/relative_error", "RelErr", False),
        Metric("depth/rmse", "RMSE", False, standard=False),
        Metric("depth/delta1", "δ<1.25", True, percent=True, standard=False),
        Metric("depth/delta2", "δ<1.25²", True, percent=True, standard=False),
        Metric("depth/delta3", "δ<1.25³", True, percent=True, standard=False),
    ),
    reads=("depth",),
)

NORMALS = Task(
    name="normals",
    channels=3,
    activation=lambda raw, batch: losses.normalize(raw),
    loss=lambda prediction, batch: losses.cosine(prediction, batch["normals"]),
    tally=metrics.tally_normals,
    summarize=metrics.summarize_normals,
    metrics=(
        Metric("normals/mean", "Mean°", False),
        Metric("normals/median", "Median°", False),
        Metric("normals/within_11.25", "<11.25°", True, percent=True),
        Metric("normals/within_22.5", "<22.5°", True, percent=True),
        Metric("normals/within_30", "<30°", True, percent=True),
    ),
    reads=("normals",),
)

DEPTH_LOSSES = {
    "l1": DEPTH.loss,
    "stereo_l2": stereo.squared_loss,
    "stereo": stereo.photometric_loss,
}

TASKS = {task.name: task for task in (SEGMENTATION, DEPTH, NORMALS)}


def select(
    names: Sequence[str],
    *,
    depth_loss: str = "l1",
    nearest_depth: float = 0.3,
    normals_source: str = "labels",
    normals_codebook: codebook.Codebook | None = None,
) -> tuple[Task, ...]:
    """The tasks of these names, in the order given.

    Args:
      names: of `TASKS`.
      depth_loss: of `DEPTH_LOSSES`: "l1" learns from depth labels, the others from stereo pairs.
      nearest_depth: in metres, that a stereo loss lets the network say.
      normals_source: "labels", or "depth": learned from normals of the depth labels, or, where
        depth is learned from stereo pairs, of the depth that the network predicts.
      normals_codebook: to learn normals as a classification of its codewords; None: as vectors.

    Raises:
      ValueError: for an unknown, repeated or missing name, an unknown loss or source, or a nearest
        depth that is none.
    """
    if not names or len(set(names)) != len(names):
        raise ValueError(f"--tasks: tasks must be one or more different names, got {list(names)}")
    for name in names:
        if name not in TASKS:
            raise ValueError(f"--tasks: unknown task {name!r}: choose from {', '.join(TASKS)}")
    if depth_loss not in DEPTH_LOSSES:
        raise ValueError(
            f"--depth_loss={depth_loss}: unknown, choose from {', '.join(DEPTH_LOSSES)}"
        )
    if normals_source not in ("labels", "depth"):
        raise ValueError(f"--normals_source={normals_source}: unknown, choose labels or depth")
    if not 0 < nearest_depth < math.inf:
        raise ValueError(f"--nearest_depth={nearest_depth}: must be a positive number of metres")
    chosen = dict(TASKS)
    if depth_loss != "l1":
        chosen["depth"] = stereo_task(DEPTH_LOSSES[depth_loss], nearest_depth)
        if normals_source == "depth" and "depth" in names:
            normals_source = "predicted_depth"
    if normals_source != "labels" or normals_codebook is not None:
        chosen["normals"] = normals_task(source=normals_source, codewords=normals_codebook)
    return tuple(chosen[name] for name in names)


def stereo_task(loss: Callable, nearest: float) -> Task:
    """The task of depth learned from stereo pairs; it is judged by depth labels as ever.

    A sigmoid gives inverse depth, so that disparity is proportional to it whatever the baseline,
    which a single image does not tell.
    """

    def activation(raw: jax.Array, batch: Batch) -> jax.Array:
        # Training starts at 8 times the nearest depth; the smallest number keeps depth finite.
        return nearest / (jax.nn.sigmoid(raw[..., 0] - 2.0) + SMALLEST_SIGMOID)

    return DEPTH._replace(activation=activation, loss=loss, reads=("image_right", "baseline"))


def normals_task(*, source: str, codewords: codebook.Codebook | None) -> Task:
    """The task of normals in another form.

    Args:
      source: "labels", "depth" (the normals of the depth labels), or "predicted_depth" (those of
        the depth that the network predicts, which is not changed by them).
      codewords: as in `select`.
    """
    task = NORMALS
    loss: Callable = losses.cosine
    if codewords is not None:
        loss = partial(codebook.cross_entropy, codebook=codewords)
        task = task._replace(
            channels=len(codewords.codewords),
            activation=lambda raw, batch: jax.nn.log_softmax(raw),
            decode=lambda prediction: codebook.decode(codewords, jnp.exp(prediction)),
            classification=True,
        )
    if source != "labels":
        return task._replace(
            loss=lambda prediction, batch: loss(prediction, normals_of_depth(batch, source)),
            reads=("depth",) if source == "depth" else (),
        )
    return task._replace(loss=lambda prediction, batch: loss(prediction, batch["normals"]))


def normals_of_depth(batch: Batch, name: str) -> jax.Array:
    """Normals f32[B, H, W, 3] of a batch's depth; zero where it does not show one surface.

    Args:
      batch: with `intrinsics`, which are zero for what only fills a batch up.
      name: of the depth in it.
    """
    fit = partial(geometry.normals_from_depth, largest_misfit=LARGEST_MISFIT)
    normals = jax.vmap(fit)(batch[name], batch["intrinsics"])[0]
    real = batch["intrinsics"][:, 0] > 0
    return jnp.where(real[:, None, None, None], normals, 0.0)


def with_predictions(
    batch: Batch, tasks: Sequence[Task], predictions: Mapping[str, jax.Array]
) -> dict[str, jax.Array]:
    """The batch as losses see it: with `predicted_*`, decoded, which pass no gradient on."""
    decoded = {
        f"predicted_{task.name}": jax.lax.stop_gradient(task.decode(predictions[task.name]))
        for task in tasks
    }
    return {**batch, **decoded}


def class_colours(num_classes: int) -> np.ndarray:
    """Colours uint8[num_classes, 3]: the usual ones of 13 classes, else Pascal VOC's."""
    if num_classes == len(COLOURS_13):
        return COLOURS_13
    colours = np.zeros((num_classes, 3), np.uint8)
    for index in range(num_classes):
        # VOC spreads the bits of the 1-based class over red, green and blue, highest bit first.
        for bit in range(8):
            colours[index, bit % 3] |= ((index + 1) >> bit & 1) << (7 - bit // 3)
    return colours
