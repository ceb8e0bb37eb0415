"""Colours of labels, scales and keys."""

import numpy as np
import pytest

from mtl_jax.tasks import DEPTH, NORMALS, SEGMENTATION, class_colours


@pytest.mark.parametrize("classes", [13, 40])
def test_segmentation_has_exactly_the_class_colours(classes):
    labels = np.arange(-1, classes).reshape(1, 1, -1).astype(np.int8)
    painted = SEGMENTATION.picture.paint(labels, classes)
    assert painted.dtype == np.uint8
    np.testing.assert_array_equal(painted[0, 0, 0], [0, 0, 0])
    np.testing.assert_array_equal(painted[0, 0, 1:], class_colours(classes))


@pytest.mark.parametrize(
    ("normal", "colour"),
    [
        ((0, 0, -1), (128, 128, 255)),  # a wall seen from the front
        ((0, -1, 0), (128, 255, 128)),  # the floor, facing up
        ((1, 0, 0), (255, 128, 128)),  # a wall on the left, facing right
        ((0, 1, 0), (128, 0, 128)),  # the ceiling
        ((0, 0, 0), (0, 0, 0)),
        ((np.nan, np.nan, np.nan), (0, 0, 0)),
    ],
)
def test_normals_point_right_up_and_to_the_viewer(normal, colour):
    painted = NORMALS.picture.paint(np.array([[normal]], np.float16))
    np.testing.assert_array_equal(painted, [[colour]])


def test_the_key_shows_each_normal_where_it_points():
    key = NORMALS.picture.key(101)
    np.testing.assert_array_equal(key[0, 0], [255, 255, 255])
    np.testing.assert_array_equal(key[50, 50], [128, 128, 255])
    up, right = key[3, 50].astype(int), key[50, 97].astype(int)
    assert up[1] > 240 > 140 > up[0]
    assert right[0] > 240 > 140 > right[1]


def test_depth_range_is_that_of_the_truth():
    predicted = np.full((1, 1, 3), 50.0)
    limits = DEPTH.picture.limits
    assert limits(np.array([[[0.0, 2.0, 6.0]]]), predicted) == (2, 6)
    assert limits(np.zeros((1, 1, 3)), np.array([[[1.0, 3.0]]])) == (1, 3)
    assert limits(np.zeros(0), np.zeros(0)) == (0, 1)


def test_colours_of_13_classes_differ_and_none_is_the_black_of_void():
    colours = {tuple(colour) for colour in class_colours(13).tolist()}
    assert len(colours) == 13
    assert (0, 0, 0) not in colours


def test_other_colours_are_those_of_pascal_voc():
    colours = class_colours(40)
    # Aeroplane, bicycle, bird, boat, bottle and tv of Pascal VOC's published colour map.
    voc = {1: (128, 0, 0), 2: (0, 128, 0), 3: (128, 128, 0), 4: (0, 0, 128), 5: (128, 0, 128)}
    voc[20] = (0, 64, 128)
    for index, colour in voc.items():
        assert tuple(colours[index - 1].tolist()) == colour
    assert len({tuple(colour) for colour in colours.tolist()}) == 40


def test_words_for_a_pixel():
    names = ("bed", "floor")
    assert SEGMENTATION.picture.words(np.int32(1), names) == "floor"
    assert SEGMENTATION.picture.words(np.int32(-1), names) == "void"
    assert DEPTH.picture.words(np.float32(2.345), names) == "2.35 m"
    for missing in (0.0, np.nan):
        assert DEPTH.picture.words(np.float32(missing), names) == "unknown"
    vector = np.array([0.6, 0.0, -0.8], np.float32)
    assert NORMALS.picture.words(vector, names) == "(0.60, 0.00, −0.80)"
