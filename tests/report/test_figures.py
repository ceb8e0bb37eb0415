import math

import numpy as np
import pytest
from matplotlib.colors import to_hex

from mtl_jax.report.figures import (
    SINGLE_TASK_COLOUR,
    colours,
    cosines_figure,
    has_cosines,
    has_weights,
    loss_figure,
    loss_kind,
    weights_figure,
)
from mtl_jax.report.read import Epoch
from mtl_jax.tasks import TASKS


def epoch(number, *, train=None, evaluation=None, weights=None, diagnostics=None):
    parts = [part or {} for part in (train, weights, diagnostics, evaluation)]
    return Epoch(number, {}, *parts)


def legend_of(figure):
    (legend,) = figure.legends
    return [text.get_text() for text in legend.get_texts()]


def drawn(axes, colour):
    """Data of the lines of a colour, in the order drawn."""
    return [line.get_xydata() for line in axes.get_lines() if to_hex(line.get_color()) == colour]


def test_losses_are_drawn_dashed_in_training_and_solid_in_evaluation():
    epochs = [
        epoch(1, train={"depth/loss": 3.0}),
        epoch(2, train={"depth/loss": 2.0}, evaluation={"depth/loss": 2.5}),
        epoch(4, train={"depth/loss": math.nan}, evaluation={"depth/loss": 2.25}),
    ]
    other = [epoch(1, train={"normals/loss": 1.0})]
    curves = {"UW": [epochs], "Nash-MTL": [epochs, epochs], "odd": [other]}
    figure = loss_figure(
        "depth", curves, {"UW": "#112233", "Nash-MTL": "#445566", "odd": "#000000"}
    )
    (axes,) = figure.axes
    train, evaluation = drawn(axes, "#112233")
    np.testing.assert_array_equal(train, [[1, 3.0], [2, 2.0]])
    np.testing.assert_array_equal(evaluation, [[2, 2.5], [4, 2.25]])
    styles = [line.get_linestyle() for line in axes.get_lines()]
    assert styles == ["--", "-"] * 3
    assert len(drawn(axes, "#445566")) == 4
    assert legend_of(figure) == [
        "UW", "Nash-MTL, 2 seeds", "evaluation", "training", "one line per seed"
    ]  # fmt: skip
    assert axes.get_xlabel() == "epoch"
    assert axes.get_ylabel() == "mean absolute error / m"


@pytest.mark.parametrize(
    ("task", "config", "label"),
    [
        ("segmentation", {"depth_loss": "stereo"}, "cross-entropy / nats"),
        ("segmentation", {"segmentation_loss": "dice"}, "1 − Dice coefficient"),
        ("segmentation", {"segmentation_loss": "focal:gamma=1"}, "focal loss / nats"),
        ("depth", {}, "mean absolute error / m"),
        ("depth", {"depth_loss": "l1"}, "mean absolute error / m"),
        ("depth", {"depth_loss": "stereo"}, "photometric error: structural"),
        ("depth", {"depth_loss": "stereo:nearest=0.5"}, "photometric error: structural"),
        ("depth", {"depth_loss": "stereo_l2"}, "photometric error: mean squared"),
        ("normals", {"depth_loss": "stereo"}, "1 − cosine of the angle"),
        ("normals", {"normals_loss": "codebook"}, "cross-entropy of the codewords / nats"),
        ("normals", {"normals_loss": ["?"]}, "1 − cosine of the angle"),
        ("edges", {}, "loss"),
    ],
)
def test_a_loss_has_its_own_unit(task, config, label):
    curves = {"UW": [[epoch(1, train={f"{task}/loss": 3.0})]]}
    (axes,) = loss_figure(task, curves, kind=loss_kind(task, config)).axes
    assert axes.get_ylabel().replace("\n", " ").startswith(label)


def test_values_that_no_axis_has_room_for_are_not_drawn():
    values = [1e308, 2.0, math.inf, 3.0, 1e-300, -1e31]
    epochs = [epoch(n, train={"depth/loss": x}) for n, x in enumerate(values, 1)]
    figure = loss_figure("depth", {"UW": [epochs]})
    figure.draw_without_rendering()
    (line,) = figure.axes[0].get_lines()
    np.testing.assert_array_equal(line.get_xydata(), [[2, 2.0], [4, 3.0]])


def test_names_are_not_formulas():
    figure = weights_figure({"$\\frac$ _x_ $": [[epoch(1, weights={"a": 1.0, "b": 1.0})]]})
    figure.draw_without_rendering()
    assert figure.axes[0].get_title("left") == "$\\frac$ _x_ $"


