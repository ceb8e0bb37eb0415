"""A folder of one's own: what is stored of its files."""

import json
import shutil

import jax
import numpy as np
import pytest
from PIL import ExifTags, Image

from datasets import cutting
from mtl_jax import data
from mtl_jax.tasks import SEGMENTATION
from mtl_jax.training.evaluation import judge_predictions, predict_constant, trivial_predictor
from tests import fakes
from tests.datasets.folder_files import (
    EXAMPLES,
    HEIGHT,
    WIDTH,
    assert_equal,
    changes,
    prepared,
)


def test_examples_come_back_as_they_were_written(root, capsys):
    splits = prepared(root)
    for split, part in (("train", "train"), ("test", "val")):
        assert len(splits[split]) == len(EXAMPLES[part])
        for i, expected in enumerate(EXAMPLES[part]):
            assert_equal(splits[split].source[i], expected)
    assert splits["train"].class_names == fakes.CLASSES
    printed = capsys.readouterr().out
    assert f"{root}: 4 images to train on and 2 to test on, stored at 16x24 pixels" in printed
    assert "size of the images: 16x24 (6)" in printed
    labelled = "labels of 4 of 4 images of train (100%) and 2 of 2 images of test (100%)"
    for entry in ("segmentation", "depth", "normals"):
        assert f"  {entry}: {labelled}" in printed
    masks = np.stack([x["segmentation"] for part in EXAMPLES.values() for x in part])
    for index, name in enumerate((*fakes.CLASSES, "no label")):
        share = np.mean(masks == (index if index < len(fakes.CLASSES) else -1))
        assert f"{name} {share:.2%}" in printed
    assert "cameras: unknown for 6 photos" in printed
    assert not np.any(splits["train"].source[0]["intrinsics"])


def test_what_is_prepared_is_not_read_again(root, capsys):
    prepared(root)
    capsys.readouterr()
    prepared(root)
    assert not capsys.readouterr().out


def test_a_missing_file_is_a_missing_label(root, capsys):
    (root / "masks/train/train0001.png").unlink()
    (root / "depth/train/train0002.npy").unlink()
    (root / "normals/val/val0000.npy").unlink()
    splits = prepared(root)
    train, test = (splits[name].source for name in ("train", "test"))
    assert np.all(train[1]["segmentation"] == -1)
    assert np.all(train[2]["depth"] == 0)
    assert np.all(test[0]["normals"] == 0)
    assert_equal(train[1], EXAMPLES["train"][1], ("image", "depth", "normals"))
    assert_equal(train[2], EXAMPLES["train"][2], ("image", "segmentation", "normals"))
    printed = capsys.readouterr().out
    assert "segmentation: labels of 3 of 4 images of train (75%) and 2 of 2 images of te" in printed
    assert "normals: labels of 4 of 4 images of train (100%) and 1 of 2 images of te" in printed


@pytest.mark.parametrize("protocol", ["pooled", "mtan"])
def test_an_image_without_a_label_counts_in_no_metric(root, protocol):
    for path in ("masks/val/val0000.png", "depth/val/val0000.npy", "normals/val/val0000.npy"):
        (root / path).unlink()
    some = prepared(root)
    for path in ("images/val/val0000.png",):
        (root / path).unlink()
    alone = prepared(root)
    assert (len(some["test"]), len(alone["test"])) == (2, 1)

    def judged(splits):
        tasks = list(fakes.TASKS.values())
        judge = judge_predictions(
            predict_constant,
            tasks,
            splits,
            eval_batch_size=1,
            devices=jax.devices()[:1],
            metric_protocol=protocol,
        )
        return judge.metrics(trivial_predictor(splits["train"], tasks), "test")

    found, expected = judged(some), judged(alone)
    assert found == pytest.approx(expected, rel=1e-6, nan_ok=True)
    assert np.isfinite(found["depth/absolute_error"])


def test_a_kind_of_labels_may_be_missing_altogether(root, capsys):
    shutil.rmtree(root / "depth")
    shutil.rmtree(root / "normals")
    splits = prepared(root)
    example = splits["train"].source[0]
    assert set(example) == {"image", "segmentation", "intrinsics"}
    assert "depth: no labels, since there are no files in depth/" in capsys.readouterr().out
    with pytest.raises(ValueError, match="no depth: leave depth out of `tasks`"):
        data.check_labels(example, list(fakes.TASKS.values()))
    data.check_labels(example, [SEGMENTATION])


def test_without_masks_no_classes_are_needed(root):
    shutil.rmtree(root / "masks")
    (root / "classes.txt").unlink()
    splits = prepared(root)
    assert splits["train"].class_names == ()
    assert_equal(splits["train"].source[3], EXAMPLES["train"][3], ("image", "depth", "normals"))


