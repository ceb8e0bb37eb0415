"""What is wrong with arrays of each kind, and how the problems of many files are reported."""

import numpy as np
import pytest

from datasets import checking

SIZE = (6, 8)


def normals(*vector):
    return np.broadcast_to(np.float32(vector), (*SIZE, 3))


@pytest.mark.parametrize(
    ("values", "phrase"),
    [
        (np.full(SIZE, 3.6), "holds 3.6, which is not a whole number"),
        (np.full(SIZE, 13), "has the label 13 outside -1..12"),
        (np.arange(48).reshape(SIZE) - 5, "has the label -5 and 42 outside -1..12"),
        (np.full(SIZE, np.nan), "NaN or infinite"),
        (np.full(SIZE, 255, np.uint8), "has the label 255 outside"),
        (np.full(SIZE, 2**64 - 1, np.uint64), "outside -1..12"),
    ],
)
def test_wrong_labels(values, phrase):
    (found,) = checking.labels(-1, 12).values(values)
    assert phrase in found


@pytest.mark.parametrize("dtype", ["int8", "int64", "float32", ">f4", ">i2", "float16"])
def test_labels_of_any_numeric_type_are_right(dtype):
    values = (np.arange(48).reshape(SIZE) % 14 - 1).astype(dtype)
    assert checking.labels(-1, 12).problems(values, SIZE) == []


@pytest.mark.parametrize(
    ("values", "phrase"),
    [
        (2431.0, "has a median of 2431, where metres are expected: is it in millimetres?"),
        (243.1, "is it in millimetres?"),
        (0.002, "has a median of 0.002, where metres"),
        (-1.0, "negative depth -1"),
        (np.inf, "NaN or infinite"),
        (np.nan, "NaN or infinite"),
        (0.0, "every pixel is missing"),
    ],
)
def test_wrong_depth(values, phrase):
    (found,) = checking.depth_values(np.full(SIZE, values))
    assert phrase in found


def test_a_single_pixel_can_be_wrong():
    depth = np.full(SIZE, 2.0)
    assert checking.depth_values(depth) == []
    for value, phrase in (
        (99686.4, "holds the depth 99686.4"),
        (-0.1, "negative"),
        (np.nan, "NaN"),
    ):
        wrong = depth.copy()
        wrong[3, 4] = value
        assert phrase in checking.depth_values(wrong)[0]


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", ">f4"])
@pytest.mark.parametrize("metres", [0.4, 2.7, 80.0])
def test_depth_in_metres_is_right(dtype, metres):
    depth = np.full(SIZE, metres, dtype)
    depth[0] = 0
    assert checking.DEPTH.problems(depth, SIZE) == []


@pytest.mark.parametrize(
    ("values", "phrase"),
    [
        (normals(0, 0, -0.3), "length 0.3"),
        (normals(0, 0, -3), "holds 3 in a normal"),
        (normals(0, 1, -1), "a normal of length 1.41"),
        (normals(0, 0, 1), "points away from the camera"),
        (normals(0, 0, 0), "every pixel is missing"),
        (normals(0, np.nan, -1), "NaN or infinite"),
        (normals(0.5, 0.5, 0), "length 0.707"),
        (normals(127, 127, 0), "holds 127 in a normal"),
    ],
)
def test_wrong_normals(values, phrase):
    (found,) = checking.NORMALS.values(values)
    assert phrase in found


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", ">f8"])
def test_normals_shortened_at_edges_are_right(dtype):
    values = normals(0.6, 0, -0.8).astype(dtype)
    values[0] *= 0.7
    values[1] = 0
    assert checking.NORMALS.problems(values, (*SIZE, 3)) == []


