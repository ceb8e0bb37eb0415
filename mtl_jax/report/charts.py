"""Figures of the tasks' charts: confusion of classes, errors over a quantity, their distribution.

Curves are `{label: [array of each run, ...]}`: each run has a line, the runs of one label have one
colour.
"""

import textwrap
from collections.abc import Iterator, Mapping, Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from mtl_jax.report.figures import LINE, STYLE
from mtl_jax.tasks import Distribution, Profile
from mtl_jax.tasks.charts import class_iou, cumulative, merge_bins, recall

Curves = Mapping[str, Sequence[np.ndarray]]
# In inches: the size of a panel of curves, and the side of a class's cell, for few and for many
# classes.
PANEL = (3.3, 2.6)
CELL, SMALL_CELL = 0.3, 0.2
# With more classes than this, cells are small.
FEW_CLASSES = 20
# The last part of a distribution, a few pixels of the largest errors, is cut off.
LARGEST_PART = 0.99


@matplotlib.rc_context(STYLE)
def iou_figure(confusion: np.ndarray, names: Sequence[str]) -> Figure:
    """Draws a bar of each class's intersection over union, with the number of its pixels."""
    count, cell = len(confusion), _cell(confusion)
    figure = Figure(figsize=(5.4, 0.7 + cell * count), layout="constrained")
    axes = figure.subplots()
    iou, pixels = 100 * class_iou(confusion), confusion.sum(1)
    total = max(pixels.sum(), 1)
    axes.barh(range(count), np.nan_to_num(iou), height=0.7, color="#2f6db5")
    size = 8 if count <= FEW_CLASSES else 6.5
    for index, value in enumerate(iou):
        text = "–" if np.isnan(value) else f"{value:.1f}"
        axes.text(np.nan_to_num(value) + 1, index, text, va="center", fontsize=size)
    parts = [f"{number:,} ({number / total:.1%})" for number in pixels]
    right = axes.secondary_yaxis("right")
    right.set_yticks(range(count), parts, fontsize=size)
    right.tick_params(length=0)
    right.spines["right"].set_visible(False)
    right.set_ylabel("pixels")
    axes.set(xlim=(0, 112), ylim=(count - 0.4, -0.6), xlabel="IoU / %")
    axes.set_xticks(range(0, 101, 20))
    axes.set_yticks(range(count), names, fontsize=size)
    axes.grid(axis="y", visible=False)
    return figure


@matplotlib.rc_context(STYLE)
def confusion_figure(confusion: np.ndarray, names: Sequence[str]) -> Figure:
    """Draws the percentage of each true class's pixels (row) that is predicted as each class."""
    count, cell = len(confusion), _cell(confusion)
    figure = Figure(figsize=(1.5 + cell * count, 1.3 + cell * count), layout="constrained")
    axes = figure.subplots()
    percent = 100 * recall(confusion)
    shades = matplotlib.colormaps["Blues"].with_extremes(bad="#eceef1")
    axes.imshow(np.ma.masked_invalid(percent), cmap=shades, vmin=0, vmax=100)
    size, smallest = (7.5, 1) if count <= FEW_CLASSES else (5, 5)
    for row, column in np.argwhere(np.nan_to_num(percent) >= smallest):
        value = percent[row, column]
        colour = "white" if value > 55 else "#30343b"
        axes.text(
            column, row, f"{value:.0f}", ha="center", va="center", fontsize=size, color=colour
        )
    font = {"fontsize": 8 if count <= FEW_CLASSES else 6.5}
    axes.set_xticks(range(count), names, rotation=90, **font)
    axes.set_yticks(range(count), names, **font)
    axes.set(xlabel="predicted class", ylabel="true class")
    axes.grid(visible=False)
    axes.tick_params(length=0)
    return figure


