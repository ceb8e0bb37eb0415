"""Curves over the epochs: losses, task weights, cosines between the tasks' gradients.

Each function is pure, from what runs wrote to a matplotlib Figure that no global state knows of.
A curve's data are the epochs of the runs of one setting, `{label: [epochs of a run, ...]}`.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from mtl_jax.report.runs import Epoch

Curves = Mapping[str, Sequence[Sequence[Epoch]]]

STYLE = {
    "axes.axisbelow": True,
    "axes.edgecolor": "#8a8f98",
    "axes.grid": True,
    "axes.labelcolor": "#30343b",
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlecolor": "#30343b",
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "grid.color": "#e6e8eb",
    "grid.linewidth": 0.8,
    "legend.frameon": False,
    "lines.linewidth": 1.6,
    "lines.solid_capstyle": "round",
    "xtick.color": "#5b616b",
    "ytick.color": "#5b616b",
}
TRAINING = {"linestyle": (0, (3, 2)), "linewidth": 1.0}
SINGLE_TASK_COLOUR = "#555a63"
COLOURS = (
    "#2f6db5", "#e07b2a", "#c43c4e", "#3f9c5a", "#8659a8",
    "#22a5ad", "#b5892b", "#d0659f", "#7a5a46", "#7f9a2c",
)  # fmt: skip
TASK_COLOURS = {"segmentation": "#7a4fb0", "depth": "#14888f", "normals": "#d96a1d"}
LOSS_LABELS = {
    "segmentation": "cross-entropy / nats",
    "depth": "mean absolute error / m",
    "normals": "1 − cosine of the angle",
}
# In inches: size of a panel, width of the legend beside it.
PANEL = (2.8, 2.5)
LEGEND = 1.9


def colours(labels: Sequence[str], grey: Sequence[str] = ()) -> dict[str, str]:
    """A colour for each label, those in `grey` apart from the rest."""
    others = [label for label in labels if label not in grey]
    cycle = {label: COLOURS[index % len(COLOURS)] for index, label in enumerate(others)}
    return {label: cycle.get(label, SINGLE_TASK_COLOUR) for label in labels}


@matplotlib.rc_context(STYLE)
def loss_figure(task: str, curves: Curves, palette: Mapping[str, str] | None = None) -> Figure:
    """Loss of one task per epoch: in training (dashed) and in evaluation (solid).

    Args:
      task: name of the task.
      curves: label -> epochs of each run.
      palette: label -> colour; by default `colours` of the labels.
    """
    palette = palette or colours(list(curves))
    name = f"{task}/loss"
    figure, (axes,) = _panels(1, size=(4.8, 3.4))
    drawn = []
    for label, runs in curves.items():
        for epochs in runs:
            style = {"color": palette[label]}
            lines = _plot(axes, epochs, lambda epoch: epoch.train.get(name), **style, **TRAINING)
            lines += _plot(axes, epochs, lambda epoch: epoch.evaluation.get(name), **style)
            drawn += [label] * len(lines)
    axes.set(
        xlabel="epoch", ylabel=LOSS_LABELS.get(task, "loss"), title=f"{task.capitalize()} loss"
    )
    handles = [Line2D([], [], color=palette[label], label=label) for label in dict.fromkeys(drawn)]
    handles.append(Line2D([], [], color="#9aa0a8", label="evaluation"))
    handles.append(Line2D([], [], color="#9aa0a8", label="training", **TRAINING))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    figure.legend(handles=handles, loc="outside right upper")
    return figure


@matplotlib.rc_context(STYLE)
def weights_figure(curves: Curves) -> Figure:
    """Weights of the tasks' gradients per epoch, scaled to a sum of K; a panel a label."""
    figure, panels = _panels(len(curves), sharey=True)
    tasks = _keys(curves, lambda epoch: epoch.weights)
    palette = {
        **colours(tasks),
        **{task: TASK_COLOURS[task] for task in tasks if task in TASK_COLOURS},
    }
    for axes, (label, runs) in zip(panels, curves.items(), strict=True):
        for epochs in runs:
            for task in tasks:
                _plot(axes, epochs, partial(_share, task), color=palette[task])
        axes.set(title=label, yscale="log")
        _log_ticks(axes)
    _finish(figure, panels, "weight (the sum is K)", palette)
    return figure


