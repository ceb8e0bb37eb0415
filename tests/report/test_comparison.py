"""The picture of a comparison."""

import math

import numpy as np
import pytest

from mtl_jax.report.comparison import comparable, comparison_figure
from mtl_jax.report.rows import Row

ROWS = [
    Row("Single task", {"depth/rmse": (1.0,)}, ()),
    Row("UW", {"delta_m/metrics": (3.0, 5.0), "milliseconds": (100.0, 120.0)}, ()),
    Row("Nash-MTL", {"delta_m/metrics": (-1.0,)}, ()),
]


def test_rows_with_delta_m_come_best_first():
    assert [row.label for row in comparable(ROWS)] == ["Nash-MTL", "UW"]


def test_rows_that_are_not_comparable_are_not_sorted_among_each_other():
    rows = [
        Row(f"{block}{x}", {"delta_m/metrics": (x,)}, (block,))
        for block, x in (("a", 3.0), ("b", 2.0), ("a", 1.0), ("b", 4.0))
    ]
    assert [row.label for row in comparable(rows)] == ["a1.0", "a3.0", "b2.0", "b4.0"]


def test_bars_are_means_with_their_errors():
    figure = comparison_figure(comparable(ROWS))
    gain, price = figure.axes
    np.testing.assert_allclose([bar.get_width() for bar in gain.patches], [-1.0, 4.0])
    assert [label.get_text() for label in gain.get_yticklabels()] == ["Nash-MTL", "UW"]
    assert [bar.get_width() for bar in price.patches] == [110.0]  # the other has no time
    (error,) = [line for line in gain.collections if len(line.get_segments())]
    np.testing.assert_allclose(error.get_segments()[0][:, 0], [3.0, 5.0])  # 4 +- s / sqrt(2)


def test_no_panel_for_times_that_no_run_has():
    (gain,) = comparison_figure(
        [row._replace(values={"delta_m/metrics": (n,)}) for n, row in enumerate(ROWS)]
    ).axes
    assert "Δm" in gain.get_title("left")


@pytest.mark.parametrize("limits", [(-1.0, 1.0), (-23.5, 51.5), (0.5, 2000.0), (-900.0, 1e9)])
def test_labels_of_the_ticks_do_not_overlap(limits):
    rows = [Row(f"{x}", {"delta_m/metrics": (x,), "milliseconds": (1.0,)}, ()) for x in limits]
    figure = comparison_figure(rows)
    figure.draw_without_rendering()
    for axes in figure.axes:
        low, high = sorted(axes.get_xlim())
        places = [x for x in axes.get_xticks() if low <= x <= high]
        boxes = sorted(
            (label.get_window_extent().x0, label.get_window_extent().x1)
            for label, x in zip(axes.get_xticklabels(), axes.get_xticks(), strict=True)
            if low <= x <= high
        )
        assert len(places) > 1
        assert all(one[1] < other[0] for one, other in zip(boxes, boxes[1:], strict=False))


def test_a_delta_m_that_no_axis_has_room_for_has_no_bar():
    rows = [Row("A", {"delta_m/metrics": (x,)}, ()) for x in (math.nan, math.inf, 1e300)]
    rows += ROWS
    assert [row.label for row in comparable(rows)] == ["Nash-MTL", "UW"]


def test_a_run_that_failed_does_not_flatten_the_others():
    rows = [Row("A", {"delta_m/metrics": (5.0,)}, ()), Row("B", {"delta_m/metrics": (200.0,)}, ())]
    (gain,) = comparison_figure(rows).axes
    left, small, large = gain.transData.transform([(0.0, 0.0), (5.0, 0.0), (200.0, 0.0)])[:, 0]
    assert (small - left) / (large - left) > 0.2  # 5 / 200 on a linear axis


def test_long_labels_leave_room_for_the_bars():
    settings = ", ".join(f"setting_{n} {n / 7:.3f}" for n in range(8))
    rows = [row._replace(label=f"{row.label} ({settings})") for row in comparable(ROWS)]
    figure = comparison_figure(rows)
    figure.draw_without_rendering()  # a panel without room is a warning
    (first, second) = (text.get_window_extent() for text in figure.axes[0].get_yticklabels())
    assert not first.overlaps(second)