@pytest.mark.parametrize(("last", "scale"), [(0.2, "linear"), (0.1, "log"), (-0.1, "linear")])
def test_losses_of_several_magnitudes_are_on_a_logarithmic_scale(last, scale):
    epochs = [epoch(1, train={"depth/loss": 3.0}), epoch(2, train={"depth/loss": last})]
    (axes,) = loss_figure("depth", {"UW": [epochs]}).axes
    assert axes.get_yscale() == scale


def test_a_single_epoch_is_a_dot():
    figure = loss_figure("depth", {"UW": [[epoch(1, train={"depth/loss": 3.0})]]})
    (line,) = figure.axes[0].get_lines()
    assert line.get_marker() == "o"


def test_a_single_evaluation_is_a_ring_around_the_dot_of_training_as_in_the_legend():
    losses = {"depth/loss": 3.0}
    figure = loss_figure("depth", {"UW": [[epoch(1, train=losses, evaluation=losses)]]})
    training, evaluation = figure.axes[0].get_lines()
    (legend,) = figure.legends
    _, evaluation_key, training_key = legend.get_lines()
    for ring, dot in ((evaluation, training), (evaluation_key, training_key)):
        assert (ring.get_marker(), dot.get_marker()) == ("o", "o")
        assert ring.get_markerfacecolor() == "none"
        assert dot.get_markerfacecolor() == dot.get_color()
        assert ring.get_markersize() > dot.get_markersize()


def test_lines_have_no_markers():
    epochs = [epoch(n, train={"depth/loss": n}, evaluation={"depth/loss": n}) for n in (1, 2)]
    figure = loss_figure("depth", {"UW": [epochs]})
    lines = [*figure.axes[0].get_lines(), *figure.legends[0].get_lines()]
    assert {line.get_marker() for line in lines} <= {"", "None"}


def test_weights_add_up_to_the_number_of_tasks():
    epochs = [epoch(n, weights={"segmentation": 1.0, "depth": 3.0 * n}) for n in (1, 2)]
    nothing = [epoch(1, weights={"segmentation": 0.0, "depth": 0.0})]
    figure = weights_figure({"UW": [epochs], "Nash-MTL": [epochs, nothing]})
    assert [axes.get_title("left") for axes in figure.axes] == [
        "UW", "Nash-MTL, 2 seeds"
    ]  # fmt: skip
    assert all(axes.get_yscale() == "log" for axes in figure.axes)
    assert legend_of(figure) == ["segmentation", "depth"]
    (depth,) = drawn(figure.axes[0], TASKS["depth"].colour)
    np.testing.assert_allclose(depth, [[1, 2 * 3 / 4], [2, 2 * 6 / 7]])
    assert len(figure.axes[1].get_lines()) == 2


def test_cosines_have_zero_in_the_middle():
    pairs = [{"cosine/a-b": -0.2 / n, "cosine/a-c": 0.1, "residual": 1e-6} for n in (1, 2)]
    epochs = [epoch(n + 1, diagnostics=pair) for n, pair in enumerate(pairs)]
    figure = cosines_figure({"Nash-MTL": [epochs]})
    (axes,) = figure.axes
    assert legend_of(figure) == ["a · b", "a · c"]
    low, high = axes.get_ylim()
    assert low == -high
    assert 0.2 < high < 0.4
    lines = [line.get_xydata() for line in axes.get_lines()[1:]]
    np.testing.assert_allclose(lines, [[[1, -0.2], [2, -0.1]], [[1, 0.1], [2, 0.1]]])


@pytest.mark.parametrize("count", [1, 4, 5, 9])
def test_a_panel_a_label(count):
    epochs = [epoch(1, weights={"depth": 1.0, "normals": 2.0})]
    figure = weights_figure({str(index): [epochs] for index in range(count)})
    assert len(figure.axes) == count


def test_what_there_is_to_draw():
    assert has_cosines([epoch(1), epoch(2, diagnostics={"cosine/a-b": 0.1})])
    assert not has_cosines([epoch(1, diagnostics={"residual": 0.1})])
    assert has_weights([epoch(1, weights={"a": 1.0, "b": 1.0})])
    assert not has_weights([epoch(1, weights={"a": 1.0}), epoch(2)])


def test_colours_are_different_and_stay():
    palette = colours(["a", "grey", "b"], ["grey"])
    assert palette["grey"] == SINGLE_TASK_COLOUR
    assert len(set(palette.values())) == 3
    assert len(colours([str(index) for index in range(30)])) == 30
