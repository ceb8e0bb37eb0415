"""The picture of a diagnosis: lengths and cosines of gradients, and whom the sum opposes."""

from collections.abc import Mapping, Sequence
from itertools import combinations

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from mtl_jax.report.figures import STYLE, colours
from mtl_jax.tasks import Task
from mtl_jax.weighting import Diagnosis

# A curve of means has at most this many points.
POINTS = 25


@matplotlib.rc_context(STYLE)
def diagnosis_figure(diagnosis: Diagnosis, grams: np.ndarray, tasks: Sequence[Task]) -> Figure:
    """Draws the gradients of some steps.

    Args:
      diagnosis: of the same Gram matrices.
      grams: f32[steps, K, K].
      tasks: in the order of K.
    """
    figure = Figure(figsize=(12, 3.4), layout="constrained")
    lengths, cosines, shares = figure.subplots(1, 3)
    with np.errstate(invalid="ignore", divide="ignore"):
        norms = np.sqrt(np.diagonal(grams, axis1=1, axis2=2))  # [steps, K]
        all_cosines = grams / (norms[:, :, None] * norms[:, None])
    for i, task in enumerate(tasks):
        _curve(lengths, np.where(norms[:, i] > 0, norms[:, i], np.nan), task.name, task.colour)
    lengths.set(title="Length of the gradients", xlabel="step", yscale="log")
    lengths.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    lengths.yaxis.set_minor_locator(NullLocator())
    lengths.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    pairs = list(combinations(range(len(tasks)), 2))
    palette = colours([f"{tasks[i].name} · {tasks[j].name}" for i, j in pairs])
    for (i, j), (label, colour) in zip(pairs, palette.items(), strict=True):
        _curve(cosines, all_cosines[:, i, j], label, colour)
    cosines.axhline(0.0, color="#8a8f98", linewidth=1.0)
    cosines.set(title="Cosines: below zero, two tasks conflict", xlabel="step")
    for axes in (lengths, cosines):
        axes.legend(fontsize=7.5, frameon=True, framealpha=0.8, edgecolor="none")
    conflicts = {
        label: diagnosis.conflicts[i, j] for label, (i, j) in zip(palette, pairs, strict=True)
    }
    _draw_shares(shares, conflicts, palette, diagnosis, tasks)
    return figure


def _curve(axes: Axes, values: np.ndarray, label: str, colour: str) -> None:
    """Draws a value of each step as a dot, and means of neighbouring steps as a line."""
    known = np.flatnonzero(np.isfinite(values))
    axes.plot(known + 1, values[known], ".", color=colour, alpha=0.3, markersize=3)
    parts = np.array_split(known, max(1, min(POINTS, len(known))))
    middle = [part.mean() + 1 for part in parts if len(part)]
    means = [values[part].mean() for part in parts if len(part)]
    axes.plot(middle, means, color=colour, label=label)


def _draw_shares(
    axes: Axes,
    conflicts: Mapping[str, float],
    palette: Mapping[str, str],
    diagnosis: Diagnosis,
    tasks: Sequence[Task],
) -> None:
    """Draws in how many steps two tasks conflict, and the sum opposes a task."""
    bars = [(label, conflicts[label], colour) for label, colour in palette.items()]
    for task, share, scaled in zip(tasks, diagnosis.opposed, diagnosis.opposed_scaled, strict=True):
        bars.append((f"sum against {task.name}", share, task.colour))
        bars.append(("the same at one length", scaled, task.colour))
    places = range(len(bars))
    axes.barh(places, [100 * share for _, share, _ in bars], 0.7, color=[c for *_, c in bars])
    for place, (_, share, _) in zip(places, bars, strict=True):
        text = f"{share:.0%}" if np.isfinite(share) else "–"
        axes.text(100 * np.nan_to_num(share) + 1, place, text, va="center", fontsize=8)
    axes.set_yticks(places, [label for label, *_ in bars], fontsize=8)
    axes.set(xlim=(0, 112), ylim=(len(bars) - 0.4, -0.6), xlabel="steps / %")
    axes.set_xticks(range(0, 101, 20))
    axes.set_title("Steps in conflict, and in which the sum opposes a task", x=-0.4)
    axes.grid(axis="y", visible=False)
