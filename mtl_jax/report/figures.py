"""Curves over the epochs: losses, task weights, cosines between the tasks' gradients.

Each function is pure: it returns a matplotlib Figure that is not registered in any global state. A
curve's data are the epochs of the runs of one group, `{label: [epochs of a run, ...]}`.
"""

import math
import textwrap
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from mtl_jax.report.read import Epoch
from mtl_jax.tasks import TASKS
from mtl_jax.weighting import options

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
    # Names of folders and classes must not be parsed as formulas.
    "text.parse_math": False,
    "xtick.color": "#5b616b",
    "ytick.color": "#5b616b",
}
# Losses that differ by more than this factor are drawn on a logarithmic scale.
WIDE = 20.0
# A single epoch makes no line: it gets a marker, which is a dot or a ring.
MARKER: dict[str, Any] = {"marker": "o", "markersize": 4.0}
TRAINING: dict[str, Any] = {"linestyle": (0, (3, 2)), "linewidth": 1.0}
EVALUATION: dict[str, Any] = {"markerfacecolor": "none", "markersize": 7.0}
SINGLE_TASK_COLOUR = "#555a63"
COLOURS = (
    "#2f6db5", "#e07b2a", "#c43c4e", "#3f9c5a", "#8659a8",
    "#22a5ad", "#b5892b", "#d0659f", "#7a5a46", "#7f9a2c",
)  # fmt: skip
# Larger magnitudes come from a run that diverged; they are not drawn.
SMALLEST, LARGEST = 1e-30, 1e30
# In inches: the size of a panel, and the width of a character in the legend next to it.
PANEL = (2.8, 2.5)
LETTER = 0.075
# Longer labels are broken into lines of this many characters.
LINE = 30
YLABEL = 40


def colours(labels: Sequence[str], grey: Sequence[str] = ()) -> dict[str, str]:
    """Returns a colour for each label; those in `grey` are grey."""
    others = [label for label in labels if label not in grey]
    cycle = {label: COLOURS[index % len(COLOURS)] for index, label in enumerate(others)}
    return {label: cycle.get(label, SINGLE_TASK_COLOUR) for label in labels}


@matplotlib.rc_context(STYLE)
def loss_figure(
    task: str,
    curves: Curves,
    palette: Mapping[str, str] | None = None,
    *,
    kind: str | None = None,
) -> Figure:
    """Draws the loss of one task per epoch: in training (dashed) and in evaluation (solid).

    A single training loss is a dot, and a single evaluation a ring.

    Args:
      task: name of the task.
      curves: label -> epochs of each run, all of one kind of loss; each run has a line.
      palette: label -> colour; by default `colours` of the labels.
      kind: of the loss, see `loss_kind`; by default that of the task's default form.
    """
    palette = palette or colours(list(curves))
    name = f"{task}/loss"
    figure, (axes,) = _panels(1, size=(4.8, 3.4))
    drawn = []
    for label, runs in curves.items():
        for epochs in runs:
            style = {"color": palette[label]}
            lines = _plot(axes, epochs, lambda epoch: epoch.train.get(name), **style, **TRAINING)
            lines += _plot(
                axes, epochs, lambda epoch: epoch.evaluation.get(name), **style, **EVALUATION
            )
            drawn += [label] * len(lines)
    axes.set(title=f"{task.capitalize()} loss")
    values = [float(y) for line in axes.get_lines() for y in np.asarray(line.get_ydata())]
    if values and min(values) > 0 and max(values) > WIDE * min(values):
        axes.set_yscale("log")
        _log_ticks(axes)
    named = {_counted(label, len(curves[label])): palette[label] for label in dict.fromkeys(drawn)}
    handles = _handles(named)
    marker = MARKER if any(line.get_marker() == "o" for line in axes.get_lines()) else {}
    for label, style in (("evaluation", EVALUATION), ("training", TRAINING)):
        handles.append(Line2D([], [], color="#9aa0a8", label=label, **marker | style))
    if any(len(curves[label]) > 1 for label in drawn):
        handles.append(Line2D([], [], linestyle="", label="one line per seed"))
    label = _loss_labels(task).get(kind or loss_kind(task, {}), "loss")
    ylabel = textwrap.fill(label, YLABEL)
    _finish(figure, [axes], ylabel, handles)
    return figure


@matplotlib.rc_context(STYLE)
def weights_figure(curves: Curves) -> Figure:
    """Draws the tasks' weights per epoch, scaled to a sum of K; a panel for each label."""
    figure, panels = _panels(len(curves), sharey=True)
    tasks = _keys(curves, lambda epoch: epoch.weights)
    known = {task: TASKS[task].colour for task in tasks if task in TASKS}
    palette = colours(tasks) | known
    for axes, (label, runs) in zip(panels, curves.items(), strict=True):
        for epochs in runs:
            for task in tasks:
                _plot(axes, epochs, partial(_share, task), color=palette[task])
        axes.set(title=textwrap.fill(_counted(label, len(runs)), LINE), yscale="log")
        _log_ticks(axes)
    # The range contains one, as the weights do, and is wide enough for more than one tick.
    low, high = panels[0].get_ylim()
    panels[0].set_ylim(min(low, 0.45), max(high, 2.2))
    _finish(figure, panels, "weight (the sum is K)", _handles(palette))
    return figure


