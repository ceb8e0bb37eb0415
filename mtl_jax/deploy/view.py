"""A photo next to its predictions, for people to look at: a picture, or the frames of a video."""

import io
import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image

from mtl_jax.report import strips
from mtl_jax.tasks import Classes, Scale, Task

# Sides of a picture in the view, in pixels.
LONGEST_SIDE, SHORTEST_SIDE = 480, 120

Results = Mapping[str, np.ndarray]


def names_of(task: Task, class_names: Sequence[str]) -> Sequence[str]:
    """Returns the names of a task's classes, which are its own or those of the data set."""
    own = task.picture.names if isinstance(task.picture, Classes) else None
    return class_names if own is None else own


def size_of(size: tuple[int, int]) -> tuple[int, int]:
    """Returns the height and width at which a photo is shown; a very long one is shown shorter."""
    scale = min(LONGEST_SIDE / max(size), max(1.0, SHORTEST_SIDE / min(size)))
    height, width = (min(LONGEST_SIDE, max(SHORTEST_SIDE, round(side * scale))) for side in size)
    return height, width


def shrink(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Returns a photo uint8[H, W, 3] at the height and width of a view."""
    image = Image.fromarray(pixels)
    return np.asarray(image.resize(size[::-1], Image.Resampling.BILINEAR, reducing_gap=2.0))


def pick(prediction: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Returns a prediction [H, W, ...] at the height and width of a view, without averaging."""
    rows, columns = (
        (2 * np.arange(new) + 1) * old // (2 * new)
        for new, old in zip(size, prediction.shape[:2], strict=True)
    )
    return prediction[rows[:, None], columns]


def png(pixels: np.ndarray, results: Results, class_names: Sequence[str]) -> bytes:
    """Returns a PNG file of a photo uint8[H, W, 3] and its predictions [H, W, ...] by task."""
    size = size_of(pixels.shape[:2])
    shown = {f"predicted_{name}": pick(x, size)[None] for name, x in results.items()}
    figure = strips.strip_figure({"image": shrink(pixels, size)[None], **shown}, class_names)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=LONGEST_SIDE / strips.TILE)
    return buffer.getvalue()


class Frame(NamedTuple):
    """What all frames of a video have in common.

    Attributes:
      canvas: uint8[H, W, 3], titles, legend, scale and key, with sides that are even.
      boxes: place of each picture on it, as rows and columns.
      tasks: the tasks that are shown.
      class_names: names of the classes of the data set.
      limits: task name -> ends of its scale.
    """

    canvas: np.ndarray
    boxes: tuple[tuple[slice, slice], ...]
    tasks: tuple[Task, ...]
    class_names: tuple[str, ...]
    limits: Mapping[str, tuple[float, float]]

    def draw(self, pixels: np.ndarray, results: Results) -> np.ndarray:
        """Returns the frame uint8[H, W, 3] of a photo and its predictions."""
        painted = [
            paint(task, results[task.name], self.class_names, self.limits.get(task.name))
            for task in self.tasks
        ]
        frame = self.canvas.copy()
        for (rows, columns), picture in zip(self.boxes, [pixels, *painted], strict=True):
            size = rows.stop - rows.start, columns.stop - columns.start
            frame[rows, columns] = shrink(picture, size)
        return frame


def paint(
    task: Task,
    prediction: np.ndarray,
    class_names: Sequence[str],
    limits: tuple[float, float] | None = None,
) -> np.ndarray:
    """Returns a prediction [..., H, W, ...] in colours, uint8[..., H, W, 3].

    Args:
      task: the task.
      prediction: as `Task.sample` gives it.
      class_names: names of the classes of the data set.
      limits: ends of the scale of numbers; by default those of the prediction.
    """
    picture = task.picture
    if isinstance(picture, Classes):
        return picture.paint(prediction, len(names_of(task, class_names)))
    if isinstance(picture, Scale):
        ends = limits or picture.limits(np.zeros(0), prediction)
        return strips.paint_scale(prediction, ends, picture.colormap)
    return picture.paint(prediction)


def make_frame(
    tasks: Sequence[Task], results: Results, size: tuple[int, int], class_names: Sequence[str]
) -> Frame:
    """Makes the frame of a video from the predictions of its first pictures.

    Args:
      tasks: the tasks to show.
      results: predictions [n, H, W, ...], whose range is that of the scales.
      size: height and width of a picture.
      class_names: names of the classes of the data set.
    """
    limits = {
        task.name: task.picture.limits(np.zeros(0), results[task.name])
        for task in tasks
        if isinstance(task.picture, Scale)
    }
    # A sample in which everything occurs that the legend and the scales must show.
    sample = {"image": np.zeros((1, *size, 3), np.uint8)}
    for task in tasks:
        stand_in = np.zeros_like(results[task.name], shape=task.picture.shape((1, *size, 3)))
        if isinstance(task.picture, Classes):
            classes = np.arange(len(names_of(task, class_names)))
            np.put(stand_in, classes, classes)
        elif isinstance(task.picture, Scale):
            np.put(stand_in, [0, 1], limits[task.name])
        sample[f"predicted_{task.name}"] = stand_in
    figure = strips.strip_figure(sample, class_names)
    figure.set_dpi(math.floor(size[1] / strips.TILE))
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    drawn = np.asarray(canvas.buffer_rgba())[..., :3]
    even = drawn[: drawn.shape[0] // 2 * 2, : drawn.shape[1] // 2 * 2].copy()
    boxes = tuple(
        _box(np.array(axes.get_window_extent().extents), drawn.shape[0], even.shape[:2])
        for axes in figure.axes[: len(tasks) + 1]
    )
    return Frame(even, boxes, tuple(tasks), tuple(class_names), limits)


def _box(extents: np.ndarray, height: int, limits: tuple[int, ...]) -> tuple[slice, slice]:
    """Returns the rows and columns of a box, given as left, bottom, right and top in pixels."""
    left, bottom, right, top = extents.round().astype(int)
    return (
        slice(max(0, height - top), min(limits[0], height - bottom)),
        slice(max(0, left), min(limits[1], right)),
    )