@pytest.mark.parametrize(
    ("array", "phrase"),
    [
        (np.zeros((*SIZE, 4)), "is float64[6, 8, 4] instead of float16/float32/float64[6, 8, 3]"),
        (np.zeros((*SIZE, 3), np.uint8), "is uint8[6, 8, 3] instead of"),
        (np.zeros((*SIZE, 3), bool), "is bool[6, 8, 3]"),
        (np.zeros((*SIZE, 3), complex), "is complex128[6, 8, 3]"),
        (np.full((*SIZE, 3), 200.0), "is not in 0..1 but 200..200"),
        (np.full((*SIZE, 3), -0.5), "is not in 0..1 but -0.5..-0.5"),
        (np.full((*SIZE, 3), np.inf), "NaN or infinite"),
    ],
)
def test_wrong_images(array, phrase):
    kind = checking.image(1, ("float16", "float32", "float64"))
    (found,) = kind.problems(array, (*SIZE, 3))
    assert phrase in found


@pytest.mark.parametrize("shape", [(0, 8), (6, 0), (8, 6), (6, 8, 1), (48,), ()])
def test_wrong_shapes(shape):
    assert checking.DEPTH.problems(np.ones(shape), SIZE)
    assert checking.DEPTH.problems(np.ones((0, 8)), (0, 8))


@pytest.mark.parametrize("dtype", ["m8[s]", "M8[s]", "O", "U3", "V4", "?"])
def test_types_that_are_not_numbers_are_refused(dtype):
    assert checking.labels(-1, 12).form(np.dtype(dtype), SIZE, SIZE)


@pytest.mark.parametrize("baseline", [0.0, -0.54, np.nan, np.inf, 540.0, 1e-4])
def test_wrong_baselines(baseline):
    assert "baseline" in checking.baseline_values(baseline)[0]


@pytest.mark.parametrize(
    "intrinsics",
    [
        (0, 80, 47, 23),
        (80, -80, 47, 23),
        (80, 80, 470, 23),
        (80, np.nan, 47, 23),
        (8e5, 80, 47, 23),
    ],
)
def test_wrong_intrinsics(intrinsics):
    assert checking.intrinsics_values(np.array(intrinsics, float), 48, 96)


def test_right_cameras():
    assert checking.baseline_values(0.54) == []
    assert checking.intrinsics_values(np.array([721.5, 721.5, 609.6, 172.9]), 375, 1242) == []


def test_wrong_disparities():
    assert "no disparity" in checking.disparity_values(np.zeros(SIZE))[0]
    assert "8 pixels in an image 8 pixels wide" in checking.disparity_values(np.full(SIZE, 8.0))[0]
    assert checking.disparity_values(np.full(SIZE, 3.5)) == []


# Reports


def test_up_to_ten_problems_are_listed_and_the_others_counted():
    checking.refuse([])
    problems = checking.name("a/0.npy", ["is cut", "is wrong"])
    with pytest.raises(ValueError, match="^a/0.npy is cut; a/0.npy is wrong: fetch it again$"):
        checking.refuse(problems, advice="fetch it again")
    with pytest.raises(ValueError) as caught:
        checking.refuse(f"{index}.npy is cut" for index in range(1010))
    message = str(caught.value)
    assert "\n" not in message
    assert "9.npy is cut; and 1,000 more" in message and "10.npy" not in message


def test_conversion_ends_at_the_first_problem_and_gathers_those_of_all_splits():
    read = []

    def pairs(split, wrong):
        for index in range(4):
            read.append((split, index))
            yield (split, index), [f"{split}/{index} is wrong"] if index in wrong else []

    found = checking.checked({"train": pairs("train", [1, 2]), "test": pairs("test", [3])})
    converted = []
    with pytest.raises(ValueError, match="^train/1 is wrong; train/2 is wrong; test/3 is wrong$"):
        for item in found["train"]:
            converted.append(item)
    assert converted == [("train", 0)]
    assert len(read) == 8


def test_items_without_problems_come_one_by_one():
    found = checking.checked({"train": [(1, []), (2, [])], "test": [(3, [])]})
    assert {split: list(items) for split, items in found.items()} == {"train": [1, 2], "test": [3]}