def test_other_formats_of_the_same_labels(root):
    """Depth as 16-bit PNG and as TIFF, normals as colours, masks with a palette."""
    depth = EXAMPLES["train"][0]["depth"].astype(np.float32)
    for number in range(2):
        (root / f"depth/train/train000{number}.npy").unlink()
    millimetres = np.rint(256 * depth).astype(np.uint16)
    Image.fromarray(millimetres).save(root / "depth/train/train0000.png")
    Image.fromarray(depth).save(root / "depth/train/train0001.tiff")
    normals = EXAMPLES["train"][0]["normals"].astype(np.float32)
    colours = np.rint((normals + 1) * 127.5).astype(np.uint8)
    colours[np.all(normals == 0, axis=-1)] = 0
    (root / "normals/train/train0000.npy").unlink()
    Image.fromarray(colours).save(root / "normals/train/train0000.png")
    mask = Image.open(root / "masks/train/train0000.png")
    mask.putpalette(list(range(256)) * 3)
    mask.save(root / "masks/train/train0000.png")
    first, second = (
        prepared(root, text="folder:depth_scale=256")["train"].source[i] for i in (0, 1)
    )
    assert_equal(first, EXAMPLES["train"][0], ("segmentation", "depth"))
    np.testing.assert_array_equal(second["depth"], first["depth"])
    np.testing.assert_allclose(first["normals"], normals, atol=0.01)
    assert np.all(first["normals"][np.all(normals == 0, axis=-1)] == 0)


def test_another_number_may_mark_what_has_no_label(root):
    path = root / "masks/train/train0000.png"
    mask = np.array(Image.open(path))
    Image.fromarray(np.where(mask == 255, 9, mask)).save(path)
    with pytest.raises(ValueError, match="has the label 9 outside 0..2 .255 = no label."):
        prepared(root)
    for other in (root / "masks").rglob("*.png"):
        mask = np.array(Image.open(other))
        Image.fromarray(np.where(mask == 255, 9, mask)).save(other)
    example = prepared(root, text="folder:ignore_label=9")["train"].source[0]
    assert_equal(example, EXAMPLES["train"][0])


def test_a_mask_of_many_classes(root):
    (root / "classes.txt").write_text("\n".join(f"class {i}" for i in range(200)))
    Image.fromarray(np.full((HEIGHT, WIDTH), 199, np.uint8)).save(
        root / "masks/train/train0000.png"
    )
    assert np.all(prepared(root)["train"].source[0]["segmentation"] == 199)


def test_photos_of_other_sizes_are_cut_in_the_middle(root, capsys):
    """A photo of twice the size with a margin at both sides shows the same in its middle."""
    example = EXAMPLES["train"][0]
    margin = ((0, 0), (7, 7))
    for name, fill in (("image", 0), ("segmentation", 1), ("depth", 9), ("normals", 0)):
        large = example[name].repeat(2, axis=0).repeat(2, axis=1)
        sides = margin + ((0, 0),) * (large.ndim - 2)
        large = np.pad(large, sides, constant_values=fill)
        if name == "image":
            Image.fromarray(large).save(root / "images/train/train0000.png")
        elif name == "segmentation":
            mask = np.where(large < 0, 255, large.astype(np.int16)).astype(np.uint8)
            Image.fromarray(mask).save(root / "masks/train/train0000.png")
        else:
            np.save(root / name / "train/train0000.npy", large)
    found = prepared(root, text="folder:field_of_view=60")["train"].source[0]
    assert_equal(found, example, ("segmentation", "depth", "normals"))
    inside = np.abs(found["image"].astype(int) - example["image"])[:, 1:-1]
    assert inside.mean() < 15
    # Twice the pixels and as wide a view with its margins, of which the middle is shown.
    focal = (2 * WIDTH + 14) / 2 / np.tan(np.radians(30)) / 2
    np.testing.assert_allclose(found["intrinsics"], [focal, focal, 11.5, 7.5], rtol=1e-6)
    assert "size of the images: 16x24 (5), 32x62 (1)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("shape", "size", "expected"),
    [
        ((480, 640), (96, 128), (0, 0, 480, 640)),
        ((480, 800), (96, 128), (0, 80, 480, 640)),
        ((640, 480), (96, 128), (140, 0, 360, 480)),
        ((1, 1000), (128, 128), (0, 499, 1, 1)),
        ((5, 1), (1, 1000), (2, 0, 1, 1)),
    ],
)
def test_the_middle_of_an_image(shape, size, expected):
    assert cutting.middle(shape, size) == expected


def test_the_focal_length_of_a_photo(root):
    exif = Image.Exif()
    exif[ExifTags.IFD.Exif] = {ExifTags.Base.FocalLengthIn35mmFilm: 28}
    path = root / "images/train/train0000.png"
    Image.open(path).save(path, exif=exif)
    focal = 28 / np.hypot(36, 24) * np.hypot(HEIGHT, WIDTH)
    intrinsics = prepared(root)["train"].source[0]["intrinsics"]
    np.testing.assert_allclose(intrinsics[:2], focal, rtol=1e-6)


def test_a_changed_folder_is_prepared_anew(root):
    before = prepared(root)["train"].source[0]["segmentation"]
    changes("masks/train/train0000.png", lambda x: x * 0)(root)
    after = prepared(root)["train"].source[0]["segmentation"]
    assert np.any(before != 0) and np.all(after == 0)
    stored = list((root.parent / "data").rglob("metadata.json"))
    assert len(stored) == 2
    assert json.loads(stored[0].read_text())["class_names"] == list(fakes.CLASSES)
