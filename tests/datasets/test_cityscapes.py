"""Cityscapes in its two layouts: the official files and the arrays of the literature."""

import json

import numpy as np
import pytest
from PIL import Image

import datasets
from datasets.cityscapes import cityscapes_dataset_builder as cityscapes
from datasets.cityscapes import classes, official_files
from mtl_jax import data
from mtl_jax.tasks import select, stereo
from tests.datasets import cityscapes_files as made
from tests.datasets.cityscapes_files import BASELINE, COUNTS, FOCAL, HEIGHT, SHIFT, WIDTH
from tests.datasets.nyu_files import one_line

# The table of the benchmark: trainId and categoryId of each id, -1 = not evaluated.
TRAIN_IDS = {
    7: (0, 1), 8: (1, 1), 11: (2, 2), 12: (3, 2), 13: (4, 2), 17: (5, 3), 19: (6, 3), 20: (7, 3),
    21: (8, 4), 22: (9, 4), 23: (10, 5), 24: (11, 6), 25: (12, 6), 26: (13, 7), 27: (14, 7),
    28: (15, 7), 31: (16, 7), 32: (17, 7), 33: (18, 7),
}  # fmt: skip


@pytest.fixture(scope="module")
def few():
    """Replaces the 3475 frames by a few."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cityscapes, "COUNTS", COUNTS)
        yield


@pytest.fixture
def official(tmp_path):
    return made.write_official(tmp_path / "files")


@pytest.fixture
def mtan(tmp_path):
    return made.write_mtan(tmp_path / "files")


def prepared(files, data_dir, **wanted):
    size = {"height": HEIGHT, "width": WIDTH} | wanted
    builder = cityscapes.Builder(config=cityscapes.config(**size), data_dir=data_dir)
    cityscapes.prepare(builder, files)
    return data.open_splits(builder)


def first(root, content="stereo", num_classes=19, height=HEIGHT, width=WIDTH):
    frames = official_files.find(root, COUNTS, content)
    ((_, frame), problems), *_ = official_files.readings(
        root, "train", frames["train"][:1], content, num_classes
    )
    assert not problems
    return cityscapes.make_example(frame, height, width)


# Classes


def test_classes_are_those_of_the_benchmark():
    of_19, of_7 = classes.class_of_id(19), classes.class_of_id(7)
    for number in range(256):
        train, category = TRAIN_IDS.get(number, (-1, 0))
        assert (of_19[number], of_7[number]) == (train, category - 1)
    assert of_19.dtype == of_7.dtype == np.int8
    assert classes.class_names(19)[of_19[26]] == "car"
    assert classes.class_names(7)[of_7[26]] == "vehicle"


# The official layout


def test_official_files_give_depth_in_metres_and_classes(few, official, tmp_path):
    splits = prepared(official, tmp_path / "data")
    assert {name: len(split) for name, split in splits.items()} == COUNTS
    example = splits["train"].source[0]
    depth = example["depth"]
    assert np.all(depth[:3] == 0)
    np.testing.assert_allclose(depth[3], FOCAL * BASELINE / 0.5)
    np.testing.assert_allclose(depth[4:], FOCAL * BASELINE / SHIFT)
    row = [-1, -1, -1, -1, -1, 2, -1, 10, 12, -1, 18, -1, *[0] * (WIDTH - 12)]
    np.testing.assert_array_equal(example["segmentation"], [row] * HEIGHT)
    np.testing.assert_allclose(example["intrinsics"], [FOCAL, FOCAL, 31.5, 15.5])
    np.testing.assert_allclose(example["baseline"], BASELINE)
    assert splits["train"].class_names == classes.class_names(19)


def test_the_right_view_rebuilds_the_left_one(few, official, tmp_path):
    splits = prepared(official, tmp_path / "data")
    chosen = select(["segmentation", "depth"], depth_loss="stereo_l2")
    batch = data.decode(
        data.batch_at(splits["train"], chosen, batch_size=2, seed=0, step=0), chosen
    )
    wall = np.full((2, HEIGHT, WIDTH), FOCAL * BASELINE / SHIFT, np.float32)
    total, pixels = stereo.squared_loss(wall, batch)
    assert pixels == 2 * HEIGHT * (WIDTH - SHIFT)
    assert total / pixels < 1e-6
    assert stereo.squared_loss(wall + 1, batch)[0] > 1000 * total + 1


def test_a_smaller_size_keeps_depth_and_disparities_true(official):
    example = first(official, height=HEIGHT // 2, width=WIDTH // 4)
    assert example["image"].shape == example["image_right"].shape == (16, 16, 3)
    np.testing.assert_allclose(example["depth"][4:], 5.0)
    shift = example["intrinsics"][0] * example["baseline"] / 5.0
    np.testing.assert_allclose(shift, SHIFT / 4)
    np.testing.assert_allclose(example["intrinsics"][1], FOCAL / 2)


def test_parts_that_were_not_downloaded_are_left_out_by_name(few, official, tmp_path):
    (official / "rightImg8bit").rename(tmp_path / "away")
    with one_line(
        ValueError,
        f"there is no folder {official}/rightImg8bit/train; there is no",
        "unpack rightImg8bit_trainvaltest.zip of https://www.cityscapes-dataset.com/downloads",
        "or do without by `dataset`=cityscapes:content=depth",
        folder=tmp_path,
    ):
        prepared(official, tmp_path / "data")
    splits = prepared(official, tmp_path / "data", content="depth")
    assert "depth" in splits["train"].source[0]
    with pytest.raises(ValueError, match="no image_right: leave depth out .*`depth_loss`=l1"):
        data.check_labels(splits["train"].source[0], select(["depth"], depth_loss="stereo"))
    (official / "disparity").rename(tmp_path / "away too")
    with one_line(ValueError, "disparity_trainvaltest.zip", "content=segmentation"):
        prepared(official, tmp_path / "data", content="depth", height=16)
    example = prepared(official, tmp_path / "data", content="segmentation")["test"].source[0]
    assert set(example) == {"image", "segmentation", "intrinsics"}
    (official / "camera").rename(tmp_path / "away three")
    with one_line(ValueError, "no folder", "unpack camera_trainvaltest.zip") as caught:
        prepared(official, tmp_path / "data", content="segmentation", height=16)
    del caught


def save(path, array):
    Image.fromarray(array).save(path)


def full(level):
    return np.full((HEIGHT, WIDTH), level)


def change_camera(path, group, key, value):
    content = json.loads(path.read_text())
    if value is None:
        del content[group][key]
    else:
        content[group][key] = value
    path.write_text(json.dumps(content))


STEM = "aachen/aachen_000000_000019"


@pytest.mark.parametrize(
    ("name", "damage", "message"),
    [
        ("gtFine/train/{}_gtFine_labelIds.png", lambda path: path.unlink(), "is missing: unpack"),
        (
            "leftImg8bit/train/{}_leftImg8bit.png",
            lambda path: path.unlink(),
            "leftImg8bit/train has 3 images CITY/*_leftImg8bit.png instead of 4",
        ),
        (
            "rightImg8bit/train/{}_rightImg8bit.png",
            lambda path: save(path, np.zeros((8, 9, 3), np.uint8)),
            f"is [8, 9, 3] instead of [{HEIGHT}, {WIDTH}, 3]",
        ),
        (
            "gtFine/train/{}_gtFine_labelIds.png",
            lambda path: save(path, full(np.uint8(40))),
            "has the label 40 outside 0..33: are these its labelIds?",
        ),
        (
            "gtFine/train/{}_gtFine_labelIds.png",
            lambda path: save(path, np.zeros((HEIGHT, WIDTH, 3), np.uint8)),
            "is 8-bit RGB, where Cityscapes has 8-bit grey",
        ),
        (
            "disparity/train/{}_disparity.png",
            lambda path: save(path, full(np.uint8(SHIFT))),
            "is 8-bit grey, where Cityscapes has 16-bit grey",
        ),
        ("disparity/train/{}_disparity.png", lambda path: save(path, full(np.uint16(1))), "every"),
        (
            "disparity/train/{}_disparity.png",
            lambda path: save(path, full(np.uint16(65000))),
            "holds a disparity of 253.9 pixels in an image 64 pixels wide",
        ),
        (
            "leftImg8bit/train/{}_leftImg8bit.png",
            lambda path: path.write_bytes(path.read_bytes()[:-40]),
            "can't be read as a PNG",
        ),
        ("camera/train/{}_camera.json", lambda path: path.write_text("{"), "be read as JSON"),
        ("camera/train/{}_camera.json", lambda path: path.write_text("[]"), "intrinsic.fx"),
        (
            "camera/train/{}_camera.json",
            lambda path: change_camera(path, "extrinsic", "baseline", None),
            "has no number extrinsic.baseline",
        ),
        (
            "camera/train/{}_camera.json",
            lambda path: change_camera(path, "extrinsic", "baseline", 209.313),
            "has a baseline of 209.313: 0.01 to 10 metres",
        ),
        (
            "camera/train/{}_camera.json",
            lambda path: change_camera(path, "intrinsic", "u0", 1096.98),
            "has the principal point 1096.98 15.5 outside",
        ),
        (
            "camera/train/{}_camera.json",
            lambda path: change_camera(path, "intrinsic", "fx", "80"),
            "has no number intrinsic.fx",
        ),
    ],
)
def test_wrong_official_files_are_named_in_a_line(few, official, tmp_path, name, damage, message):
    path = official / name.format(STEM)
    damage(path)
    named = path.parents[1] if "instead of 4" in message else path
    with one_line(ValueError, named, message, folder=tmp_path):
        prepared(official, tmp_path / "data")


# The layout of the literature


def test_mtan_files_give_inverse_depth_as_it_is(few, mtan, tmp_path):
    splits = prepared(mtan, tmp_path / "data", layout="mtan", classes=7)
    example = splits["test"].source[1]
    assert set(example) == {"image", "segmentation", "inverse_depth", "intrinsics"}
    assert example["inverse_depth"].dtype == np.float32
    arrays = made.mtan_arrays(HEIGHT, WIDTH, 7)
    np.testing.assert_array_equal(example["inverse_depth"], arrays["depth"][..., 0])
    np.testing.assert_array_equal(example["segmentation"], arrays["label_7"])
    np.testing.assert_allclose(example["image"] / 255, arrays["image"], atol=0.51 / 255)
    # The camera looks at the same scene as with 1024 x 2048 pixels.
    np.testing.assert_allclose(example["intrinsics"][0], 2262.52 * WIDTH / 2048, rtol=1e-6)
    assert splits["test"].class_names == classes.class_names(7)
    wide = prepared(mtan, tmp_path / "data", layout="mtan", classes=19)
    assert wide["train"].source[0]["segmentation"].max() == 18


def test_inverse_depth_is_a_task_of_its_own(few, mtan, tmp_path):
    entries = prepared(mtan, tmp_path / "data", layout="mtan")["train"].source[0]
    data.check_labels(entries, select(["segmentation", "inverse_depth"]))
    with pytest.raises(
        ValueError, match="no depth: .*it has labels for segmentation, inverse_depth"
    ):
        data.check_labels(entries, select(["depth"]))
    with pytest.raises(ValueError, match="the data set has no image_right"):
        data.check_labels(entries, select(["depth"], depth_loss="stereo"))
    with pytest.raises(ValueError, match="the data set has no depth"):
        data.check_labels(entries, select(["normals"], normals_source="depth"))


def put(path, **changes):
    array = np.load(path)
    for where, value in changes.items():
        array[0 if where == "first" else ...] = value
    np.save(path, array)


@pytest.mark.parametrize(
    ("name", "damage", "message"),
    [
        ("train/depth/0.npy", lambda path: put(path, first=30.0), "the inverse depth 30, where 0"),
        ("train/depth/0.npy", lambda path: put(path, first=-1.0), "negative"),
        ("train/depth/0.npy", lambda path: put(path, first=np.nan), "NaN"),
        ("train/depth/0.npy", lambda path: put(path, all=0.0), "holds no inverse depth"),
        ("train/depth/0.npy", lambda path: np.save(path, np.ones((HEIGHT, WIDTH))), "instead of"),
        ("train/label_7/0.npy", lambda path: put(path, first=7), "the label 7 outside -1..6"),
        ("train/label_7/0.npy", lambda path: put(path, first=0.5), "0.5, which is not a whole"),
        ("train/label_7/0.npy", lambda path: path.write_bytes(b"x"), "not a .npy file"),
        ("train/image/0.npy", lambda path: put(path, first=255), "is not in 0..1 but"),
        ("val/image/1.npy", lambda path: path.unlink(), "there is no"),
    ],
)
def test_wrong_mtan_files_are_named_in_a_line(few, mtan, tmp_path, name, damage, message):
    damage(mtan / name)
    with one_line(ValueError, mtan / name, message, folder=tmp_path):
        prepared(mtan, tmp_path / "data", layout="mtan", classes=7)


def test_missing_and_surplus_mtan_files_are_counted(few, mtan, tmp_path):
    (mtan / "train/label_7/4.npy").write_bytes(b"")
    with one_line(ValueError, "train/label_7 has 5 .npy files instead of 4"):
        prepared(mtan, tmp_path / "data", layout="mtan", classes=7)
    (mtan / "val/label_19").rename(mtan / "val/label_20")
    with one_line(ValueError, f"there is no folder {mtan}/val/label_19: `manual_dir` must"):
        prepared(mtan, tmp_path / "data", layout="mtan")


# Configs


def test_config_names():
    assert cityscapes.config() is cityscapes.Builder.builder_configs["official19"]
    assert cityscapes.config("mtan", 7) is cityscapes.Builder.builder_configs["mtan7"]
    named = cityscapes.config(content="depth", height=256, width=512)
    assert named.name == "official19_depth_256x512"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("layout=raw", "layout must be 'official' or 'mtan', got 'raw'"),
        ("classes=34", "classes must be one of (7, 19), got 34"),
        ("content=flow", "content must be one of segmentation, depth, stereo, got 'flow'"),
        ("layout=mtan,content=depth", "content goes with layout=official"),
    ],
)
def test_wrong_options(text, message):
    with one_line(ValueError, f"`dataset`=cityscapes:{text}: {message}"):
        datasets.builder(f"cityscapes:{text}")
