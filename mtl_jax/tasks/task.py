"""What a task is: what it learns from, how it is judged, how it is shown.

A task is made of functions, so data, augmentation, evaluation and report need no code for
particular tasks.
"""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mtl_jax.tasks.charts import Chart
from mtl_jax.tasks.pictures import Picture
from mtl_jax.tasks.stored import Stored

Batch = Mapping[str, jax.Array]
# A batch as a data set stores it, before `data.decode`.
StoredBatch = Mapping[str, np.ndarray] | Batch
# Sums of a batch or an image, which add up over batches and images.
Sums = Mapping[str, np.ndarray]
# The sum of a loss over the labelled pixels, f32[], and their number, f32[].
LossSum = tuple[jax.Array, jax.Array]
# (generator, shape (B, H, W), number of classes) -> an array [B, ...] as a data set stores it.
Example = Callable[[np.random.Generator, tuple[int, int, int], int], np.ndarray]


def _colours(rng: np.random.Generator, shape: tuple[int, int, int], classes: int) -> np.ndarray:
    return rng.integers(0, 256, (*shape, 3), np.uint8)


def _numbers(rng: np.random.Generator, shape: tuple[int, int, int], classes: int) -> np.ndarray:
    return rng.uniform(0.5, 8.0, shape).astype(np.float16)


def _camera(rng: np.random.Generator, shape: tuple[int, int, int], classes: int) -> np.ndarray:
    images, height, width = shape
    intrinsics = [width, width, (width - 1) / 2, (height - 1) / 2]
    return np.tile(np.array(intrinsics, np.float32), (images, 1))


class Entry(NamedTuple):
    """An array that the examples of a data set hold, and what augmentation does to it.

    Arrays of two dimensions or more are images: they are mirrored and resampled before `flip` and
    `scale` see them.

    Attributes:
      name: key in an example and in a batch.
      missing: the stored value of a pixel about which nothing is known.
      decode: the stored array -> what losses and metrics take, inside jit.
      flip: an array of a mirrored view -> the same array of the mirrored scene.
      scale: (an array of an enlarged part of a view, the factor f32[]) -> the same array of the
        scene that is smaller by that factor.
      resample: "nearest" for labels, "linear" for images, whose colours also vary.
      withheld: whether these labels are costly: `data.withhold_labels` hides a part of them.
      example: makes noise in the form of the stored array, something known at every pixel; by
        default positive numbers f16[B, H, W]. Nothing is learned from it: steps are timed with it.
    """

    name: str
    missing: int = 0
    decode: Callable[[jax.Array], jax.Array] = lambda stored: stored.astype(jnp.float32)
    flip: Callable[[jax.Array], jax.Array] = lambda mirrored: mirrored
    scale: Callable[[jax.Array, jax.Array], jax.Array] = lambda enlarged, factor: enlarged
    resample: str = "nearest"
    withheld: bool = False
    example: Example = _numbers


IMAGE = Entry(
    "image",
    decode=lambda stored: stored.astype(jnp.float32) / 255.0,
    resample="linear",
    example=_colours,
)
# The augmentation itself changes the intrinsics, since they depend on the place of a crop.
INTRINSICS = Entry("intrinsics", example=_camera)


class Metric(NamedTuple):
    """One column of a result table.

    Attributes:
      name: key in the results, `task/metric`.
      label: what the column is called.
      higher_is_better: whether more is better.
      unit: of the printed numbers, such as "m"; "" for a ratio or where the label has it. None if
        the head of the column is the label alone, without unit and arrow.
      percent: whether the value is a fraction and printed as a percentage.
      decimals: of the printed numbers.
      standard: whether it is among the columns that the literature prints.
    """

    name: str
    label: str
    higher_is_better: bool
    unit: str | None = ""
    percent: bool = False
    decimals: int = 2
    standard: bool = True

    def printed(self, value: float) -> float:
        """Returns a value in the unit in which it is printed."""
        return 100.0 * value if self.percent else value

    @property
    def direction(self) -> str:
        """Returns the unit and an arrow towards the better values, such as `m ↓`."""
        if self.unit is None:
            return ""
        return f"{self.unit} {'↑' if self.higher_is_better else '↓'}".strip()

    @property
    def head(self) -> str:
        """Returns the head of the column, such as `AbsErr m ↓`."""
        return f"{self.label} {self.direction}".strip()


class Trivial(NamedTuple):
    """A prediction that ignores the image: the floor that any model must clear.

    Attributes:
      words: description, such as "the median depth".
      count: (labels [H, W, ...] of an image as stored, number of classes) -> sums, which add up
        over the images.
      constant: the sums of the training split -> the prediction at every pixel, as `activation`
        gives it for one.
    """

    words: str
    count: Callable[[np.ndarray, int], np.ndarray]
    constant: Callable[[np.ndarray], np.ndarray]