@matplotlib.rc_context(STYLE)
def profile_figure(chart: Profile, curves: Curves, palette: Mapping[str, str]) -> Figure:
    """Draws the mean of each error in bins of a quantity, and where the pixels are."""
    figure, panels = _panels(len(chart.errors) + 1)
    # The last bin is drawn as wide as the one before.
    edges = np.array([*chart.starts, 2 * chart.starts[-1] - chart.starts[-2]])
    last = max(np.flatnonzero(array[0])[-1] for _, array in _runs(curves)) + 1
    edges = edges[: last + 1]
    places, widths = (edges[:-1] + edges[1:]) / 2, np.diff(edges)
    counted: dict[bytes, tuple[str, np.ndarray]] = {}
    for label, array in _runs(curves):
        pixels, *sums = array[:, :last]
        means = [np.divide(x, pixels, out=np.full_like(x, np.nan), where=pixels > 0) for x in sums]
        for axes, mean in zip(panels, means, strict=False):
            axes.plot(places, mean, color=palette[label], marker="o", markersize=3)
        counted.setdefault(pixels.tobytes(), (label, 100 * pixels / pixels.sum() / widths))
    for label, part in counted.values():
        # The same split has the same labels in all runs.
        colour = "#9aa0a8" if len(counted) == 1 else palette[label]
        panels[-1].stairs(part, edges, color=colour, fill=len(counted) == 1)
    share = f"pixels per {_unit(chart.label)} / %"
    for axes, label in zip(panels, [*chart.errors, share], strict=True):
        axes.set(xlabel=chart.label, ylabel=label, ylim=(0, None), xlim=(0, None))
    _legend(figure, curves, palette)
    return figure


@matplotlib.rc_context(STYLE)
def distribution_figure(chart: Distribution, curves: Curves, palette: Mapping[str, str]) -> Figure:
    """Draws the part of the pixels by their error, and the part with smaller errors."""
    figure, (density, below) = _panels(2)
    end = 1
    for label, histogram in _runs(curves):
        parts = 100 * histogram / histogram.sum()
        edges = np.arange(len(parts) + 1) * chart.width
        per_unit = merge_bins(parts, max(1, round(1 / chart.width)))
        places = np.arange(len(per_unit) + 1) * max(1, round(1 / chart.width)) * chart.width
        density.stairs(per_unit, places, color=palette[label])
        below.plot(edges, np.append(0, 100 * cumulative(histogram)), color=palette[label])
        end = max(end, edges[np.searchsorted(cumulative(histogram), LARGEST_PART) + 1])
    for axes in (density, below):
        for mark in chart.marks:
            axes.axvline(mark, color="#9aa0a8", linewidth=0.8, linestyle=(0, (3, 3)))
    for mark in chart.marks:
        text = {"fontsize": 7, "color": "#5b616b", "rotation": 90, "va": "top", "ha": "right"}
        below.text(mark, 0.98, f"{mark:g}", transform=below.get_xaxis_transform(), **text)
    share = f"pixels per {_unit(chart.label)} / %"
    density.set(xlabel=chart.label, ylabel=share, xlim=(0, end), ylim=(0, None))
    below.set(xlabel=chart.label, ylabel="pixels below / %", xlim=(0, end), ylim=(0, 101))
    _legend(figure, curves, palette)
    return figure


def _unit(label: str) -> str:
    return label.rpartition(" / ")[2]


def _cell(confusion: np.ndarray) -> float:
    return CELL if len(confusion) <= FEW_CLASSES else SMALL_CELL


def _runs(curves: Curves) -> Iterator[tuple[str, np.ndarray]]:
    yield from ((label, array) for label, arrays in curves.items() for array in arrays)


def _panels(count: int) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(count * PANEL[0], PANEL[1]), layout="constrained")
    figure.set_layout_engine("constrained", w_pad=0.1)
    return figure, list(figure.subplots(1, count))


def _legend(figure: Figure, curves: Curves, palette: Mapping[str, str]) -> None:
    """Names the colours below the panels if there are several."""
    if len(curves) > 1:
        labels = [textwrap.fill(label, LINE) for label in curves]
        lines = [Line2D([], [], color=palette[label]) for label in curves]
        rows = -(-len(labels) // 3)
        figure.set_figheight(figure.get_figheight() + 0.32 * rows)
        figure.legend(lines, labels, loc="outside lower left", ncols=3, fontsize=8)
