"""Strips of image | true | predicted | error, as papers print them."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax.numpy as jnp
import matplotlib
import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from mtl_jax.report.figures import STYLE
from mtl_jax.report.read import Run
from mtl_jax.tasks import TASKS, Classes, Colours, Errors, Scale

# In inches: a picture's width, the height of the titles, and the side of a key to colours.
TILE = 1.75
HEADER = 0.28
KEY = 0.58
LEGEND_COLUMNS = 4
MOST_ROWS = 6
# Its last colour, which marks wrong classes, differs clearly from those of the 13 classes.
ERROR_COLORMAP = "RdPu"

Samples = Mapping[str, np.ndarray]


class Column(NamedTuple):
    """One column of a strip.

    Attributes:
      task: name of the task; "image" for the images.
      title: title above the pictures.
      pictures: u8[n, H, W, 3].
    """

    task: str
    title: str
    pictures: np.ndarray


@matplotlib.rc_context(STYLE)
def strip_figure(
    samples: Samples,
    class_names: Sequence[str] = (),
    *,
    rows: Sequence[int] = range(MOST_ROWS),
    texts: Sequence[str] = (),
) -> Figure:
    """Draws a row per image: image | true | predicted | error for each task that the samples hold.

    Args:
      samples: `image` u8[n, H, W, 3] and, if there are any, the labels of tasks of `TASKS` in
        stored form, and the same with `predicted_` before the name.
      class_names: of the data set, by index; classes beyond them are numbered.
      rows: indices of the samples to draw; those beyond the last sample are left out. Scales and
        legend are those of all samples.
      texts: written on the images of the rows.

    Returns:
      A figure of one axes per picture, with a legend of the classes that occur, scales for errors
      and pictures of numbers such as depth, and a key to colours such as those of normals below.
    """
    columns = paint(samples, class_names)
    height, width = samples["image"].shape[1:3]
    rows = [row for row in rows if row < len(samples["image"])]
    count = len(rows)
    entries = _legend_entries(samples, class_names)
    footer = max(0.75, 0.2 + 0.17 * math.ceil(len(entries) / _legend_columns(len(columns))))
    inches = TILE * len(columns), TILE * height / width * count + HEADER + footer
    figure = Figure(figsize=inches)
    grid = figure.subplots(
        count,
        len(columns),
        squeeze=False,
        gridspec_kw={
            "left": 0.0,
            "right": 1.0,
            "wspace": 0.03,
            "hspace": 0.03 * width / height,
            "top": 1.0 - HEADER / inches[1],
            "bottom": footer / inches[1],
        },
    )
    for axes, column in zip(grid.T, columns, strict=True):
        for tile, row in zip(axes, rows, strict=True):
            tile.imshow(column.pictures[row], interpolation="nearest", aspect="auto")
            tile.set_axis_off()
        axes[0].set_title(column.title, loc="center", fontsize=9.5)
    for tile, text in zip(grid[:, 0], texts, strict=False):
        box = {"facecolor": "black", "alpha": 0.6, "pad": 2.0, "linewidth": 0}
        place = {"transform": tile.transAxes, "va": "top", "fontsize": 9}
        tile.text(0.03, 0.95, text, color="white", bbox=box, **place)
    _footer(figure, [column.task for column in columns], entries, samples, footer)
    return figure


def paint(samples: Samples, class_names: Sequence[str] = ()) -> list[Column]:
    """Returns the columns of a strip, from left to right."""
    columns = [Column("image", "Image", np.asarray(samples["image"]))]
    for task, picture in _pictures(samples).items():
        for name, word in ((task, "True"), (f"predicted_{task}", "Predicted")):
            if name in samples:
                title = f"{word} {picture.noun}"
                if isinstance(picture, Classes):
                    number = len(_names(picture, task, samples, class_names))
                    pictures = picture.paint(samples[name], number)
                elif isinstance(picture, Scale):
                    limits = _limits(picture, task, samples)
                    pictures = paint_scale(samples[name], limits, picture.colormap)
                else:
                    pictures = picture.paint(samples[name])
                columns.append(Column(task, title, pictures))
        errors = TASKS[task].errors
        if errors and task in samples and f"predicted_{task}" in samples:
            columns.append(Column(task, "Error", paint_errors(errors, task, samples)))
    return columns


def paint_errors(errors: Errors, task: str, samples: Samples) -> np.ndarray:
    """Returns errors as uint8[n, H, W, 3]: white for none to dark purple, black without a label.

    Args:
      errors: of the task.
      task: name of the task, whose labels and predictions the samples hold.
    """
    with np.errstate(over="ignore"):
        # Labels may be stored in half precision, whose rounding would show.
        predicted, labels = (
            x.astype(np.float32) if x.dtype.kind == "f" else x
            for x in (samples[f"predicted_{task}"], samples[task])
        )
    values = np.asarray(errors.of(jnp.asarray(predicted), jnp.asarray(labels)))
    scaled = Normalize(0.0, errors.largest(samples[task]), clip=True)(np.nan_to_num(values))
    colours = matplotlib.colormaps[ERROR_COLORMAP](np.asarray(scaled), bytes=True)[..., :3]
    return np.where(np.isnan(values)[..., None], np.uint8(0), colours)


def captions(samples: Samples) -> list[str]:
    """Returns the sentences of a caption on how the samples' tasks are drawn."""
    return [picture.caption for picture in _pictures(samples).values() if picture.caption]


def paint_scale(values: np.ndarray, limits: tuple[float, float], colormap: str) -> np.ndarray:
    """Returns numbers [..., H, W] as uint8[..., H, W, 3]; 0 and NaN are black."""
    values = np.asarray(values, np.float64)
    missing = ~(values > 0)
    scaled = Normalize(*limits, clip=True)(np.where(missing, limits[0], values))
    colours = matplotlib.colormaps[colormap](np.asarray(scaled), bytes=True)[..., :3]
    return np.where(missing[..., None], np.uint8(0), colours)


