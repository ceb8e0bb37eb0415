"""The picture of a comparison: the gain of each weighting, and what its step costs."""

from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator

from mtl_jax.report.figures import COLOURS, STYLE
from mtl_jax.report.rows import Row, mean_and_error

DELTA_M = "delta_m/metrics"
# The axis of Delta-m is linear up to 10 and logarithmic beyond, lest one run that failed flatten
# all others.
LINEAR = 10.0
TICKS = (0, 5, 10, 20, 50, 100, 200, 500, 1000)


def comparable(rows: Sequence[Row]) -> list[Row]:
    """The rows that have a Delta-m, best first."""
    rows = [row for row in rows if row.values.get(DELTA_M)]
    return sorted(rows, key=lambda row: mean_and_error(row.values[DELTA_M])[0])


@matplotlib.rc_context(STYLE)
def comparison_figure(rows: Sequence[Row]) -> Figure:
    """Delta-m of each row as a bar with its standard error, the time of a step beside it.

    Args:
      rows: from `comparable`, at least one.
    """
    figure = Figure(figsize=(7.6, 0.9 + 0.24 * len(rows)), layout="constrained")
    gain, price = figure.subplots(1, 2, sharey=True, width_ratios=(2, 1))
    places = np.arange(len(rows))
    for axes, name, colour in ((gain, DELTA_M, COLOURS[0]), (price, "milliseconds", COLOURS[1])):
        for place, row in zip(places, rows, strict=True):
            values = row.values.get(name)
            if values:
                mean, error = mean_and_error(values)
                axes.barh(place, mean, 0.7, xerr=error, color=colour, ecolor="#30343b", capsize=2)
        axes.grid(axis="y", visible=False)
    gain.axvline(0.0, color="#8a8f98", linewidth=1.0)
    gain.set_xscale("symlog", linthresh=LINEAR, linscale=2.0)
    gain.xaxis.set_major_locator(FixedLocator([*(-tick for tick in TICKS[1:]), *TICKS]))
    gain.xaxis.set_major_formatter("{x:g}")
    gain.margins(y=0.02)
    gain.set_yticks(places, [row.label for row in rows])
    gain.invert_yaxis()
    gain.set(title="Δm by metrics, % (negative is better)")
    price.set(title="ms a step")
    return figure
