"""Cameras and right views of a folder, and normals that are computed from its depth."""

import re
import shutil
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import ExifTags, Image

import datasets
from mtl_jax import data
from mtl_jax.tasks import geometry, select
from tests import fakes
from tests.datasets import folder_files

HEIGHT, WIDTH = 32, 48
EXAMPLES = folder_files.examples(2, 2, height=HEIGHT, width=WIDTH)
prepared = partial(folder_files.prepared, size=(HEIGHT, WIDTH))
refusal = partial(folder_files.refusal, size=(HEIGHT, WIDTH))
PHOTO = "images/train/train0000.png"
RIGHT = "images_right/train/train0001.png"
WAYS = "NAME fx fy cx cy", "EXIF", "field_of_view=60"


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    root = tmp_path_factory.mktemp("cameras") / "mine"
    folder_files.write(root, EXAMPLES, fakes.CLASSES)
    return root


@pytest.fixture
def pairs(root):
    """A folder in which the right views show what is two columns further to the right."""
    for path in sorted((root / "images").rglob("*.png")):
        shown = np.roll(np.array(Image.open(path)), -2, axis=1)
        to = root / "images_right" / path.parent.name / path.name
        to.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(shown).save(to)
    (root / "cameras.txt").write_text("* 40 41 23.5 15.5 0.2\n")
    return root


def entries(splits, name):
    """Returns an entry of all examples, those of train first."""
    return np.stack([x[name] for split in splits.values() for x in split.source])


def say_focal_length(path, millimetres):
    exif = Image.Exif()
    exif[ExifTags.IFD.Exif] = {ExifTags.Base.FocalLengthIn35mmFilm: millimetres}
    Image.open(path).save(path, exif=exif)


def test_the_file_comes_before_exif_data_and_these_before_the_stated_angle(root, capsys):
    (root / "cameras.txt").write_text(
        "name, fx, fy, cx, cy\n# by a checkerboard\ntrain/train0000,40,41,22.5,14.5\n"
        "val0000.png 50 51 23 15\n"
    )
    say_focal_length(root / PHOTO, 28)
    say_focal_length(root / "images/train/train0001.png", 28)
    found = entries(prepared(root, "folder:field_of_view=90"), "intrinsics")
    centre = [(WIDTH - 1) / 2, (HEIGHT - 1) / 2]
    by_exif = 28 / np.hypot(36, 24) * np.hypot(HEIGHT, WIDTH)
    expected = [
        [40, 41, 22.5, 14.5],
        [by_exif, by_exif, *centre],
        [50, 51, 23, 15],
        [WIDTH / 2, WIDTH / 2, *centre],
    ]
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert (
        "cameras: known for 2 photos from the file of cameras, for 1 photo from EXIF data, for 1 "
        "photo from field_of_view=90" in capsys.readouterr().out
    )


def test_an_image_of_an_unknown_camera_has_no_intrinsics(root, capsys):
    (root / "cameras.csv").write_text("train0001 40 41 22.5 14.5")
    found = entries(prepared(root), "intrinsics")
    np.testing.assert_allclose(found[1], [40, 41, 22.5, 14.5])
    assert not np.any(found[[0, 2, 3]])
    assert "from the file of cameras; unknown for 3 photos" in capsys.readouterr().out


def test_names_with_spaces_and_names_that_are_numbers(root):
    for old, new in (("train0000", "0017"), ("train0001", "a photo 2")):
        for path in list(root.rglob(f"{old}.*")):
            path.rename(path.with_stem(new))
    (root / "cameras.txt").write_text("0017 40 41 22 14\na photo 2 60 61 23 15 0.5\n* 70 71 20 12")
    found = entries(prepared(root), "intrinsics")
    np.testing.assert_allclose(found[:, 0], [40, 60, 70, 70])


