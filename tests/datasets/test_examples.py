"""Examples of one's own: what is stored of arrays, and what is said about wrong ones."""

import re
from pathlib import Path

import numpy as np
import pytest

import datasets
from datasets import examples
from datasets.examples import Examples
from mtl_jax import data
from mtl_jax.tasks import select
from tests import fakes
from tests.datasets import folder_files
from tests.docs import pages

HEIGHT, WIDTH = 16, 24
TRAIN = [fakes.example(i, height=HEIGHT, width=WIDTH) for i in range(4)]
TEST = [fakes.example(100 + i, height=HEIGHT, width=WIDTH) for i in range(2)]
MINE = Examples(TRAIN, TEST, fakes.CLASSES)


def prepared(chosen, tmp_path, **options):
    """Returns the splits of the set that is prepared from examples."""
    made = datasets.builder(chosen, data_dir=tmp_path, **options)
    datasets.prepare(made)
    return data.open_splits(made)


def without(example, *keys):
    return {key: value for key, value in example.items() if key not in keys}


def assert_equal(example, expected):
    assert set(example) == set(expected)
    for name in expected:
        assert example[name].dtype == expected[name].dtype, name
        np.testing.assert_array_equal(example[name], expected[name], err_msg=name)


def test_examples_come_back_as_they_are(tmp_path, capsys):
    splits = prepared(MINE, tmp_path)
    for split, given in (("train", TRAIN), ("test", TEST)):
        assert len(splits[split]) == len(given)
        for i, expected in enumerate(given):
            assert_equal(splits[split].source[i], expected)
    assert splits["train"].class_names == fakes.CLASSES
    printed = capsys.readouterr().out
    assert "examples: 4 images to train on and 2 to test on, stored at 16x24 pixels" in printed
    assert "depth: labels of 4 of 4 images of train (100%) and 2 of 2 images of test" in printed


def test_other_types_of_the_same_numbers(tmp_path):
    first = TRAIN[0]
    other = {
        "image": first["image"] / 255,
        "segmentation": first["segmentation"].astype(np.int64),
        "depth": first["depth"].astype(np.float64),
        "normals": 0.95 * first["normals"].astype(np.float32),
        "intrinsics": first["intrinsics"].tolist(),
    }
    splits = prepared(Examples([other], TEST, list(fakes.CLASSES)), tmp_path)
    assert_equal(splits["train"].source[0], first)


def test_normals_of_two_surfaces_are_missing(tmp_path):
    mixed = TRAIN[0]["normals"].astype(np.float32)
    mixed[10] = (0, 0.3, -0.3)  # as the mean of opposite walls and a floor
    mixed[11] = (0, 0, -1e-9)
    given = TRAIN[0] | {"normals": mixed}
    (found,) = prepared(Examples([given], TEST, fakes.CLASSES), tmp_path)["train"].source
    assert np.all(found["normals"][10:12] == 0)
    np.testing.assert_array_equal(found["normals"][:10], TRAIN[0]["normals"][:10])
    np.testing.assert_array_equal(found["normals"][12:], TRAIN[0]["normals"][12:])


def test_two_preparations_write_the_same_bytes(tmp_path):
    for name in ("one", "other"):
        prepared(MINE, tmp_path / name)
    one, other = (
        {path.name: path.read_bytes() for path in (tmp_path / name).rglob("*.array_record*")}
        for name in ("one", "other")
    )
    assert one == other and len(one) == 2


def test_what_is_left_out_is_missing(tmp_path, capsys):
    given = [TRAIN[0], without(TRAIN[1], "segmentation"), {"image": TRAIN[2]["image"]}]
    found = prepared(Examples(given, TEST, fakes.CLASSES), tmp_path)["train"].source
    assert np.all(found[1]["segmentation"] == -1) and np.all(found[2]["segmentation"] == -1)
    assert np.all(found[2]["depth"] == 0) and np.all(found[2]["normals"] == 0)
    np.testing.assert_array_equal(found[1]["depth"], TRAIN[1]["depth"])
    assert np.all(found[2]["intrinsics"] == 0)
    assert "segmentation: labels of 1 of 3 images of train (33%)" in capsys.readouterr().out


def test_the_error_of_a_task_that_needs_cameras_says_where_they_go(tmp_path):
    plain = [without(example, "intrinsics") for example in TRAIN]
    normals = select(["normals"], normals_source="depth")
    for given, has_cameras in ((TRAIN, True), (plain, False)):
        made = datasets.builder(MINE._replace(train=given), data_dir=tmp_path)
        outline = datasets.outline(made)
        assert ("intrinsics" in outline.entries) == has_cameras
        if not has_cameras:
            with pytest.raises(ValueError, match="or give the examples intrinsics"):
                data.check_labels(outline.entries, normals, advice=outline.advice)
        else:
            data.check_labels(outline.entries, normals, advice=outline.advice)


