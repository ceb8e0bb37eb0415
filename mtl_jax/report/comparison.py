"""The picture of a comparison: the gain of each weighting, and the time per step."""

import textwrap
from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, MaxNLocator

from mtl_jax.report.figures import COLOURS, LARGEST, STYLE
from mtl_jax.report.rows import Row
from mtl_jax.report.spread import mean_and_error

DELTA_M = "delta_m/metrics"
STEP_TIME = "milliseconds"
# The axis of Delta-m is linear up to 10 and logarithmic beyond, so that one run that failed does
# not flatten all others.
LINEAR = 10.0
TICKS = (0, 5, 10, 20, 50, 100, 200, 500, *(10**power for power in range(3, 16)))
# In inches: between the ticks of an axis, so that their labels don't touch; the height of a bar and
# of a line of text.
APART, BAR, LINE = 0.42, 0.24, 0.15
# Most characters in a line of a label.
WIDEST = 40


def comparable(rows: Sequence[Row]) -> list[Row]:
    """Returns the rows whose Delta-m fits on an axis, block by block, best first in each."""
    means = {id(row): mean_and_error(row.values.get(DELTA_M, ()))[0] for row in rows}
    finite = [row for row in rows if abs(means[id(row)]) < LARGEST]
    blocks = list(dict.fromkeys(row.block for row in finite))
    return sorted(finite, key=lambda row: (blocks.index(row.block), means[id(row)]))


@matplotlib.rc_context(STYLE)
def comparison_figure(rows: Sequence[Row]) -> Figure:
    """Draws Delta-m of each row as a bar with its standard error, next to the time per step.

    Args:
      rows: from `comparable`, at least one. If no row has a time, there is no panel for it.
    """
    timed = any(row.values.get(STEP_TIME) for row in rows)
    labels = [textwrap.fill(row.label, WIDEST) for row in rows]
    lines = 1 + max(label.count("\n") for label in labels)
    height = 0.9 + max(BAR, LINE * lines) * len(rows)
    figure = Figure(figsize=(7.6, height), layout="constrained")
    panels = figure.subplots(
        1, 1 + timed, sharey=True, squeeze=False, width_ratios=(2, 1) if timed else None
    )[0]
    _bars(panels[0], rows, DELTA_M, COLOURS[0])
    panels[0].axvline(0.0, color="#8a8f98", linewidth=1.0)
    panels[0].margins(y=0.02)
    panels[0].set_yticks(np.arange(len(rows)), labels)
    panels[0].invert_yaxis()
    panels[0].set(title="Δm by metrics, % (lower is better)")
    if timed:
        _bars(panels[1], rows, STEP_TIME, COLOURS[1])
        panels[1].xaxis.set_major_locator(MaxNLocator(4))
        panels[1].set(title="ms per step")
    _scale_gain(figure, panels[0])
    return figure


def _bars(axes: Axes, rows: Sequence[Row], name: str, colour: str) -> None:
    for place, row in enumerate(rows):
        values = row.values.get(name)
        if values:
            mean, error = mean_and_error(values)
            error = error if error is not None and error < LARGEST else None
            axes.barh(place, mean, 0.7, xerr=error, color=colour, ecolor="#30343b", capsize=2)
    axes.grid(axis="y", visible=False)


def _scale_gain(figure: Figure, axes: Axes) -> None:
    """Scales the axis linearly or, where values are large, logarithmically beyond `LINEAR`."""
    low, high = axes.get_xlim()
    if max(-low, high) <= 2 * LINEAR:
        axes.xaxis.set_major_locator(MaxNLocator(6))
        return
    axes.set_xscale("symlog", linthresh=LINEAR, linscale=2.0)
    axes.set_xlim(low, high)
    # Where an axis begins is known once the labels next to it are laid out.
    figure.draw_without_rendering()
    ticks = [tick for tick in (*(-tick for tick in TICKS[:0:-1]), *TICKS) if low <= tick <= high]
    places = axes.transData.transform([(tick, 0.0) for tick in ticks])[:, 0] / figure.dpi
    axes.xaxis.set_major_locator(FixedLocator(_spaced(ticks, places)))
    axes.xaxis.set_major_formatter("{x:g}")


def _spaced(ticks: Sequence[float], places: np.ndarray) -> list[float]:
    """Returns zero and, outwards from it, each tick that is `APART` from the one before."""
    zero = ticks.index(0)
    kept = [zero]
    for step, end in ((1, len(ticks)), (-1, -1)):
        last = zero
        for index in range(zero + step, end, step):
            if abs(places[index] - places[last]) >= APART:
                kept.append(index)
                last = index
    return [ticks[index] for index in sorted(kept)]
