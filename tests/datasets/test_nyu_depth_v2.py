"""The builder of NYU-Depth V2 on made-up files in the two layouts."""

import hashlib
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

from datasets import resizing
from datasets.nyu_depth_v2 import classes, labeled_mat, mtan_folders
from datasets.nyu_depth_v2 import nyu_depth_v2_dataset_builder as nyu
from datasets.nyu_depth_v2.frame import INTRINSICS
from tests.datasets.fuzzing import good
from tests.datasets.nyu_files import (
    BED,
    PLANE,
    builder,
    image,
    one_line,
    plane_depth,
    prepare_some,
    quarters,
    write_mat,
    write_mtan,
)

pytestmark = pytest.mark.usefixtures("optimised")

# Digests of mapClass in classMapping40.mat (uint8) and of trainNdxs, testNdxs (uint16, 1-based)
# in splits.mat.
CLASS_40_SHA256 = "9c75cdc1ff39748751966fe8d8493b1d2ca3acda9ec861b2f70f52221d65a7bd"
TRAIN_SHA256 = "3e06f93e72a123ac410290a2cd39492ab1db8f922e19871ef292ba6f5048c30e"
TEST_SHA256 = "2eeec7e27c622efec02adeaeb4b46566781fffd5e057d100ee98ca977cf0d0a5"
# classMapping13 in class13Mapping.mat.
CLASS_13_OF_40 = (
    12, 5, 6, 1, 4, 9, 10, 12, 13, 6, 8, 6, 13, 10, 6, 13, 6, 7, 7, 5,
    7, 3, 2, 6, 11, 7, 7, 7, 7, 7, 7, 6, 7, 7, 7, 7, 7, 7, 6, 7,
)  # fmt: skip


def sha256(array, dtype):
    return hashlib.sha256(np.asarray(array).astype(dtype).tobytes()).hexdigest()


@pytest.fixture(scope="module")
def mat_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mat")
    write_mat(folder / labeled_mat.FILENAME)
    return folder


# Classes and split


def test_classes_are_the_official_ones():
    of_40, of_13 = classes.class_of_label(40), classes.class_of_label(13)
    assert of_40.dtype == of_13.dtype == np.int8
    assert of_40[0] == of_13[0] == -1
    assert sha256(of_40[1:] + 1, np.uint8) == CLASS_40_SHA256
    np.testing.assert_array_equal(of_13[1:], np.array(CLASS_13_OF_40)[of_40[1:]] - 1)
    assert classes.class_names(13)[of_13[BED]] == classes.class_names(40)[of_40[BED]] == "bed"
    assert (len(classes.class_names(13)), len(classes.class_names(40))) == (13, 40)


def test_split_is_the_official_one():
    split = classes.split_indices()
    assert {name: len(indices) for name, indices in split.items()} == {"train": 795, "test": 654}
    assert sha256(split["train"] + 1, "<u2") == TRAIN_SHA256
    assert sha256(split["test"] + 1, "<u2") == TEST_SHA256


# Resizing


@pytest.mark.parametrize("size", [(288, 384), (96, 128), (61, 47), (480, 640), (500, 700)])
def test_images_resize_as_antialiased_bilinear(size):
    picture = np.random.default_rng(0).uniform(0, 255, (480, 640, 3)).astype(np.float32)
    ours = resizing.resize_image(picture, *size)
    theirs = jax.image.resize(picture, (*size, 3), "linear", antialias=True)
    np.testing.assert_allclose(ours, theirs, atol=0.02)


@pytest.mark.parametrize("size", [(288, 384), (96, 128), (61, 47), (480, 640), (500, 700)])
def test_labels_depth_and_normals_stay_aligned(size):
    numbers = np.arange(480 * 640, dtype=np.int32).reshape(480, 640)
    ours = resizing.resize_nearest(numbers, *size)
    theirs = Image.fromarray(numbers).resize(size[::-1], Image.Resampling.NEAREST)
    # Pillow rounds the same centre in floating point: it may differ where that is a border.
    assert np.mean(ours == np.asarray(theirs)) > 0.9
    stacked = resizing.resize_nearest(np.stack([numbers, -numbers], -1), *size)
    np.testing.assert_array_equal(stacked[..., 0], ours)
    rows, columns = np.divmod(ours, 640)
    row_centres = (np.arange(size[0]) + 0.5) * 480 / size[0]
    assert np.all(np.abs(rows + 0.5 - row_centres[:, None]) < 0.5001)
    assert np.all(np.abs(columns + 0.5 - (np.arange(size[1]) + 0.5) * 640 / size[1]) < 0.5001)