def merge_samples(runs: Sequence[Run]) -> list[dict[str, np.ndarray]]:
    """Merges samples of the same images: each task's come from the first run that has it.

    The single-task runs of one group make one strip of all the tasks in this way.
    """
    merged: list[dict[str, np.ndarray]] = []
    for run in runs:
        image = run.samples["image"]
        same = next((one for one in merged if np.array_equal(one["image"], image)), None)
        if same is None:
            merged.append(dict(run.samples))
        else:
            same |= {name: array for name, array in run.samples.items() if name not in same}
    return merged


def _pictures(samples: Samples) -> dict[str, Classes | Scale | Colours]:
    """Returns how to draw the tasks that the samples hold, by name, in the order of `TASKS`."""
    held = {name.removeprefix("predicted_") for name in samples}
    return {name: task.picture for name, task in TASKS.items() if name in held}


def _limits(picture: Scale, task: str, samples: Samples) -> tuple[float, float]:
    """Returns the ends of a task's scale, which all its pictures share."""
    nothing = np.zeros(0)
    predicted = samples.get(f"predicted_{task}", nothing)
    return picture.limits(samples.get(task, nothing), predicted)


def _names(picture: Classes, task: str, samples: Samples, class_names: Sequence[str]) -> list[str]:
    """Returns the names of a task's classes; a class without a name still has its own colour."""
    known = class_names if picture.names is None else picture.names
    numbered = range(len(known), max(_classes(task, samples), default=0) + 1)
    return [*known, *(f"class {i}" for i in numbered)]


def _classes(task: str, samples: Samples) -> list[int]:
    """Returns the classes that occur as truth or prediction, in order."""
    maps = [samples[name] for name in (task, f"predicted_{task}") if name in samples]
    return sorted({int(index) for labels in maps for index in np.unique(labels) if index >= 0})


def _legend_entries(samples: Samples, class_names: Sequence[str]) -> list[Patch]:
    entries = []
    for task, picture in _pictures(samples).items():
        if isinstance(picture, Classes):
            names = _names(picture, task, samples, class_names)
            colours = picture.colours(len(names)) / 255.0
            entries += [
                Patch(facecolor=colours[i], label=names[i]) for i in _classes(task, samples)
            ]
            errors = TASKS[task].errors
            if errors and task in samples and f"predicted_{task}" in samples:
                last = matplotlib.colormaps[ERROR_COLORMAP](1.0)
                entries.append(Patch(facecolor=last, label=f"error: {errors.label}"))
    # Predictions have a class everywhere.
    if any(name in samples for name in _pictures(samples)):
        entries += [Patch(facecolor="black", label="void")] if entries else []
    return entries


def _legend_columns(pictures: int) -> int:
    """Returns the columns of the legend: as many as fit below two pictures of a short row."""
    return 3 if pictures <= LEGEND_COLUMNS else LEGEND_COLUMNS


def _footer(
    figure: Figure,
    columns: Sequence[str],
    entries: Sequence[Patch],
    samples: Samples,
    height: float,
) -> None:
    """Draws the legend of the classes and, under their columns, scales and keys to colours.

    Args:
      columns: the task of each column.
      height: of the footer in inches.
    """
    top = (height - 0.08) / figure.get_figheight()
    if entries:
        figure.legend(
            handles=entries,
            loc="upper left",
            bbox_to_anchor=(0.0, top),
            ncols=_legend_columns(len(columns)),
            fontsize=8,
            handlelength=1.0,
            handleheight=1.0,
            columnspacing=1.2,
            labelspacing=0.35,
            borderpad=0.1,
        )
    for task, picture in _pictures(samples).items():
        left, column = columns.index(task) / len(columns), 1.0 / len(columns)
        errors, pictures = TASKS[task].errors, columns.count(task)
        if errors and task in samples and f"predicted_{task}" in samples:
            pictures -= 1
            if not isinstance(picture, Classes):
                place = (left + pictures * column, column)
                limits = (0.0, errors.largest(samples[task]))
                _scale(figure, ERROR_COLORMAP, errors.label, limits, place, top)
        if isinstance(picture, Scale):
            limits, place = _limits(picture, task, samples), (left, pictures * column)
            _scale(figure, picture.colormap, picture.label, limits, place, top)
        if isinstance(picture, Colours):
            margin = 0.02 if pictures == 1 else 0.3
            _key(figure, picture, left + margin * column, top)


def _scale(
    figure: Figure,
    colormap: str,
    label: str,
    limits: tuple[float, float],
    place: tuple[float, float],
    top: float,
) -> None:
    """Draws a scale between limits; left end, width and top are fractions of the figure."""
    inch = 1.0 / figure.get_figheight()
    left, width = place
    box = (left + 0.05 * width, top - 0.2 * inch, 0.9 * width, 0.12 * inch)
    scale = ScalarMappable(Normalize(*limits), colormap)
    bar = figure.colorbar(scale, cax=figure.add_axes(box), orientation="horizontal")
    bar.set_label(label, labelpad=1)
    bar.outline.set_visible(False)


def _key(figure: Figure, picture: Colours, left: float, top: float) -> None:
    """Draws a key to colours; its left and top are fractions of the figure."""
    side = KEY / figure.get_figheight()
    axes = figure.add_axes((left, top - side, KEY / figure.get_figwidth(), side))
    axes.imshow(picture.key(200), aspect="auto")
    axes.set_axis_off()
    axes.text(1.15, 0.5, picture.key_text, transform=axes.transAxes, va="center", fontsize=8)