class Errors(NamedTuple):
    """How wrong a prediction is at each pixel; images are ranked by its mean.

    Attributes:
      of: (prediction in the form of `Task.sample`, labels) -> f32[B, H, W], NaN without a label.
      label: label of its scale of colours, with the unit.
      text: format of an image's mean, such as "{:.2f} m".
      largest: labels as stored -> the error from which on all have the last colour.
    """

    of: Callable[[jax.Array, jax.Array], jax.Array]
    label: str
    text: str
    largest: Callable[[np.ndarray], float]


class Task(NamedTuple):
    """A dense prediction task.

    Attributes:
      name: name of its head in the parameters and of its results.
      channels: channels of the head's output; None for one per class.
      activation: (f32[B, H, W, channels] of the head, batch) -> the prediction.
      loss: (prediction, batch) -> (sum, count). The batch also holds `predicted_*` of all tasks,
        through which no gradient flows. The loss must not be negative: weightings that take its
        logarithm or inverse would leave the task out.
      loss_name: key of `loss_labels`.
      loss_labels: the losses that the task can have -> what each measures, with its unit. The
        first one is that of the default form, which learns from the task's own labels.
      reads: what the loss reads besides the image.
      labels: what `label` reads.
      label: batch -> the labels by which the task is judged. Of a stored batch it gives the labels
        as a data set would store them.
      tally: (decoded prediction, labels) -> sums that add up over batches; unless `pooled`, with
        the `count` of labelled pixels.
      summarize: sums -> {metric name: value}, on the host.
      metrics: columns that `summarize` returns, in the order of a table.
      trivial: the trivial prediction.
      picture: how labels and samples are drawn.
      stored: how samples are stored as files.
      colour: colour of the task's curves, such as "#7a4fb0".
      decode: the prediction -> the form that `tally` takes.
      sample: the decoded prediction -> the form that is kept and drawn, that of labels; also within
        jit.
      unit: what the numbers in that form are: their unit and axes.
      caution: what to know before these numbers are used, in a sentence, or "".
      flip: the decoded prediction of a mirrored view, mirrored back -> that of the mirrored scene.
      blend: a mean of decoded predictions -> a decoded prediction.
      pooled: whether the metrics come from sums over the whole split under every protocol, as
        those of a confusion matrix do.
      by_class: sums -> intersection over union f64[C] of the data set's classes, or None.
      classification: whether the loss is a cross-entropy of classes, which `uw` with
        `form="likelihood"` weights differently from a regression.
      errors: the error of each pixel; None if the report shows none.
      charts: what the report shows of `tally`.
      codewords: number of codewords of the codebook that this form of the task needs; 0 for none.
      classes: number of classes that this form of the task is for; 0 for any.
      fit: (sums of `Trivial.count` over the training labels, class names) -> the task with a loss
        that depends on them, and a text about it; None if the loss does not.
      settings: the settings that only a run with this task reads -> their defaults.
    """

    name: str
    channels: int | None
    activation: Callable[[jax.Array, Batch], jax.Array]
    loss: Callable[[jax.Array, Batch], LossSum]
    loss_name: str
    loss_labels: Mapping[str, str]
    reads: tuple[Entry, ...]
    labels: tuple[Entry, ...]
    label: Callable[[StoredBatch], jax.Array | np.ndarray]
    tally: Callable[[jax.Array, jax.Array], dict[str, jax.Array]]
    summarize: Callable[[Sums], dict[str, float]]
    metrics: tuple[Metric, ...]
    trivial: Trivial
    picture: Picture
    stored: Stored
    colour: str
    decode: Callable[[jax.Array], jax.Array] = lambda prediction: prediction
    sample: Callable[[Any], Any] = lambda prediction: prediction
    unit: str = ""
    caution: str = ""
    flip: Callable[[jax.Array], jax.Array] = lambda mirrored: mirrored
    blend: Callable[[jax.Array], jax.Array] = lambda mean: mean
    pooled: bool = False
    by_class: Callable[[Sums], np.ndarray] | None = None
    classification: bool = False
    errors: Errors | None = None
    charts: tuple[Chart, ...] = ()
    codewords: int = 0
    classes: int = 0
    fit: Callable[[np.ndarray, Sequence[str]], tuple["Task", str]] | None = None
    settings: Mapping[str, Any] = MappingProxyType({})


def with_predictions(
    batch: Batch, tasks: Sequence[Task], predictions: Mapping[str, jax.Array]
) -> dict[str, jax.Array]:
    """Returns the batch as losses get it: with `predicted_*`, decoded and without gradients."""
    decoded = {
        f"predicted_{task.name}": jax.lax.stop_gradient(task.decode(predictions[task.name]))
        for task in tasks
    }
    return {**batch, **decoded}


def average_mirrored(
    tasks: Sequence[Task], seen: Mapping[str, jax.Array], mirrored: Mapping[str, jax.Array]
) -> dict[str, jax.Array]:
    """Returns the means of decoded predictions [B, H, W, ...] for images and for mirrored ones."""
    back = {task.name: task.flip(mirrored[task.name][:, :, ::-1]) for task in tasks}
    return {task.name: task.blend((seen[task.name] + back[task.name]) / 2) for task in tasks}