def test_intrinsics_follow_the_part_that_is_stored(root):
    """A pixel of what is stored looks along the same ray as the place in the photo it came from."""
    size, photo = (16, 32), (HEIGHT, WIDTH)
    (root / "cameras.txt").write_text("* 40 44 20 13\n")
    fx, fy, cx, cy = prepared(root, size=size)["train"].source[0]["intrinsics"]
    # The part of 48 x 24 pixels in the middle, whose rows begin at 4.
    scale = WIDTH / size[1]
    for row, column in ((0, 0), (9, 20)):
        u, v = (column + 0.5) * scale - 0.5, (row + 0.5) * scale - 0.5 + (photo[0] - 24) / 2
        ray = ((u - 20) / 40, (v - 13) / 44)
        np.testing.assert_allclose([(column - cx) / fx, (row - cy) / fy], ray, rtol=1e-5)


def test_normals_come_from_depth_where_there_is_no_file(root, capsys):
    """The depth of a slanted plane gives its normal; a file of normals counts instead."""
    intrinsics = np.array([40, 41, 23.5, 15.5])
    normal = np.array([0.3, -0.2, -1])
    normal /= np.linalg.norm(normal)
    v, u = np.mgrid[:HEIGHT, :WIDTH]
    rays = np.stack([(u - 23.5) / 40, (v - 15.5) / 41, np.ones((HEIGHT, WIDTH))], axis=-1)
    depth = (-2.0 / (rays @ normal)).astype(np.float32)
    np.save(root / "depth/train/train0000.npy", depth)
    (root / "normals/train/train0000.png").unlink(missing_ok=True)
    for name in ("normals/train/train0000.npy", "normals/val/val0001.npy", "depth/val/val0001.npy"):
        (root / name).unlink()
    (root / "cameras.txt").write_text(f"* {' '.join(map(str, intrinsics))}\n")
    splits = prepared(root, "folder:normals=depth")
    found = splits["train"].source[0]["normals"].astype(float)
    known = np.any(found != 0, axis=-1)
    assert known.mean() > 0.9
    assert np.degrees(np.arccos(np.clip(found[known] @ normal, -1, 1))).max() < 1.5
    np.testing.assert_array_equal(
        splits["train"].source[1]["normals"], EXAMPLES["train"][1]["normals"]
    )
    assert not np.any(splits["test"].source[1]["normals"])
    printed = capsys.readouterr().out
    assert "normals: computed from the depth of 1 image" in printed
    assert "normals: labels of 2 of 2 images of train (100%) and 1 of 2 images of te" in printed


def test_normals_from_depth_are_those_that_training_computes(root):
    shutil.rmtree(root / "normals")
    splits = prepared(root, "folder:normals=depth,field_of_view=60")
    example = splits["train"].source[1]
    computed, _ = geometry.normals_from_depth(
        jnp.asarray(example["depth"], jnp.float32),
        jnp.asarray(example["intrinsics"]),
        largest_misfit=0.05,
    )
    np.testing.assert_allclose(example["normals"], computed, atol=1e-3)
    assert np.any(example["normals"] != 0)


def test_normals_from_depth_need_a_camera(root, capsys):
    shutil.rmtree(root / "normals")
    found = refusal(root, capsys, "folder:normals=depth")
    assert all(way in found for way in WAYS), found
    assert f"{PHOTO} has no intrinsics, which normals from its depth need" in found
    assert "4 problems, listed above" in found


def test_learning_from_depth_needs_a_camera(root):
    def check(text="folder", **forms):
        outline = datasets.outline(datasets.builder(text, folder=root, data_dir=root))
        tasks = select(["normals"], **forms)
        data.check_labels(outline.entries, tasks, advice=outline.advice)

    check()
    with pytest.raises(ValueError, match="the data set has no intrinsics: leave normals") as error:
        check(normals_source="depth")
    assert all(way in str(error.value) for way in WAYS)
    check("folder:field_of_view=60", normals_source="depth")
    say_focal_length(root / PHOTO, 28)
    check(normals_source="depth")
    shutil.rmtree(root / "normals")
    with pytest.raises(ValueError, match="no normals: .* `dataset`=folder:normals=depth "):
        check(normals_source="depth")
    check("folder:normals=depth", normals_source="depth")


