import io

import numpy as np
import pytest
from matplotlib import image as matplotlib_image
from matplotlib import pyplot
from PIL import Image, ImageCms

from mtl_jax.report.read import read_run
from mtl_jax.report.strips import (
    ERROR_COLORMAP,
    captions,
    merge_samples,
    paint_errors,
    paint_scale,
    strip_figure,
)
from mtl_jax.tasks import DEPTH, SEGMENTATION, class_colours
from mtl_jax.tasks.pictures import COLOURS_13
from tests.fakes import TASKS

NAMES = [f"class {index}" for index in range(13)]
NAMES[4], NAMES[11] = "floor", "wall"


def render(figure):
    """Pixels uint8[H, W, 3] of the figure as PNG."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=100)
    buffer.seek(0)
    return np.round(255 * matplotlib_image.imread(buffer, format="png")[..., :3]).astype(np.uint8)


def tiles(figure):
    """Pictures on the figure, row by row."""
    return [np.asarray(axes.images[0].get_array()) for axes in figure.axes if axes.images]


def titles(figure):
    return [axes.get_title() for axes in figure.axes if axes.get_title()]


def test_depth_has_one_scale_and_black_where_it_is_missing():
    depth = np.array([[[0.0, np.nan, 1.0, 3.0, 5.0, 9.0, np.inf]]], np.float16)
    painted = paint_scale(depth, (1.0, 5.0), DEPTH.picture.colormap)[0, 0]
    viridis = pyplot.get_cmap("viridis_r")
    expected = [viridis(value, bytes=True)[:3] for value in (0.0, 0.5, 1.0, 1.0, 1.0)]
    np.testing.assert_array_equal(painted[:2], np.zeros((2, 3)))
    np.testing.assert_array_equal(painted[2:], expected)


def test_a_caption_explains_what_is_drawn(make_samples):
    assert "Normals are drawn" in " ".join(captions(make_samples()))
    assert captions(make_samples(tasks=("depth",))) == ["Depth has one scale."]
    assert captions(make_samples(tasks=("segmentation",))) == []


def test_a_strip_has_a_picture_of_each_kind_in_each_row(make_samples):
    samples = make_samples(count=3)
    samples["segmentation"][:] = 4
    samples["predicted_segmentation"][:] = 11
    samples["segmentation"][0, 0, 0] = -1
    figure = strip_figure(samples, NAMES)
    assert titles(figure) == [
        "Image", "True classes", "Predicted classes", "Error", "True depth", "Predicted depth",
        "Error", "True normals", "Predicted normals", "Error",
    ]  # fmt: skip
    pictures = tiles(figure)
    assert len(pictures) == 3 * 10 + 1  # and the key to the normals
    np.testing.assert_array_equal(pictures[0], samples["image"][0])
    np.testing.assert_array_equal(
        pictures[1], SEGMENTATION.picture.paint(samples["segmentation"][0], 13)
    )
    (legend,) = figure.legends
    labels = [text.get_text() for text in legend.get_texts()]
    assert labels == ["floor", "wall", "error: wrong class", "void"]
    scales = {axes.get_xlabel() for axes in figure.axes} - {""}
    assert scales == {"depth / m", "absolute error / m", "angle / °"}


def test_the_rendered_strip_shows_the_class_colours_unchanged(make_samples):
    samples = make_samples(tasks=("segmentation",), count=1)
    samples["image"][:] = 255
    samples["segmentation"].flat[:13] = np.arange(13)
    pixels = render(strip_figure(samples, NAMES)).reshape(-1, 3)
    found = {tuple(colour) for colour in np.unique(pixels, axis=0).tolist()}
    assert {tuple(colour) for colour in COLOURS_13.tolist()} <= found


@pytest.mark.parametrize("task", ["segmentation", "depth", "normals"])
def test_a_strip_of_one_task(make_samples, task):
    figure = strip_figure(make_samples(tasks=(task,)), NAMES)
    assert len(titles(figure)) == 4
    assert len(figure.legends) == (task == "segmentation")
    scales = [axes.get_xlabel() for axes in figure.axes if axes.get_xlabel()]
    assert len(scales) == {"segmentation": 0, "depth": 2, "normals": 1}[task]
    render(figure)


def test_classes_beyond_the_names_keep_their_own_colours(make_samples):
    samples = make_samples(tasks=("segmentation",), count=1)
    samples["segmentation"][:] = 9
    samples["predicted_segmentation"][:] = 2
    figure = strip_figure(samples, NAMES[:4])
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [
        "class 2", "class 9", "error: wrong class", "void"
    ]  # fmt: skip
    np.testing.assert_array_equal(tiles(figure)[1][0, 0], class_colours(10)[9])


def test_values_that_overflow_are_drawn_all_the_same(make_samples):
    samples = {name: array.astype(np.float64) for name, array in make_samples(count=1).items()}
    samples["image"] = samples["image"].astype(np.uint8)
    for name in ("segmentation", "predicted_segmentation"):
        samples[name] = samples[name].astype(np.int8)
    for name in ("depth", "predicted_depth", "normals", "predicted_normals"):
        samples[name].flat[:4] = [1e308, -1e308, np.inf, np.nan]
    render(strip_figure(samples, NAMES))


def test_classes_without_names_are_numbered_and_rows_limited(make_samples):
    samples = make_samples(tasks=("segmentation",), count=7)
    samples["segmentation"][:] = 0
    samples["predicted_segmentation"][:] = 2
    figure = strip_figure(samples)
    assert len(tiles(figure)) == 6 * 4
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == ["class 0", "class 2", "error: wrong class", "void"]


def test_predictions_without_labels_have_no_errors_and_no_void(make_samples):
    samples = make_samples(count=1)
    predictions = {name: x for name, x in samples.items() if name not in TASKS}
    predictions["predicted_segmentation"][:] = 2
    figure = strip_figure(predictions, NAMES)
    assert titles(figure) == [
        "Image", "Predicted classes", "Predicted depth", "Predicted normals"
    ]  # fmt: skip
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [NAMES[2]]
    assert {axes.get_xlabel() for axes in figure.axes} - {""} == {"depth / m"}


def test_errors_are_white_where_there_are_none_and_black_without_a_label():
    """Depth errors of 0, 0.5 and 1 m of a largest label of 4 m, in float64."""
    true = np.array([[[4.0, 2.0, 2.0, 0.0]]])
    predicted = np.array([[[4.0, 2.5, 1.0, 3.0]]])
    samples = {"image": np.zeros((1, 1, 4, 3), np.uint8)}
    samples |= {"depth": true.astype(np.float16), "predicted_depth": predicted.astype(np.float16)}
    painted = paint_errors(DEPTH.errors, "depth", samples)[0, 0]
    purples = pyplot.get_cmap("RdPu")
    expected = [purples(x, bytes=True)[:3] for x in (0.0, 0.5, 1.0)]
    np.testing.assert_array_equal(painted, [*expected, (0, 0, 0)])


def test_the_colour_of_wrong_classes_is_far_from_those_of_all_classes():
    """In CIELAB, as LittleCMS converts; black is void, and white is right."""
    wrong = pyplot.get_cmap(ERROR_COLORMAP)(1.0, bytes=True)[:3]
    others = [*COLOURS_13.tolist(), (0, 0, 0), (255, 255, 255)]
    profiles = [ImageCms.createProfile(space) for space in ("sRGB", "LAB")]
    pixels = Image.fromarray(np.array([[wrong, *others]], np.uint8))
    lab = np.asarray(ImageCms.profileToProfile(pixels, *profiles, outputMode="LAB"))[0]
    lightness = lab[:, :1] * (100 / 255)
    colour = lab[:, 1:].astype(np.int8)
    found = np.concatenate([lightness, colour], axis=1)
    assert np.linalg.norm(found[1:] - found[0], axis=1).min() > 50


def test_rows_are_chosen_and_have_texts_while_the_scale_is_that_of_all(make_samples):
    samples = make_samples(tasks=("depth",), count=8)
    samples["depth"][7, 0, 0] = 40.0
    figure = strip_figure(samples, rows=[2, 6], texts=["two", "six"])
    found = [axes for axes in figure.axes if axes.images][::4]
    for axes, row, text in zip(found, (2, 6), ("two", "six"), strict=True):
        np.testing.assert_array_equal(axes.images[0].get_array(), samples["image"][row])
        assert [label.get_text() for label in axes.texts] == [text]
    (scale,) = (axes for axes in figure.axes if axes.get_xlabel() == "depth / m")
    assert scale.get_xlim()[1] == 40.0


def test_single_task_samples_of_the_same_images_make_one_strip(write_run):
    runs = [read_run(write_run(t, tasks=(t,), pictures=True)) for t in ("depth", "normals")]
    (merged,) = merge_samples(runs)
    assert set(merged) == {"image", "depth", "predicted_depth", "normals", "predicted_normals"}
    other = runs[1]._replace(samples={"image": runs[1].samples["image"] + 1})
    assert len(merge_samples([runs[0], other])) == 2
