"""Depth of a folder as files of floats and of whole numbers."""

import shutil
import sys

import numpy as np
import OpenEXR
import pytest
from PIL import Image

from tests import fakes
from tests.datasets import folder_files
from tests.datasets.folder_files import HEIGHT, WIDTH

EXAMPLES = [fakes.example(i, height=HEIGHT, width=WIDTH) for i in range(3)]
METRES = EXAMPLES[0]["depth"].astype(np.float32)
DEPTH = "depth/train/train0000"


@pytest.fixture
def root(tmp_path):
    root = tmp_path / "mine"
    folder_files.write(root, {"train": EXAMPLES[:2], "val": EXAMPLES[2:]}, fakes.CLASSES)
    for name in ("masks", "normals"):
        shutil.rmtree(root / name)
    (root / f"{DEPTH}.npy").unlink()
    return root


def prepared(root, text="folder"):
    return folder_files.prepared(root, text)["train"].source[0]["depth"]


def save_exr(path, **channels):
    header = {"compression": OpenEXR.ZIP_COMPRESSION, "type": OpenEXR.scanlineimage}
    with OpenEXR.File(header, channels) as file:
        file.write(str(path))


@pytest.mark.parametrize(
    "channels",
    [
        {"V": METRES},
        {"Y": METRES.astype(np.float16)},
        {"Z": METRES, "A": METRES * 0},
        {"Z": np.rint(METRES * 1000).astype(np.uint32)},
    ],
    ids=["V", "half", "Z", "whole numbers"],
)
def test_the_channel_of_an_exr_file(root, channels):
    save_exr(root / f"{DEPTH}.exr", **channels)
    np.testing.assert_array_equal(prepared(root), EXAMPLES[0]["depth"])


@pytest.mark.parametrize(
    ("suffix", "array"),
    [
        ("TIF", METRES),
        ("tiff", np.rint(METRES * 1000).astype(np.uint16)),
        ("tiff", np.rint(METRES * 1000).astype(np.int32)),
        ("PNG", np.rint(METRES * 1000).astype(np.uint16)),
        ("npy", METRES.astype(np.float64)),
        ("npy", METRES[..., None]),
        ("npy", np.rint(METRES * 1000).astype(np.int64)),
    ],
)
def test_floats_are_metres_and_whole_numbers_are_divided(root, suffix, array):
    path = root / f"{DEPTH}.{suffix}"
    np.save(path, array) if suffix == "npy" else Image.fromarray(array).save(path)
    np.testing.assert_array_equal(prepared(root), EXAMPLES[0]["depth"])


@pytest.mark.parametrize("metres", [0.3, 80.0, 250.0, 1000.0])
def test_the_depth_of_rooms_and_of_streets_is_allowed(root, metres):
    depth = np.full((HEIGHT, WIDTH), metres, np.float32)
    Image.fromarray(depth).save(root / f"{DEPTH}.tif")
    np.testing.assert_array_equal(prepared(root), depth.astype(np.float16))


def test_a_single_file_in_millimetres_is_refused(root):
    Image.fromarray(METRES * 2000).save(root / f"{DEPTH}.tif")
    with pytest.raises(ValueError, match=rf"{DEPTH}\.tif has a median of 2000, .*divide them by"):
        prepared(root)


def test_whole_numbers_with_a_wrong_scale_are_refused(root):
    Image.fromarray(np.rint(METRES * 2000).astype(np.uint16)).save(root / f"{DEPTH}.png")
    with pytest.raises(ValueError, match=rf"{DEPTH}\.png has a median .* by depth_scale=1, "):
        prepared(root, "folder:depth_scale=1")


def exr_of_colours(path):
    save_exr(path, RGB=np.stack(3 * [METRES], axis=-1))


def exr_cut_off(path):
    save_exr(path, Z=METRES)
    path.write_bytes(path.read_bytes()[:-20])


def exr_without_end(path):
    far = METRES.copy()
    far[3, 3] = 1e10
    save_exr(path, Z=far)


WRONG = {
    "colours": (
        exr_of_colours,
        "exr",
        "has the channels B, G, R, where depth is a single",
    ),
    "cut off": (exr_cut_off, "exr", "can't be read as OpenEXR: it is damaged or of another format"),
    "no EXR": (lambda path: path.write_text("x" * 99), "exr", "can't be read as OpenEXR"),
    "the sky of a renderer": (exr_without_end, "exr", "holds the depth 1e+10"),
    "infinity": (
        lambda path: save_exr(path, Z=METRES + np.inf),
        "exr",
        "holds NaN or infinite values: a missing depth is 0",
    ),
    "JPEG": (
        lambda path: Image.new("L", (WIDTH, HEIGHT)).save(path),
        "jpg",
        "is in none of the formats that are read from depth/: .png, .npy, .tif, .tiff, .exr",
    ),
    "TIFF of colours": (
        lambda path: Image.new("RGB", (WIDTH, HEIGHT)).save(path),
        "tif",
        "is uint8[16, 24, 3], where one number per pixel is expected",
    ),
    "TIFF of 8 bits": (
        lambda path: Image.new("L", (WIDTH, HEIGHT)).save(path),
        "tif",
        "is uint8[16, 24]: 8 bits are too few for depth",
    ),
}


@pytest.mark.parametrize("mistake", WRONG)
def test_mistakes_are_named(root, mistake):
    make, suffix, text = WRONG[mistake]
    path = root / f"{DEPTH}.{suffix}"
    make(path)
    with pytest.raises(ValueError) as error:
        prepared(root)
    assert f"{path} {text}" in str(error.value)


def test_without_the_package_its_name_is_said(root, monkeypatch):
    save_exr(root / f"{DEPTH}.exr", Z=METRES)
    monkeypatch.setitem(sys.modules, "OpenEXR", None)
    with pytest.raises(ValueError, match=r"run pip install -e '\.\[exr\]' in the clone"):
        prepared(root)