def test_right_views_are_stored_with_the_baseline(pairs, capsys):
    (pairs / "cameras.txt").write_text("* 40 41 23.5 15.5 0.2\ntrain0001 40 41 23.5 15.5 0.3\n")
    splits = prepared(pairs)
    for split, part in (("train", "train"), ("test", "val")):
        for found, expected in zip(splits[split].source, EXAMPLES[part], strict=True):
            shown = np.roll(expected["image"], -2, axis=1)
            np.testing.assert_array_equal(found["image_right"], shown)
    np.testing.assert_allclose(entries(splits, "baseline"), [0.2, 0.3, 0.2, 0.2])
    assert "right views: of 2 of 2 images of train and 2 of 2 images of test" in (
        capsys.readouterr().out
    )


def test_an_image_without_a_right_view_has_no_baseline(pairs, capsys):
    """The stereo losses count no pixel of it."""
    (pairs / RIGHT).unlink()
    splits = prepared(pairs)
    np.testing.assert_allclose(entries(splits, "baseline"), [0.2, 0, 0.2, 0.2])
    assert "right views: of 1 of 2 images of train" in capsys.readouterr().out
    (depth,) = select(["depth"], depth_loss="stereo_l2")
    names = ("image", *(entry.name for entry in depth.reads))
    stored = {name: np.stack([x[name] for x in splits["train"].source]) for name in names}
    batch = {name: array.astype(np.float32) for name, array in stored.items()}
    learned = jax.jit(depth.loss)
    prediction = np.full(stored["image"].shape[:3], 4, np.float32)
    loss, count = learned(prediction, batch)
    # 2 columns of 40 x 0.2 / 4 pixels fall outside of the right view.
    assert count == HEIGHT * (WIDTH - 2)
    prediction[1] = 9
    np.testing.assert_array_equal(learned(prediction, batch), (loss, count))


def test_right_views_without_depth_are_enough_to_learn_from(pairs, capsys):
    shutil.rmtree(pairs / "depth")
    outline = datasets.outline(datasets.builder("folder", folder=pairs, data_dir=pairs))
    data.check_labels(outline.entries, select(["depth"], depth_loss="stereo"))
    assert not np.any(entries(prepared(pairs), "depth"))
    assert "depth: labels of 0 of 2 images of train (0%)" in capsys.readouterr().out


def test_the_baseline_may_be_an_option(pairs):
    (pairs / "cameras.txt").write_text("train0001 40 41 23.5 15.5 0.3\n* 40 41 23.5 15.5\n")
    found = prepared(pairs, "folder:baseline=0.54")
    np.testing.assert_allclose(entries(found, "baseline"), [0.54, 0.3, 0.54, 0.54])


def test_a_flat_folder_has_cameras_and_right_views(tmp_path):
    root = tmp_path / "mine"
    folder_files.write(root, {"": EXAMPLES["train"] + EXAMPLES["val"]}, fakes.CLASSES)
    (root / "images_right").mkdir()
    for path in (root / "images").iterdir():
        shown = np.roll(np.array(Image.open(path)), -2, axis=1)
        Image.fromarray(shown).save(root / "images_right" / path.name)
    (root / "cameras.txt").write_text("photo0002 50 51 23 15 0.4\n* 40 41 23.5 15.5 0.2\n")
    found = prepared(root)
    assert sorted(entries(found, "baseline").tolist()) == pytest.approx([0.2, 0.2, 0.2, 0.4])
    assert sorted(entries(found, "intrinsics")[:, 0].tolist()) == [40, 40, 40, 50]


def with_cameras(text):
    return lambda root: (root / "cameras.txt").write_text(text)


def same_view(root):
    shutil.copy(root / "images/train/train0001.png", root / RIGHT)


def smaller_view(root):
    Image.new("RGB", (24, 16)).save(root / RIGHT)


def no_photo(root):
    (root / RIGHT).write_text("x")