def test_the_kinds_of_labels_can_be_named(tmp_path):
    given = [{"image": TRAIN[0]["image"]}, without(TRAIN[1], "normals", "segmentation")]
    chosen = Examples(given, [without(TEST[0], "normals", "segmentation")], labels=["depth"])
    found = prepared(chosen, tmp_path)["train"].source
    assert set(found[0]) == {"image", "depth", "intrinsics"}
    assert np.all(found[0]["depth"] == 0)
    np.testing.assert_array_equal(found[1]["depth"], TRAIN[1]["depth"])


def test_images_of_other_sizes_are_stored_as_those_of_a_folder(tmp_path):
    """The middle of each, resized: the same pixels as for the same images in files."""
    sizes = [(16, 24), (32, 62), (21, 18), (50, 30)]
    given = [fakes.example(i, height=h, width=w) for i, (h, w) in enumerate(sizes)]
    given = [without(example, "intrinsics") for example in given]
    folder_files.write(tmp_path / "files", {"train": given, "val": TEST}, fakes.CLASSES)
    own = prepared(Examples(given, TEST, fakes.CLASSES), tmp_path, image_size=(16, 24))
    made = datasets.builder(
        "folder", image_size=(16, 24), data_dir=tmp_path, folder=tmp_path / "files"
    )
    datasets.prepare(made)
    files = data.open_splits(made)
    for i in range(len(sizes)):
        assert_equal(own["train"].source[i], files["train"].source[i])


@pytest.mark.parametrize("channels", [1, 4])
def test_images_of_other_channels(tmp_path, channels):
    images = np.random.default_rng(0).integers(0, 256, (6, HEIGHT, WIDTH, channels), np.uint8)
    made = [
        {**without(example, "image"), "image": image}
        for example, image in zip((*TRAIN, *TEST), images, strict=True)
    ]
    chosen = Examples(made[:4], made[4:], fakes.CLASSES)
    outline = datasets.outline(datasets.builder(chosen, data_dir=tmp_path))
    assert outline.channels == channels
    splits = prepared(chosen, tmp_path)
    for number, expected in enumerate(images[:4]):
        np.testing.assert_array_equal(splits["train"].source[number]["image"], expected)


def test_the_nearest_depth_of_a_sensor_is_not_missing(tmp_path):
    image = np.full((HEIGHT, WIDTH, 4), 0.5)
    image[:4, :, 3] = 0
    image[4:8, :, 3] = 0.001  # 0.25 m of 250 m
    image[8:12, :, 3] = 1
    given = [{"image": image, "depth": np.ones((HEIGHT, WIDTH))}]
    test = [given[0] | {"image": image / 2}]
    (found,) = prepared(Examples(given, test), tmp_path)["train"].source
    rows = found["image"][..., 3][::4, 0]
    np.testing.assert_array_equal(rows, [0, 1, 255, 128])


def test_all_images_have_the_channels_of_the_first(tmp_path, capsys):
    grey = {**TRAIN[1], "image": TRAIN[1]["image"][..., :1]}
    flat = {**TRAIN[2], "image": TRAIN[2]["image"][..., 0]}
    with pytest.raises(ValueError, match="2 problems"):
        prepared(Examples([TRAIN[0], grey, flat], TEST, fakes.CLASSES), tmp_path)
    printed = capsys.readouterr().out
    assert (
        "train example 1: image is uint8[16, 24, 1] instead of uint8 or float [H, W, 3]" in printed
    )
    assert "train example 2: image is uint8[16, 24] instead" in printed


def test_stereo_pairs(tmp_path):
    pair = {"image_right": TRAIN[1]["image"], "baseline": 0.1}
    given = [TRAIN[0] | pair, TRAIN[2]]
    found = prepared(Examples(given, [TEST[0] | pair], fakes.CLASSES), tmp_path)["train"].source
    np.testing.assert_array_equal(found[0]["image_right"], TRAIN[1]["image"])
    assert found[0]["baseline"] == np.float32(0.1)
    # The stereo loss ignores images of baseline 0.
    assert found[1]["baseline"] == 0 and np.all(found[1]["image_right"] == 0)


class Broken:
    """A split with one item that can't be read."""

    def __len__(self):
        return 4

    def __getitem__(self, number):
        if number == 2:
            raise OSError("file 2\nis gone")
        return TRAIN[number]


def changed(**arrays):
    """Returns a set whose third training example has other arrays."""
    return MINE._replace(train=[*TRAIN[:2], TRAIN[2] | arrays, TRAIN[3]])


def filled(value, dtype=np.float32, shape=(HEIGHT, WIDTH)):
    return np.full(shape, value, dtype)