def test_intrinsics_keep_the_corners_of_the_image():
    scaled = resizing.resize_intrinsics(INTRINSICS, (480, 640), 96, 160)
    for (u, v), (small_u, small_v) in (
        ((-0.5, -0.5), (-0.5, -0.5)),
        ((639.5, 479.5), (159.5, 95.5)),
    ):
        ray = (u - INTRINSICS[2]) / INTRINSICS[0], (v - INTRINSICS[3]) / INTRINSICS[1]
        small = (small_u - scaled[2]) / scaled[0], (small_v - scaled[3]) / scaled[1]
        np.testing.assert_allclose(small, ray, rtol=1e-5)


# Configs


def test_config_names():
    assert nyu.config() is nyu.Builder.builder_configs["labeled"]
    assert nyu.config(classes=40) is nyu.Builder.builder_configs["labeled40"]
    assert nyu.config("mtan") is nyu.Builder.builder_configs["mtan"]
    assert nyu.config(height=96, width=128).name == "labeled_96x128"
    assert nyu.config("labeled", 40, 96, 128).name == "labeled40_96x128"
    assert nyu.config("mtan", 13, 96, 128).name == "mtan_96x128"


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ({"layout": "raw"}, "layout"),
        ({"classes": 894}, "classes"),
        ({"layout": "mtan", "classes": 40}, "classes"),
        ({"height": 0}, "height"),
        ({"width": -5}, "width"),
    ],
)
def test_wrong_configs(wanted, message):
    with one_line(ValueError, message):
        nyu.config(**wanted)


# The official file


@pytest.fixture(scope="module")
def labeled(mat_dir, tmp_path_factory):
    made = builder(tmp_path_factory.mktemp("labeled"), height=96, width=128)
    prepare_some(made, mat_dir)
    return made


def test_features(labeled):
    assert list(labeled.info.metadata["class_names"]) == list(classes.NAMES_13)
    example = labeled.as_data_source("train")[0]
    assert {key: (value.shape, value.dtype.name) for key, value in example.items()} == {
        "image": ((96, 128, 3), "uint8"),
        "segmentation": ((96, 128), "int8"),
        "depth": ((96, 128), "float16"),
        "normals": ((96, 128, 3), "float16"),
        "intrinsics": ((4,), "float32"),
    }
    assert "tensorflow" not in sys.modules


def test_orientation_classes_and_void(labeled):
    # Frames 3 and 4 begin the training set, 1 and 2 the test set.
    for split in ("train", "test"):
        source = labeled.as_data_source(split)
        assert len(source) == 2
        for example in source:
            expected = image(480, 640).reshape(96, 5, 128, 5, 3).mean((1, 3))
            assert np.abs(example["image"] - expected).max() < 3
            wanted = quarters(96, 128, 11, 4, 0, 99).astype(np.int8)
            wanted[48:, 64:] = -1
            np.testing.assert_array_equal(example["segmentation"], wanted)


def test_depth_normals_and_intrinsics_agree(labeled):
    example = labeled.as_data_source("test")[1]
    fx, fy, cx, cy = example["intrinsics"]
    np.testing.assert_allclose(example["intrinsics"][:2], INTRINSICS[:2] / 5, rtol=1e-6)
    np.testing.assert_allclose(example["depth"], plane_depth(96, 128), rtol=2e-3)
    normals = example["normals"].astype(np.float64)
    np.testing.assert_allclose(
        normals, np.broadcast_to(PLANE / np.linalg.norm(PLANE), normals.shape), atol=2e-3
    )
    v, u = np.mgrid[:96, :128]
    rays = np.stack([(u - cx) / fx, (v - cy) / fy, np.ones((96, 128))], axis=-1)
    assert np.all(np.sum(normals * rays, axis=-1) < 0)


