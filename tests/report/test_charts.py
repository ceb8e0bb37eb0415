"""What is drawn of charts, read back from the figures."""

import io

import numpy as np
import pytest

from mtl_jax.report import charts
from mtl_jax.tasks import DEPTH, NORMALS

(PROFILE,), (DISTRIBUTION,) = DEPTH.charts, NORMALS.charts
PALETTE = {"a": "#2f6db5", "b": "#c43c4e"}


def draw(figure):
    figure.savefig(io.BytesIO(), format="png", dpi=40)
    return figure


def test_bars_are_the_iou_of_the_classes_with_their_pixels():
    confusion = np.array([[6, 2, 0], [1, 3, 0], [0, 0, 0]])
    (axes,) = draw(charts.iou_figure(confusion, ["bed", "floor", "tv"])).axes
    widths = [bar.get_width() for bar in axes.patches]
    np.testing.assert_allclose(widths, [100 * 6 / 9, 50, 0])
    assert [text.get_text() for text in axes.texts] == ["66.7", "50.0", "–"]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["bed", "floor", "tv"]
    (right,) = axes.child_axes
    labels = [label.get_text() for label in right.get_yticklabels()]
    assert labels == ["8 (66.7%)", "4 (33.3%)", "0 (0.0%)"]


@pytest.mark.parametrize("count", [3, 13, 40])
def test_a_confusion_has_percentages_of_the_true_class(count):
    confusion = np.diag(np.arange(count)) + np.eye(count, k=1, dtype=int)
    figure = draw(charts.confusion_figure(confusion, [f"c{i}" for i in range(count)]))
    (axes,) = figure.axes
    drawn = axes.images[0].get_array()
    with np.errstate(invalid="ignore"):
        expected = 100 * confusion / confusion.sum(1, keepdims=True)
    np.testing.assert_allclose(drawn, expected)
    texts = {tuple(map(int, text.get_position())): text.get_text() for text in axes.texts}
    assert texts[1, 1] == texts[2, 1] == "50"
    assert max(figure.get_size_inches()) < 10
    assert len(axes.get_xticklabels()) == count


def test_a_profile_has_means_and_parts_of_the_pixels():
    pixels = np.zeros(23)
    pixels[[1, 3]] = 4, 12
    array = np.stack([pixels, 0.5 * pixels, 0.1 * pixels])
    curves = {"a": [array, array * [[1], [2], [2]]], "b": [array]}
    figure = draw(charts.profile_figure(PROFILE, curves, PALETTE))
    absolute, relative, parts = figure.axes
    # Two seeds of one colour, and another group. These bins are half a metre wide.
    assert [line.get_color() for line in absolute.lines] == [PALETTE[x] for x in "aab"]
    for axes, values in ((absolute, (0.5, 1.0, 0.5)), (relative, (0.1, 0.2, 0.1))):
        for line, value in zip(axes.lines, values, strict=True):
            np.testing.assert_allclose(line.get_xdata(), [0.25, 0.75, 1.25, 1.75])
            np.testing.assert_allclose(line.get_ydata(), [np.nan, value, np.nan, value])
    (steps,) = parts.patches
    np.testing.assert_allclose(steps.get_data().values, [0, 50, 0, 150])
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["a", "b"]


def test_a_profile_over_a_long_distance_has_wider_bins():
    figure = draw(charts.profile_figure(PROFILE, {"a": [np.ones((3, 23))]}, PALETTE))
    (line,) = figure.axes[0].lines
    np.testing.assert_allclose(line.get_xdata()[[0, 10, 15, -1]], [0.25, 5.5, 15, 85])
    np.testing.assert_allclose(line.get_ydata(), 1.0)
    # All bins have as many pixels.
    steps = figure.axes[-1].patches[0].get_data()
    np.testing.assert_allclose(steps.values * np.diff(steps.edges), 100 / 23)
    assert figure.legends == []


def test_runs_with_other_pixels_have_parts_of_their_own():
    one, other = np.ones((3, 23)), 2 * np.ones((3, 23))
    other[0, 0] = 5
    figure = draw(charts.profile_figure(PROFILE, {"a": [one], "b": [other]}, PALETTE))
    assert len(figure.axes[-1].patches) == 2


def test_a_distribution_adds_up_to_all_pixels():
    histogram = np.zeros(720, int)
    histogram[[0, 3, 4, 100]] = [1, 1, 4, 2]
    figure = draw(charts.distribution_figure(DISTRIBUTION, {"a": [histogram]}, PALETTE))
    density, below = figure.axes
    values = density.patches[0].get_data().values
    np.testing.assert_allclose(values[[0, 1, 2, 25]], [25, 50, 0, 25])
    line = below.lines[0]
    np.testing.assert_allclose(np.interp([1, 1.25, 30], *line.get_data()), [25, 75, 100])
    marks = sorted(line.get_xdata()[0] for line in below.lines[1:])
    assert marks == [11.25, 22.5, 30.0]
