"""A folder of one's own: which photos are in it, how they are divided, and the set's name."""

import hashlib
import os

import pytest
from PIL import ExifTags, Image

import datasets
from datasets.folder import layout
from mtl_jax.deploy.photos import read
from tests import fakes
from tests.datasets import folder_files
from tests.datasets.folder_files import HEIGHT, WIDTH, assert_equal, prepared


def test_the_size_is_that_of_most_photos_unless_it_is_set(root):
    def size(files):
        return layout.usual_size(layout.find(files))

    assert size(root) == (32, 32)
    for number in range(3):
        path = root / f"images/train/train000{number}.png"
        Image.new("RGB", (1280, 960)).save(path)
    assert size(root) == (384, 512)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".webp"])
def test_the_size_is_that_of_upright_photos(tmp_path, suffix):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    for part in ("train", "val"):
        path = tmp_path / "images" / part / f"a{suffix}"
        path.parent.mkdir(parents=True)
        Image.new("RGB", (1280, 960)).save(path, exif=exif)
        assert read(path).pixels.shape == (1280, 960, 3)
    assert layout.usual_size(layout.find(tmp_path)) == (512, 384)


def test_a_flat_folder_is_divided_by_the_names(tmp_path, capsys):
    count = 40
    root = tmp_path / "flat"
    examples = [fakes.example(i, height=HEIGHT, width=WIDTH) for i in range(count)]
    folder_files.write(root, {"": examples}, fakes.CLASSES)
    (root / "depth/photo0000.npy").unlink()
    found = layout.find(root)
    parts = {split: {x.image.stem for x in items} for split, items in found.items.items()}
    assert parts["train"] | parts["test"] == {f"photo{i:04d}" for i in range(count)}
    assert not parts["train"] & parts["test"]
    assert 3 <= len(parts["test"]) <= 14
    for stem in parts["test"]:
        assert hashlib.sha256(stem.encode()).digest()[0] <= 0.2 * 256
    splits = prepared(root)
    numbers = [int(x.image.stem[-4:]) for x in found.items["test"]]
    for i, number in enumerate(numbers):
        assert_equal(splits["test"].source[i], examples[number], ("image", "segmentation"))
    # Other images do not move those that are there.
    for name in ("images/another.png", "images/one_more.png"):
        Image.new("RGB", (WIDTH, HEIGHT), name[7:8] == "a" and "red" or "blue").save(root / name)
    again = {s: {x.image.stem for x in items} for s, items in layout.find(root).items.items()}
    assert all(parts[split] <= again[split] for split in parts)


@pytest.mark.parametrize("count", [2, 3])
def test_even_two_photos_are_divided(tmp_path, count):
    (tmp_path / "images").mkdir()
    for i in range(count):
        Image.new("RGB", (WIDTH, HEIGHT), (i, 0, 0)).save(tmp_path / f"images/{i}.jpg")
    sizes = {split: len(items) for split, items in layout.find(tmp_path).items.items()}
    assert sizes == {"train": count - 1, "test": 1}


def test_the_name_of_a_set_depends_on_its_files_and_options(root, original, tmp_path):
    def name(files=root, text="folder", size=(HEIGHT, WIDTH)):
        return datasets.builder(
            text, image_size=size, data_dir=tmp_path, folder=files
        ).builder_config.name

    first = name()
    assert name() == first and first.startswith("mine-16x24-")
    others = {
        name(original),
        name(size=(32, 48)),
        name(text="folder:depth_scale=256"),
        name(text="folder:ignore_label=0"),
    }
    os.utime(root / "depth/val/val0001.npy", (1, 1))
    others.add(name())
    (root / "classes.txt").write_text("floor\nbed\nwall\n")
    others.add(name())
    (root / "masks/train/train0000.png").unlink()
    others.add(name())
    assert len(others | {first}) == 8
    before = name()
    (root / "images/train/.DS_Store").write_text("x")
    assert name() == before


def test_without_a_folder_or_with_wrong_options():
    for text, message in (
        ("folder", "`dataset`=folder: set `folder` to"),
        ("folder:depth_scale=0", "depth_scale must be a positive number"),
        ("folder:ignore_label=-1", "ignore_label must be in 0..65535"),
        ("folder:path=a", "no option 'path'; its options are depth_scale, ignore_label"),
    ):
        with pytest.raises(ValueError, match=message):
            datasets.builder(text, folder=None if text == "folder" else "missing")
    with pytest.raises(ValueError, match="missing is not a folder"):
        datasets.builder("folder", folder="missing")


def test_the_outline_needs_no_prepared_set(root, tmp_path):
    made = datasets.builder("folder", folder=root, data_dir=tmp_path / "nothing")
    outline = datasets.outline(made)
    assert (outline.train, outline.test, outline.image_size) == (4, 2, (32, 32))
    assert outline.class_names == fakes.CLASSES
    assert {"segmentation", "depth", "normals"} <= set(outline.entries)
    assert not (tmp_path / "nothing").exists()