@matplotlib.rc_context(STYLE)
def cosines_figure(curves: Curves) -> Figure:
    """Cosines between the tasks' gradients per epoch; below zero the tasks conflict."""
    figure, panels = _panels(len(curves), sharey=True)
    pairs = _keys(curves, _cosines)
    palette = colours(pairs)
    for axes, (label, runs) in zip(panels, curves.items(), strict=True):
        axes.axhline(0.0, color="#8a8f98", linewidth=1.0)
        for epochs in runs:
            for pair in pairs:
                _plot(axes, epochs, partial(_cosine, pair), color=palette[pair])
        axes.set(title=label)
    # Zero stays in the middle, so that a conflict shows at a glance.
    highest = max(abs(limit) for axes in panels for limit in axes.get_ylim())
    panels[0].set_ylim(-min(1.0, highest), min(1.0, highest))
    named = {pair.replace("-", " · "): colour for pair, colour in palette.items()}
    _finish(figure, panels, "cosine of gradients", named)
    return figure


def has_cosines(epochs: Sequence[Epoch]) -> bool:
    """Whether a run logged cosines between its tasks' gradients."""
    return any(_cosines(epoch) for epoch in epochs)


def has_weights(epochs: Sequence[Epoch]) -> bool:
    """Whether a run weighed two tasks or more."""
    return any(len(epoch.weights) > 1 for epoch in epochs)


def _panels(
    count: int, *, size: tuple[float, float] = PANEL, sharey: bool = False
) -> tuple[Figure, list[Axes]]:
    columns = min(count, 4)
    rows = math.ceil(count / columns)
    figure = Figure(figsize=(columns * size[0] + LEGEND, rows * size[1]), layout="constrained")
    grid = figure.subplots(rows, columns, sharey=sharey, squeeze=False)
    for spare in grid.flat[count:]:
        spare.remove()
    return figure, list(grid.flat[:count])


def _plot(
    axes: Axes, epochs: Sequence[Epoch], value: Callable[[Epoch], float | None], **style: Any
) -> list[Line2D]:
    """A line over the epochs that have a finite value; none if no epoch has."""
    points = [(epoch.epoch, value(epoch)) for epoch in epochs]
    points = [(x, y) for x, y in points if y is not None and math.isfinite(y)]
    if not points:
        return []
    # A single epoch makes no line: it gets a dot.
    marker = "o" if len(points) == 1 else ""
    return axes.plot(*zip(*points, strict=True), marker=marker, markersize=4, **style)


def _keys(curves: Curves, mapping: Callable[[Epoch], Mapping[str, float]]) -> list[str]:
    keys = [
        key for runs in curves.values() for epochs in runs for e in epochs for key in mapping(e)
    ]
    return list(dict.fromkeys(keys))


def _share(task: str, epoch: Epoch) -> float | None:
    total = sum(epoch.weights.values())
    if task not in epoch.weights or not total > 0.0:
        return None
    return len(epoch.weights) * epoch.weights[task] / total


def _cosines(epoch: Epoch) -> dict[str, float]:
    prefix = "cosine/"
    return {
        name.removeprefix(prefix): value
        for name, value in epoch.diagnostics.items()
        if name.startswith(prefix)
    }


def _cosine(pair: str, epoch: Epoch) -> float | None:
    return _cosines(epoch).get(pair)


def _log_ticks(axes: Axes) -> None:
    """Ticks at 1, 2 and 5 of each decade, written as plain numbers."""
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def _finish(
    figure: Figure, panels: Sequence[Axes], ylabel: str, palette: Mapping[str, str]
) -> None:
    """Labels on the outer axes, whole epochs on the ticks, one legend for all panels."""
    for axes in panels:
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        axes.set_xlabel("epoch")
        if axes.get_subplotspec().is_first_col():
            axes.set_ylabel(ylabel)
    handles = [Line2D([], [], color=colour, label=name) for name, colour in palette.items()]
    figure.legend(handles=handles, loc="outside right upper")
