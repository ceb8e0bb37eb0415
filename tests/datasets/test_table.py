"""The table of data sets: names, options and sizes, before anything is prepared."""

import subprocess
import sys

import pytest

import datasets


@pytest.mark.parametrize(
    ("text", "size", "train", "test", "classes"),
    [
        ("rooms", (96, 128), 1000, 200, 13),
        ("rooms:train=40,test=8", (96, 128), 40, 8, 13),
        ("nyu_depth_v2", (288, 384), 795, 654, 13),
        ("nyu_depth_v2:classes=40", (288, 384), 795, 654, 40),
        ("nyu_depth_v2:layout=mtan", (288, 384), 795, 654, 13),
        ("kitti_stereo", (128, 416), 160, 40, 0),
        ("kitti_stereo:classes=19", (128, 416), 160, 40, 19),
        ("cityscapes", (128, 256), 2975, 500, 19),
        ("cityscapes:content=depth,classes=7", (128, 256), 2975, 500, 7),
        ("cityscapes:layout=mtan,classes=7", (128, 256), 2975, 500, 7),
    ],
)
def test_the_outline_of_a_set_that_is_not_prepared(tmp_path, text, size, train, test, classes):
    outline = datasets.outline(datasets.builder(text, data_dir=tmp_path))
    assert (outline.image_size, outline.train, outline.test) == (size, train, test)
    assert len(outline.class_names) == classes
    depth = "inverse_depth" if "cityscapes:layout=mtan" in text else "depth"
    assert {"image", depth, "intrinsics"} <= set(outline.entries)
    assert not list(tmp_path.iterdir())


def test_images_have_the_size_asked_for(tmp_path):
    made = datasets.builder("rooms", image_size=(32, 48), data_dir=tmp_path)
    assert datasets.outline(made).image_size == (32, 48)


@pytest.mark.parametrize(
    ("text", "size", "message"),
    [
        ("cats", None, "'cats' is unknown: choose from nyu_depth_v2, rooms, kitti_stereo, city"),
        ("rooms:train=0", None, "`dataset`=rooms:train=0: .* whole number in 1"),
        ("rooms:layout=mtan", None, "rooms has no option 'layout'; its options are train, test"),
        ("nyu_depth_v2:layout=x", None, "`dataset`=nyu_depth_v2:layout=x: layout must be"),
        ("nyu_depth_v2:layout=mtan,classes=40", None, "must be 13, got 40"),
        ("rooms", (8, 8), "`image_size`=8x8: "),
        ("kitti_stereo", (0, 8), "`image_size`=0x8: "),
        ("kitti_stereo:classes=13", None, "classes must be one of .0, 7, 19., got 13"),
        ("cityscapes", (0, 8), "`image_size`=0x8: "),
    ],
)
def test_what_a_set_does_not_have_is_refused(text, size, message):
    with pytest.raises(ValueError, match=message):
        datasets.builder(text, image_size=size)


def test_texts_of_one_choice_are_one():
    assert datasets.parse("rooms:test=8,train=1000") == "rooms:test=8"
    assert datasets.parse("nyu_depth_v2:layout=labeled,classes=13") == "nyu_depth_v2"


@pytest.mark.parametrize("text", ["96", "96x", "axb", "-3x4", "0x5", "96x128x3", "96X128"])
def test_wrong_image_sizes_are_refused(text):
    assert datasets.parse_size("96x128") == (96, 128)
    with pytest.raises(ValueError, match="give HEIGHTxWIDTH"):
        datasets.parse_size(text)


def test_the_table_imports_no_builder():
    code = "import sys, datasets; print('tensorflow_datasets' in sys.modules)"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ended.stdout == "False\n", ended.stderr