WRONG = {
    "a class out of range": (
        changed(segmentation=filled(3, np.uint8)),
        "train example 2: segmentation has the label 3 outside -1..2, where -1 = no label",
    ),
    "classes as floats": (
        changed(segmentation=filled(1.0)),
        "train example 2: segmentation is float32[16, 24] instead of",
    ),
    "a mask of another size": (
        changed(segmentation=filled(1, np.int8, (8, 12))),
        "train example 2: segmentation is int8[8, 12] instead of",
    ),
    "millimetres": (
        changed(depth=filled(2431)),
        "train example 2: depth has a median of 2431, where metres are expected: is it in milli",
    ),
    "depth in integers": (
        changed(depth=filled(2431, np.uint16)),
        "train example 2: depth is uint16[16, 24] instead of float[16, 24]: depth is in metres",
    ),
    "negative depth": (changed(depth=filled(-1)), "train example 2: depth holds the negative"),
    "depth that is no number": (changed(depth=filled(np.nan)), "train example 2: depth holds NaN"),
    "colours to 255 as floats": (
        changed(image=filled(200.0, shape=(HEIGHT, WIDTH, 3))),
        "train example 2: image is not in 0..1 but 200..200: colours from 0 to 255 are uint8",
    ),
    "a grey image": (
        changed(image=filled(1, np.uint8)),
        "train example 2: image is uint8[16, 24] instead of uint8 or float [H, W, 3]",
    ),
    "long normals": (
        changed(normals=filled(-2, shape=(HEIGHT, WIDTH, 3))),
        "train example 2: normals holds 2 in a normal",
    ),
    "normals away from the camera": (
        changed(normals=np.tile(np.float32([0, 0, 1]), (HEIGHT, WIDTH, 1))),
        "train example 2: normals points away from the camera",
    ),
    "intrinsics as a matrix": (
        changed(intrinsics=np.eye(3)),
        "train example 2: intrinsics is float64[3, 3] instead of float[4]: fx, fy, cx, cy",
    ),
    "a focal length of 0": (changed(intrinsics=np.zeros(4)), "train example 2: intrinsics has the"),
    "a key that is unknown": (
        changed(mask=filled(1, np.int8)),
        "train example 2: mask is unknown: choose from image, segmentation",
    ),
    "a kind that the first lacks": (
        MINE._replace(
            train=[without(TRAIN[0], "depth"), TRAIN[1]], test=[without(TEST[0], "depth")]
        ),
        "train example 1: depth is not among the labels of the set",
    ),
    "one view of a pair": (
        MINE._replace(
            train=[
                TRAIN[0] | {"image_right": TRAIN[3]["image"], "baseline": 0.1},
                TRAIN[1] | {"baseline": 0.1},
            ]
        ),
        "train example 1: a stereo pair has no image_right",
    ),
    "the same view twice": (
        MINE._replace(
            train=[TRAIN[0] | {"image_right": TRAIN[3]["image"], "baseline": 0.1}],
            test=[TEST[0] | {"image_right": TEST[0]["image"], "baseline": 0.1}],
        ),
        "test example 0: image_right shows the same as the left view",
    ),
    "a pair without a camera": (
        MINE._replace(
            train=[TRAIN[0] | {"image_right": TRAIN[3]["image"], "baseline": 0.1}],
            test=[
                without(TEST[0], "intrinsics") | {"image_right": TRAIN[2]["image"], "baseline": 1}
            ],
        ),
        "test example 0: a stereo pair has no intrinsics",
    ),
    "no image": (changed(image=None), "train example 2 has no image"),
    "no dict": (MINE._replace(train=[*TRAIN, (1, 2)]), "train example 4 is of type tuple, where a"),
    "an item that can't be read": (
        MINE._replace(train=Broken()),
        "train example 2 can't be read (OSError: file 2 is gone)",
    ),
    "ragged lists": (changed(depth=[[1.0], [1.0, 2.0]]), "train example 2 can't be read (ValueErr"),
    "an image in both splits": (
        MINE._replace(test=[TEST[0], TRAIN[3]]),
        "test example 1 shows the same as train example 3, which is in another split",
    ),
    "no examples": (MINE._replace(test=[]), "test has no examples"),
    "a generator": (MINE._replace(test=iter(TEST)), "test is of type list_iterator, which has no"),
    "no class names": (MINE._replace(class_names=()), "class_names is empty: name each class"),
    "a class twice": (MINE._replace(class_names=["a", "a", "b"]), "class_names must be distinct"),
    "an unknown kind": (MINE._replace(labels=["masks"]), "labels=masks: choose from segmentation"),
    "half of a pair": (MINE._replace(labels=["baseline"]), "has both image_right and baseline"),
}