def test_frames_come_in_the_order_asked_for_with_40_classes(mat_dir):
    path = mat_dir / labeled_mat.FILENAME
    found = list(good(labeled_mat.readings(path, [3, 700, 0], num_classes=40)))
    assert [index for index, _ in found] == [3, 700, 0]
    frame = found[0][1]
    assert frame.segmentation[0, 0] == classes.NAMES_40.index("otherprop")
    assert frame.segmentation[10, 10] == classes.NAMES_40.index("wall")
    assert frame.segmentation[470, 10] == classes.NAMES_40.index("bed")
    empty = found[1][1]
    assert np.all(empty.segmentation == -1) and np.all(empty.depth == 0)


def test_missing_depth_has_no_normal():
    frame = nyu.Frame(
        image=image(480, 640).astype(np.float32),
        segmentation=np.zeros((480, 640), np.int8),
        depth=np.where(np.arange(640) < 320, plane_depth(480, 640), 0),
    )
    example = nyu.make_example(frame, 96, 128)
    present = np.any(example["normals"] != 0, axis=-1)
    np.testing.assert_array_equal(present, example["depth"] > 0)
    assert present[:, :64].all() and not present[:, 64:].any()


def test_another_checksum_is_reported_and_used(mat_dir, monkeypatch, capsys):
    path = mat_dir / labeled_mat.FILENAME
    labeled_mat.check(path)
    assert capsys.readouterr().out.count("\n") == 1
    monkeypatch.setattr(labeled_mat, "SIZE", path.stat().st_size)
    labeled_mat.check(path)
    assert "SHA-256" in capsys.readouterr().out
    monkeypatch.setattr(labeled_mat, "SHA256", hashlib.sha256(path.read_bytes()).hexdigest())
    labeled_mat.check(path)
    assert capsys.readouterr().out == ""


# The mtan folders


def test_mtan(tmp_path):
    made = builder(tmp_path / "data", layout="mtan", height=6, width=8)
    nyu.prepare(made, write_mtan(tmp_path / "mtan"))
    assert {name: made.info.splits[name].num_examples for name in made.info.splits} == {
        "train": 795,
        "test": 654,
    }
    example = made.as_data_source("train")[794]
    np.testing.assert_array_equal(example["image"], image(6, 8))
    np.testing.assert_array_equal(example["segmentation"][:3], quarters(6, 8, 11, 4, 0, 0)[:3])
    np.testing.assert_array_equal(example["segmentation"][3:], [[0] * 4 + [-1] * 4] * 3)
    np.testing.assert_allclose(example["depth"], plane_depth(6, 8), rtol=1e-3)
    np.testing.assert_allclose(example["normals"][3, 3], PLANE, atol=1e-3)
    assert np.all(example["normals"][0, 0] == 0)
    # The first frame of the folder val/, whose depth is halved, begins the test split.
    first, second = (made.as_data_source("test")[i]["depth"].astype(np.float32) for i in (0, 1))
    np.testing.assert_allclose(first, second / 2, rtol=2e-3)
    assert [path.name for path in Path(made.data_dir).parent.iterdir()] == ["1.0.0"]
    nyu.prepare(made, tmp_path / "mtan")  # is done already
    assert "tensorflow" not in sys.modules


def test_mtan_in_another_size(tmp_path):
    write_mtan(tmp_path, 12, 16, counts={"train": 2})
    (_, frame), *_ = good(mtan_folders.readings(tmp_path, "train", 2))
    example = nyu.make_example(frame, 6, 8)
    np.testing.assert_array_equal(example["segmentation"][3:], [[0] * 4 + [-1] * 4] * 3)
    np.testing.assert_allclose(
        example["intrinsics"], resizing.resize_intrinsics(INTRINSICS, (480, 640), 6, 8), rtol=1e-6
    )
    np.testing.assert_allclose(example["depth"], frame.depth[1::2, 1::2], rtol=1e-3)