LINE = "40 41 23.5 15.5"
WRONG = {
    "three numbers": (with_cameras("* 40 41 23.5\n"), "line 1 is not NAME fx fy cx cy"),
    "no name": (with_cameras(f"{LINE}\n"), "baseline (NAME is * for all images)"),
    "words": (with_cameras("* 40 41 a b\n"), "cameras.txt: line 1 is not NAME fx fy cx cy"),
    "NaN": (with_cameras("* 40 41 nan 15.5\n"), "cameras.txt: line 1 is not NAME fx fy cx cy"),
    "an unknown photo": (
        with_cameras(f"train/other {LINE}\n"),
        "cameras.txt: line 1 is for train/other, and there is no such photo in images/",
    ),
    "twice": (
        with_cameras(f"* {LINE} 0.2\ntrain0000 {LINE}\ntrain0000 {LINE}\n"),
        "cameras.txt: line 3 is for train0000 again",
    ),
    "empty": (with_cameras("fx fy cx cy\n"), "cameras.txt is empty"),
    "of larger photos": (
        with_cameras("* 400 410 235 155 0.2\n"),
        f"{PHOTO}, by the file of cameras, has the principal point 235 155 outside the image",
    ),
    "in millimetres": (
        with_cameras("* 4 4 23.5 15.5 0.2\n"),
        f"{PHOTO}, by the file of cameras, has the focal lengths 4 and 4 for a width of 48 pixels",
    ),
    "a baseline in millimetres": (
        with_cameras(f"* {LINE} 540\n"),
        "cameras.txt: line 1 has a baseline of 540: 0.01 to 10 metres are expected",
    ),
    "two files": (
        lambda root: shutil.copy(root / "cameras.txt", root / "cameras.csv"),
        "cameras.txt and cameras.csv are both there",
    ),
    "no baseline": (with_cameras(f"* {LINE}\n"), f"{RIGHT} has no baseline"),
    "no baseline, in short": (with_cameras(f"* {LINE}\n"), "`dataset`=folder:baseline=0.54"),
    "no camera": (lambda root: (root / "cameras.txt").unlink(), f"{RIGHT} has no intrinsics"),
    "the left view": (same_view, f"{RIGHT} shows the same as the left view"),
    "another size": (smaller_view, f"{RIGHT} is 16x24 (height x width), but the left view 32x48"),
    "no right photo": (no_photo, f"{RIGHT} can't be read"),
    "a right view alone": (
        lambda root: (root / RIGHT).rename(root / "images_right/train/other.png"),
        "images_right/train/other.png has no image of the same name",
    ),
    "right views of val alone": (
        lambda root: shutil.rmtree(root / "images_right/train"),
        "images_right has no files for the images to train on",
    ),
}


@pytest.mark.parametrize("mistake", WRONG)
def test_mistakes_are_named(pairs, capsys, mistake):
    damage, text = WRONG[mistake]
    damage(pairs)
    assert text in refusal(pairs, capsys)


def test_every_wrong_line_is_named(pairs, capsys):
    with_cameras(f"a {LINE}\nb {LINE}\n* 1 2 3\n* {LINE} 99\n* {LINE} 0.2\n")(pairs)
    same_view(pairs)
    Image.new("RGB", (24, 16)).save(pairs / "images_right/train/train0000.png")
    found = refusal(pairs, capsys)
    assert "train0000.png is 16x24 (height x width), but the left view 32x48" in found
    assert len(re.findall("(?m)^cameras.txt: line [1-5] ", found)) == 5, found
    assert f"{RIGHT} shows the same" in found


def test_a_far_principal_point_is_printed(root, capsys):
    with_cameras("* 40 41 11 8\n")(root)
    prepared(root)
    assert "WARNING: the principal point of 4 photos is far from the middle" in (
        capsys.readouterr().out
    )


def test_options_that_make_no_sense(root):
    for options, message in (
        ("normals=labels", "normals must be files or depth, got labels"),
        ("field_of_view=180", r"field_of_view must be in 1..170 degrees, got 180"),
        ("baseline=-1", "baseline must be in 0.01..10 metres, got -1"),
        ("baseline=0.5", "there is no images_right/"),
    ):
        with pytest.raises(ValueError, match=f"^`dataset`=folder:{options}: .*{message}"):
            datasets.builder(f"folder:{options}", folder=root)
    with pytest.raises(ValueError, match="height and width of at least 17 pixels, got 16x48"):
        datasets.builder("folder:normals=depth", folder=root, image_size=(16, WIDTH))
    shutil.rmtree(root / "depth")
    with pytest.raises(ValueError, match="there are no files in depth/"):
        datasets.builder("folder:normals=depth", folder=root)
