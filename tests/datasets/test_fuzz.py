"""Readers of data sets on damaged files: either correct examples or an error in one line."""

import io
import itertools
import json
import tempfile
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from datasets import checking
from datasets.cityscapes import cityscapes_dataset_builder as cityscapes
from datasets.cityscapes import mtan_folders as cityscapes_mtan
from datasets.cityscapes import official_files
from datasets.folder import folder_dataset_builder as folder
from datasets.folder import labels
from datasets.kitti_stereo import kitti_stereo_dataset_builder as kitti
from datasets.nyu_depth_v2 import classes, labeled_mat, mtan_folders
from datasets.nyu_depth_v2 import nyu_depth_v2_dataset_builder as nyu
from tests import fakes
from tests.datasets import cityscapes_files, folder_files, test_kitti_stereo
from tests.datasets.fuzzing import BOUNDED, arrays, assert_right_or_refused, damage, good
from tests.datasets.nyu_files import image, plane_depth, quarters, write_mtan

HEIGHT, WIDTH = 6, 8


@pytest.fixture(scope="module")
def few():
    """Replaces the official sets by a few small frames."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kitti, "PAIRS", 5)
        patch.setattr(classes, "NUM_FRAMES", 3)
        patch.setattr(nyu, "NORMALS_RADII", (3, 2, 1))
        # Each file that is not the official one is reported.
        patch.setattr(labeled_mat, "print", lambda *_: None, raising=False)
        small = {
            name: ((*s[:-2], 32, 24), kind) for name, (s, kind) in labeled_mat._DATASETS.items()
        }
        patch.setattr(labeled_mat, "_DATASETS", small)
        yield


# The mtan folders

COUNTS = {"train": 2, "test": 2}


def read_mtan(root):
    mtan_folders.check(root, COUNTS)
    for split, count in COUNTS.items():
        for _, frame in good(mtan_folders.readings(root, split, count)):
            yield nyu.make_example(frame, HEIGHT, WIDTH)


@pytest.fixture(scope="module")
def mtan(tmp_path_factory):
    return write_mtan(tmp_path_factory.mktemp("mtan"), HEIGHT, WIDTH, {"train": 2, "val": 2})


def replaced(path, content, read, num_classes=13):
    """Reads with other content in a file and restores the file afterwards."""
    right = path.read_bytes()
    try:
        path.write_bytes(content(right))
        name = str(path)
        names = [name, str(path.parent)]
        return assert_right_or_refused(read, num_classes=num_classes, names=names)
    finally:
        path.write_bytes(right)


MTAN_FILES = st.sampled_from(
    [f"{split}/{kind}/0.npy" for split in ("train", "val") for kind in mtan_folders._KINDS]
)


@BOUNDED
@given(name=MTAN_FILES, content=damage())
def test_damaged_mtan_files(mtan, name, content):
    replaced(mtan / name, content, lambda: read_mtan(mtan))


@BOUNDED
@given(name=MTAN_FILES, array=arrays(HEIGHT, WIDTH), pickled=st.booleans())
def test_other_arrays_in_mtan_files(mtan, name, array, pickled):
    buffer = io.BytesIO()
    np.save(buffer, array.astype(object) if pickled else array)
    read = replaced(mtan / name, lambda _: buffer.getvalue(), lambda: read_mtan(mtan))
    assert not (read and pickled)


def test_right_mtan_files_are_read(mtan):
    assert assert_right_or_refused(lambda: read_mtan(mtan), num_classes=13, names=[])
    assert len(list(read_mtan(mtan))) == 4


# The official file


def write_small_mat(path, **replaced):
    contents = {
        "images": image(24, 32).transpose(2, 1, 0),
        "depths": plane_depth(24, 32).T,
        "labels": quarters(24, 32, 21, 11, 157, 0).T,
    }
    with h5py.File(path, "w") as file:
        for name, array in contents.items():
            array = np.stack([array] * 3)
            if name in replaced:
                array = replaced[name](array)
            file.create_dataset(name, data=array, compression="gzip", fletcher32=array.ndim > 0)
    return path


def read_mat(path):
    labeled_mat.check(path)
    for _, frame in good(labeled_mat.readings(path, [2, 0, 1], 13)):
        yield nyu.make_example(frame, 12, 16)


@BOUNDED
@given(content=damage())
def test_damaged_official_files(few, content):
    with tempfile.TemporaryDirectory() as folder:
        path = write_small_mat(Path(folder) / labeled_mat.FILENAME)
        replaced(path, content, lambda: read_mat(path))


@BOUNDED
@given(
    name=st.sampled_from(["images", "depths", "labels"]),
    array=arrays(32, 24).filter(lambda array: array.ndim and array.dtype.kind in "uifb"),
)
def test_other_arrays_in_official_files(few, name, array):
    with tempfile.TemporaryDirectory() as folder:
        stacked = np.stack([array] * 3) if array.size else array
        compressible = stacked if stacked.size else np.zeros((3, 1), array.dtype)
        path = write_small_mat(
            Path(folder) / labeled_mat.FILENAME, **{name: lambda _: compressible}
        )
        assert_right_or_refused(lambda: read_mat(path), num_classes=13, names=[str(path)])


# KITTI


@pytest.fixture(scope="module")
def pairs(few, tmp_path_factory):
    root = tmp_path_factory.mktemp("kitti")
    for number in range(kitti.PAIRS):
        test_kitti_stereo.write_pair(root / "training", number)
    return root


def read_kitti(manual_dir):
    root = kitti.find_root(manual_dir)
    kitti.check(root)
    for _, pair in good(kitti.readings(root, list(range(kitti.PAIRS)))):
        yield kitti.make_example(pair, 24, 48)


PARTS = st.integers(0, 3)


@BOUNDED
@given(part=PARTS, content=damage())
def test_damaged_kitti_files(pairs, part, content):
    path = kitti.paths(pairs / "training", 2)[part]
    before = list(read_kitti(pairs))[2]
    right, after = path.read_bytes(), []
    wrong = content(right)
    read = replaced(path, lambda _: wrong, lambda: after.extend(read_kitti(pairs)) or after)
    if read and part < 3:
        # What is taken is what was stored, since a PNG has checksums.
        for name, array in before.items():
            np.testing.assert_array_equal(after[2][name], array)


@BOUNDED
@given(
    part=st.integers(0, 2),
    mode=st.sampled_from(["1", "L", "LA", "P", "RGB", "RGBA", "I;16"]),
    size=st.sampled_from([(96, 48), (48, 96), (96, 47), (1, 1)]),
    level=st.sampled_from([0, 1, 8, 255, 2048, 65535]),
)
def test_other_images_in_kitti_files(pairs, part, mode, size, level):
    buffer = io.BytesIO()
    deep = mode.startswith("I")
    colour = level if deep else (level % 256,) * len(Image.new(mode, (1, 1)).getbands())
    colour = colour[0] if not deep and len(colour) == 1 else colour
    Image.new(mode, size, colour).save(buffer, format="PNG")
    path = kitti.paths(pairs / "training", 2)[part]
    read = replaced(path, lambda _: buffer.getvalue(), lambda: read_kitti(pairs))
    assert not read or (size == (96, 48) and mode == ("RGB" if part < 2 else "I;16"))


NUMBERS = st.sampled_from(["0", "1", "-1", "80", "nan", "inf", "-inf", "1e300", "1e-300", "x", ""])


@BOUNDED
@given(
    rows=st.lists(
        st.tuples(
            st.sampled_from(["P_rect_02", "P_rect_03", "P_rect_00", "é"]),
            st.integers(0, 13),
            NUMBERS,
        ),
        max_size=3,
    )
)
def test_other_numbers_in_kitti_calibrations(pairs, rows):
    path = kitti.paths(pairs / "training", 2)[3]
    lines = [line.split() for line in path.read_text().splitlines()]
    for (name, place, number), line in itertools.product(rows, lines):
        if line[0] == f"{name}:" and place < len(line) - 1:
            line[place + 1] = number
    text = "\n".join(" ".join(line) for line in lines)
    replaced(path, lambda _: text.encode(), lambda: read_kitti(pairs))


# Cityscapes

ONE = {"train": 1, "test": 1}


def read_cityscapes(root):
    frames = official_files.find(root, ONE, "stereo")
    official_files.check(root, frames, "stereo")
    for split, stems in frames.items():
        for _, frame in good(official_files.readings(root, split, stems, "stereo", 19)):
            yield cityscapes.make_example(frame, 16, 32)


def read_cityscapes_arrays(root):
    cityscapes_mtan.check(root, ONE, 7)
    for split, count in ONE.items():
        for _, frame in good(cityscapes_mtan.readings(root, split, count, 7)):
            yield cityscapes.make_example(frame, HEIGHT, WIDTH)


@pytest.fixture(scope="module")
def city(tmp_path_factory):
    return cityscapes_files.write_official(tmp_path_factory.mktemp("city"), ONE)


@pytest.fixture(scope="module")
def city_arrays(tmp_path_factory):
    root = tmp_path_factory.mktemp("city")
    return cityscapes_files.write_mtan(root, HEIGHT, WIDTH, ONE, classes=(7,))


def part_of(root, folder):
    return next(path for path in (root / folder).rglob("*.*"))


PARTS_OF_CITY = st.sampled_from([part.folder for part in official_files.PARTS["stereo"]])


@BOUNDED
@given(part=PARTS_OF_CITY, content=damage())
def test_damaged_cityscapes_files(city, part, content):
    replaced(part_of(city, part), content, lambda: read_cityscapes(city), num_classes=19)


@BOUNDED
@given(
    group=st.sampled_from(["intrinsic", "extrinsic"]),
    key=st.sampled_from(["fx", "fy", "u0", "v0", "baseline"]),
    value=st.sampled_from([0, -1, 1e300, 10**400, 1e-300, None, True, "1", [], {}, "NaN"]),
)
def test_other_numbers_in_cityscapes_cameras(city, group, key, value):
    def change(right):
        content = json.loads(right)
        content[group][key] = value
        return json.dumps(content).replace('"NaN"', "NaN").encode()

    replaced(part_of(city, "camera"), change, lambda: read_cityscapes(city), num_classes=19)


@BOUNDED
@given(
    kind=st.sampled_from(["image", "label_7", "depth"]),
    array=arrays(HEIGHT, WIDTH),
    split=st.sampled_from(["train", "val"]),
)
def test_other_arrays_in_cityscapes_files(city_arrays, kind, array, split):
    buffer = io.BytesIO()
    np.save(buffer, array)
    path = city_arrays / split / kind / "0.npy"
    replaced(path, lambda _: buffer.getvalue(), lambda: read_cityscapes_arrays(city_arrays), 7)


# A folder of one's own


@pytest.fixture(scope="module", params=["numbers", "colours"])
def mine(request, tmp_path_factory):
    root = tmp_path_factory.mktemp("folder")
    examples = [fakes.example(i, height=12, width=16) for i in range(4)]
    for example in examples:
        example["image_right"] = np.roll(example["image"], -1, axis=1)
        example |= {"intrinsics": np.array([9, 9, 7.5, 5.5]), "baseline": np.array(0.1)}
    parts = {"train": examples[:2], "val": examples[2:]}
    names = [f"class {i}" for i in range(13)]
    folder_files.write(root, parts, names)
    folder_files.write_pairs(root, parts)
    if request.param == "colours":
        folder_files.colour_masks(root, names)
    else:
        (root / "mapping.txt").write_text("\n".join(f"{i} {i}" for i in range(13)))
    colours = np.rint(127.5 * (examples[3]["normals"].astype(np.float32) + 1)).astype(np.uint8)
    (root / "normals/val/val0001.npy").unlink()
    Image.fromarray(colours).save(root / "normals/val/val0001.png")
    (root / "depth/val/val0001.npy").unlink()
    depth = (1000 * examples[3]["depth"].astype(np.float32)).astype(np.uint16)
    Image.fromarray(depth).save(root / "depth/val/val0001.png")
    return root


def read_folder(root):
    chosen = folder.config(root, 12, 16)
    checking.refuse(chosen.files.problems)
    for items in chosen.files.items.values():
        for item in items:
            reading = labels.read(item, chosen.options)
            checking.refuse(reading.problems)
            yield folder.make_example(reading, chosen)


FOLDER_FILES = st.sampled_from(
    [
        "classes.txt",
        "images/train/train0001.png",
        "cameras.txt",
        "mapping.txt",
        "images_right/train/train0001.png",
        "masks/train/train0001.png",
        "depth/train/train0001.npy",
        "depth/val/val0001.png",
        "normals/train/train0001.npy",
        "normals/val/val0001.png",
    ]
)


@BOUNDED
@given(name=FOLDER_FILES, content=damage())
def test_damaged_files_of_a_folder(mine, name, content):
    # Of the classes in the masks, no file with fewer names is accepted.
    right = (mine / name).read_bytes()
    try:
        (mine / name).write_bytes(content(right))
        # What classes.txt or mapping.txt lack is missed by what refers to them.
        names = [str(mine / place) for place in (name, "mapping.txt", "masks", "images")]
        assert_right_or_refused(lambda: read_folder(mine), num_classes=999, names=names)
    finally:
        (mine / name).write_bytes(right)


@BOUNDED
@given(
    name=st.sampled_from(["depth/train/train0001.npy", "normals/train/train0001.npy"]),
    array=arrays(12, 16),
)
def test_other_arrays_in_a_folder(mine, name, array):
    buffer = io.BytesIO()
    np.save(buffer, array)
    replaced(mine / name, lambda _: buffer.getvalue(), lambda: read_folder(mine))