@matplotlib.rc_context(STYLE)
def cosines_figure(curves: Curves) -> Figure:
    """Draws cosines between the tasks' gradients per epoch; below zero the tasks conflict."""
    figure, panels = _panels(len(curves), sharey=True)
    pairs = _keys(curves, _cosines)
    palette = colours(pairs)
    for axes, (label, runs) in zip(panels, curves.items(), strict=True):
        axes.axhline(0.0, color="#8a8f98", linewidth=1.0)
        for epochs in runs:
            for pair in pairs:
                _plot(axes, epochs, partial(_cosine, pair), color=palette[pair])
        axes.set(title=textwrap.fill(_counted(label, len(runs)), LINE))
    # Zero stays in the middle, so that conflicts are easy to see.
    highest = max(abs(limit) for axes in panels for limit in axes.get_ylim())
    panels[0].set_ylim(-min(1.0, highest), min(1.0, highest))
    named = {pair.replace("-", " · "): colour for pair, colour in palette.items()}
    _finish(figure, panels, "cosine of gradients", _handles(named))
    return figure


def loss_kind(task: str, config: Mapping[str, Any]) -> str:
    """Returns what a run's loss of a task is, a key of `Task.loss_labels`; kinds share no axis.

    The setting `TASK_loss` chooses it; a run without that setting has the first one.
    """
    labels = _loss_labels(task)
    chosen, _ = options.parts(str(config.get(f"{task}_loss")))
    return chosen if chosen in labels else next(iter(labels))


def _loss_labels(task: str) -> Mapping[str, str]:
    return TASKS[task].loss_labels if task in TASKS else {task: "loss"}


def has_cosines(epochs: Sequence[Epoch]) -> bool:
    """Returns whether a run logged cosines between its tasks' gradients."""
    return any(_cosines(epoch) for epoch in epochs)


def has_weights(epochs: Sequence[Epoch]) -> bool:
    """Returns whether a run weighed two tasks or more."""
    return any(len(epoch.weights) > 1 for epoch in epochs)


def _counted(label: str, runs: int) -> str:
    """Returns the label with the number of seeds, whose lines have one colour."""
    return label if runs == 1 else f"{label}, {runs} seeds"


def _panels(
    count: int, *, size: tuple[float, float] = PANEL, sharey: bool = False
) -> tuple[Figure, list[Axes]]:
    columns = min(count, 4)
    rows = math.ceil(count / columns)
    figure = Figure(figsize=(columns * size[0], rows * size[1]), layout="constrained")
    grid = figure.subplots(rows, columns, sharey=sharey, squeeze=False)
    for spare in grid.flat[count:]:
        spare.remove()
    return figure, list(grid.flat[:count])


def _plot(
    axes: Axes, epochs: Sequence[Epoch], value: Callable[[Epoch], float | None], **style: Any
) -> list[Line2D]:
    """Draws a line over the epochs whose value fits on an axis; none if no epoch has one."""
    points = [(epoch.epoch, value(epoch)) for epoch in epochs]
    points = [(x, y) for x, y in points if y is not None and (y == 0 or _has_room(y))]
    if not points:
        return []
    marker = MARKER if len(points) == 1 else {}
    return axes.plot(*zip(*points, strict=True), **marker | style)


def _has_room(value: float) -> bool:
    return SMALLEST < abs(value) < LARGEST


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
    """Puts ticks at 1, 2 and 5 of each decade, written as plain numbers."""
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def _handles(palette: Mapping[str, str]) -> list[Line2D]:
    return [Line2D([], [], color=colour, label=label) for label, colour in palette.items()]


def _finish(figure: Figure, panels: Sequence[Axes], ylabel: str, handles: Sequence[Line2D]) -> None:
    """Puts labels on the outer axes, whole epochs on the ticks, one legend next to all panels."""
    for axes in panels:
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True, min_n_ticks=1))
        axes.set_xlim(left=0)
        axes.set_xlabel("epoch")
        place = axes.get_subplotspec()
        if place is not None and place.is_first_col():
            axes.set_ylabel(ylabel)
    labels = [textwrap.fill(str(handle.get_label()), LINE) for handle in handles]
    lines = [line for label in labels for line in label.splitlines()]
    width = figure.get_figwidth() + 0.6 + LETTER * max(map(len, lines))
    height = 0.2 + 0.15 * len(lines) + 0.065 * len(labels)
    figure.set_size_inches(width, max(figure.get_figheight(), height))
    figure.legend(handles=handles, labels=labels, loc="outside right upper")
