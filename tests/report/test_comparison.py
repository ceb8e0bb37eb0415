"""The picture of a comparison."""

import numpy as np

from mtl_jax.report.comparison import comparable, comparison_figure
from mtl_jax.report.rows import Row

ROWS = [
    Row("Single task", {"depth/rmse": (1.0,)}, ()),
    Row("UW", {"delta_m/metrics": (3.0, 5.0), "milliseconds": (100.0, 120.0)}, ()),
    Row("Nash-MTL", {"delta_m/metrics": (-1.0,)}, ()),
]


def test_rows_with_delta_m_come_best_first():
    assert [row.label for row in comparable(ROWS)] == ["Nash-MTL", "UW"]


def test_bars_are_means_with_their_errors():
    figure = comparison_figure(comparable(ROWS))
    gain, price = figure.axes
    np.testing.assert_allclose([bar.get_width() for bar in gain.patches], [-1.0, 4.0])
    assert [label.get_text() for label in gain.get_yticklabels()] == ["Nash-MTL", "UW"]
    assert [bar.get_width() for bar in price.patches] == [110.0]  # the other has no time
    (error,) = [line for line in gain.collections if len(line.get_segments())]
    np.testing.assert_allclose(error.get_segments()[0][:, 0], [3.0, 5.0])  # 4 +- s / sqrt(2)


def test_a_run_that_failed_does_not_flatten_the_others():
    rows = [Row("A", {"delta_m/metrics": (5.0,)}, ()), Row("B", {"delta_m/metrics": (200.0,)}, ())]
    (gain,) = comparison_figure(rows).axes
    left, small, large = gain.transData.transform([(0.0, 0.0), (5.0, 0.0), (200.0, 0.0)])[:, 0]
    assert (small - left) / (large - left) > 0.2  # 5 / 200 on a linear axis