@pytest.mark.parametrize("mistake", WRONG)
def test_mistakes_are_named_in_one_line(tmp_path, mistake):
    chosen, text = WRONG[mistake]
    with pytest.raises(ValueError) as error:
        prepared(chosen, tmp_path)
    assert str(error.value).startswith("`dataset`=examples: ")
    assert text in str(error.value) and "\n" not in str(error.value)
    assert not list(tmp_path.rglob("*.array_record*"))


def test_all_problems_are_printed(tmp_path, capsys):
    damaged = [example | {"depth": filled(-1)} for example in TRAIN]
    with pytest.raises(ValueError, match="5 problems, listed above"):
        prepared(MINE._replace(train=damaged, test=[TEST[0], {"depth": filled(1)}]), tmp_path)
    printed = capsys.readouterr().out.splitlines()
    # That no image has depth only follows from the problems.
    assert not [line for line in printed if "WARNING" in line]
    assert [line for line in printed if line.startswith(("train", "test"))] == [
        *(
            f"train example {i}: depth holds the negative depth -1: a missing depth is 0"
            for i in range(4)
        ),
        "test example 1 has no image",
    ]


def test_what_may_be_meant_is_a_warning(tmp_path, capsys):
    """A kind of labels that a split lacks, and an image that was changed a little."""
    test = [without(TEST[0], "depth"), {"image": TRAIN[1]["image"] // 2 * 2}]
    prepared(MINE._replace(test=test), tmp_path)
    printed = capsys.readouterr().out
    assert "WARNING: no image of test has depth labels" in printed
    assert "images of both splits look the same: train example 1 and test example 1\n" in printed


def test_other_examples_are_another_set(tmp_path):
    def name(chosen, **options):
        return datasets.builder(chosen, data_dir=tmp_path, **options).builder_config.name

    names = {
        name(MINE),
        name(MINE, image_size=(32, 48)),
        name(MINE._replace(class_names=("bed", "floor", "door"))),
        name(MINE._replace(train=TRAIN[:3])),
        name(MINE._replace(labels=["depth"])),
        name(changed(depth=filled(2))),
    }
    assert len(names) == 6 and name(MINE) in names


@pytest.fixture
def my_data(tmp_path, monkeypatch):
    """The file of docs/your_data.md, in the current folder."""
    (source,) = (x for x in pages.blocks(pages.ROOT / "docs/your_data.md", "python") if "def " in x)
    assert len(source.splitlines()) <= 32
    monkeypatch.chdir(tmp_path)
    Path("my_data.py").write_text(source)
    return tmp_path / "my_data.py"


def test_a_function_in_a_file_is_a_data_set(my_data, tmp_path, capsys):
    text = "my_data.py:discs:train=6,test=3"
    splits = prepared(text, tmp_path / "data")
    assert (len(splits["train"]), len(splits["test"])) == (6, 3)
    assert splits["train"].class_names == ("wall", "disc")
    first = splits["train"].source[0]
    depth = np.unique(first["depth"][first["segmentation"] == 1])
    assert depth.size == 1 and 20 / 16 < depth[0] < 20 / 6
    assert np.all(splits["train"].source[1]["segmentation"] == -1)
    assert f"{my_data}:discs:train=6,test=3: 6 images to train on" in capsys.readouterr().out


def test_a_changed_file_is_another_set(my_data, tmp_path):
    def name():
        # A file is read once per process.
        for cached in (datasets._own, datasets._text_of):
            cached.cache_clear()
        return datasets.builder("my_data.py:discs", data_dir=tmp_path).builder_config.name

    first = name()
    assert first == name() and re.fullmatch("my_data_discs-64x64-[0-9a-f]{12}", first)
    my_data.write_text(my_data.read_text() + "# Other discs.\n")
    assert name() != first


@pytest.mark.parametrize(
    ("code", "text", "message"),
    [
        ("def f(): return [1]", "own.py:f", "returns list, where datasets.Examples is expected"),
        ("def f(): return 1 / 0", "own.py:f", "raises ZeroDivisionError: division by zero"),
        ("def f(): pass", "own.py:g", "own.py has no function 'g'"),
        ("x = (", "own.py:f", "can't be imported .SyntaxError"),
        ("def f(train=1): pass", "own.py:f:test=1", "has no option 'test'; its options are train"),
    ],
)
def test_functions_that_can_not_be_used(tmp_path, monkeypatch, code, text, message):
    monkeypatch.chdir(tmp_path)
    Path("own.py").write_text(code)
    assert datasets.parse(text) == text
    with pytest.raises(ValueError, match=message) as error:
        datasets.builder(text)
    assert "\n" not in str(error.value)


def test_a_table_of_checks_for_every_key():
    assert set(examples._CHECKS) == set(examples.KEYS)
