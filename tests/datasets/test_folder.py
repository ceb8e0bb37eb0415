"""A folder of one's own: what is stored of its files, and what is said about them."""

import base64
import hashlib
import io
import json
import os
import re
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import ExifTags, Image

import datasets
from datasets import account, cutting
from datasets.folder import layout
from mtl_jax import data
from mtl_jax.tasks import SEGMENTATION
from mtl_jax.tasks.pictures import class_colours
from mtl_jax.training.evaluation import judge_predictions, predict_constant, trivial_predictor
from tests import fakes
from tests.datasets import folder_files

HEIGHT, WIDTH = 16, 24
EXAMPLES = {
    part: [fakes.example(first + i, height=HEIGHT, width=WIDTH) for i in range(count)]
    for part, first, count in (("train", 0, 4), ("val", 100, 2))
}


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    root = tmp_path_factory.mktemp("folder") / "mine"
    folder_files.write(root, EXAMPLES, fakes.CLASSES)
    return root


def prepared(root, *, text="folder", size=(HEIGHT, WIDTH), data_dir=None):
    """Returns the splits of the set that is prepared from a folder."""
    data_dir = data_dir or root.parent / "data"
    builder = datasets.builder(text, image_size=size, data_dir=data_dir, folder=root)
    datasets.prepare(builder)
    return data.open_splits(builder)


def assert_equal(example, expected, entries=("image", "segmentation", "depth", "normals")):
    for name in entries:
        assert example[name].dtype == expected[name].dtype, name
        np.testing.assert_array_equal(example[name], expected[name], err_msg=name)


def test_examples_come_back_as_they_were_written(root, capsys):
    splits = prepared(root)
    for split, part in (("train", "train"), ("test", "val")):
        assert len(splits[split]) == len(EXAMPLES[part])
        for i, expected in enumerate(EXAMPLES[part]):
            assert_equal(splits[split].source[i], expected)
    assert splits["train"].class_names == fakes.CLASSES
    printed = capsys.readouterr().out
    assert f"{root}: 4 images to train on and 2 to test on, stored at 16x24 pixels" in printed
    assert "size of the photos: 16x24 (6)" in printed
    labelled = "labels of 4 of 4 images of train (100%) and 2 of 2 images of test (100%)"
    for entry in ("segmentation", "depth", "normals"):
        assert f"  {entry}: {labelled}" in printed
    masks = np.stack([x["segmentation"] for part in EXAMPLES.values() for x in part])
    for index, name in enumerate((*fakes.CLASSES, "no label")):
        share = np.mean(masks == (index if index < len(fakes.CLASSES) else -1))
        assert f"{name} {share:.2%}" in printed
    assert "cameras: unknown for 6 photos" in printed
    assert not np.any(splits["train"].source[0]["intrinsics"])


def shots(page):
    """Returns the pictures below each heading of a page, in rows."""
    sections = re.split("<h2>(.*?)</h2>", page)
    return {
        title: [
            [
                np.asarray(Image.open(io.BytesIO(base64.b64decode(text))).convert("RGB"))
                for text in re.findall('src="data:image/webp;base64,([^"]+)"', row)
            ]
            for row in body.split('<div class="shots">')[1:]
        ]
        for title, body in zip(sections[1::2], sections[2::2], strict=True)
    }


def test_the_page_shows_images_with_their_labels_over_them(root, capsys):
    (root / "masks/train/train0001.png").unlink()
    prepared(root)
    (line,) = [x for x in capsys.readouterr().out.splitlines() if x.startswith("page: ")]
    page = Path(line.removeprefix("page: ")).read_text()
    assert "4 images to train on and 2 to test on" in page
    assert "<td>train</td><td>4</td><td>3 of 4 (75%)</td><td>4 of 4 (100%)</td>" in page
    found = shots(page)
    assert [len(row) for row in found["Images of train"]] == [4, 3, 4, 4]
    assert [len(row) for row in found["Images of test"]] == [4, 4]
    assert page.count(">no segmentation</figure>") == 1
    example = EXAMPLES["train"][0]
    image, classes, _, normals = found["Images of train"][0]
    # The pictures are compressed, so that only means can be compared.
    np.testing.assert_allclose(image.mean((0, 1)), example["image"].mean((0, 1)), atol=4)
    colours = class_colours(len(fakes.CLASSES))[example["segmentation"]]
    grey = example["image"].mean(-1, keepdims=True)
    over = np.where((example["segmentation"] >= 0)[..., None], 0.6 * colours + 0.4 * grey, grey)
    np.testing.assert_allclose(classes.mean((0, 1)), over.mean((0, 1)), atol=4)
    assert image.shape == classes.shape == normals.shape == (HEIGHT, WIDTH, 3)
    for name in fakes.CLASSES:
        assert f"<span>{name}</span>" in page
    depth = np.concatenate([x["depth"][x["depth"] > 0] for p in EXAMPLES.values() for x in p])
    assert f"<td>{np.median(depth.astype(np.float32)):.4g} m</td>" in page


def test_the_page_of_a_refused_folder_lists_all_problems(root, capsys):
    cuts("masks/train/train0000.png")(root)
    (root / "images/val/val0000.png").write_text("x")
    (root / "masks/val/<b>.png").write_text("x")
    with pytest.raises(
        ValueError, match="3 problems, listed above .all of them, with pic"
    ) as error:
        prepared(root)
    path = Path(re.search(r"with pictures: (.*)\)$", str(error.value))[1])
    assert path.is_relative_to(root.parent / "data")
    page = path.read_text()
    assert page.count("<li>/") == 3 and "&lt;b&gt;.png has no image" in page
    assert [len(row) for row in shots(page)["Images of train"]] == [3, 4, 4, 4]
    shutil.copy(root / "masks/train/train0001.png", root / "masks/train/train0000.png")
    (root / "masks/val/<b>.png").unlink()
    (root / "masks/val/val0000.png").unlink()
    (root / "images/val/val0000.png").unlink()
    for entry in ("depth", "normals"):
        (root / entry / "val/val0000.npy").unlink()
    prepared(root)
    assert not path.exists()


def test_the_page_shows_classes_in_the_colours_of_the_palette(root):
    chosen = [(200, 10, 20), (30, 200, 40), (50, 60, 200), (1, 2, 3)]
    names = [*fakes.CLASSES, "ignore"]
    lines = [f"{r} {g} {b} {name}" for (r, g, b), name in zip(chosen, names, strict=True)]
    (root / "palette.txt").write_text("\n".join(lines))
    for path in sorted((root / "masks").rglob("*.png")):
        mask = np.minimum(np.array(Image.open(path)), 3)
        Image.fromarray(np.array(chosen, np.uint8)[mask]).save(path)
    prepared(root)
    page = next((root.parent / "data").rglob("found.html")).read_text()
    for colour, name in zip(chosen[:3], fakes.CLASSES, strict=True):
        assert f'background: rgb{colour}"></b><span>{name}</span>' in page


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
    assert "size of the photos: 16x24 (5), 32x62 (1)" in capsys.readouterr().out


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


def test_the_size_is_that_of_most_photos_unless_it_is_set(root):
    def size(files):
        return layout.usual_size(layout.find(files))

    assert size(root) == (32, 32)
    for number in range(3):
        path = root / f"images/train/train000{number}.png"
        Image.new("RGB", (1280, 960)).save(path)
    assert size(root) == (384, 512)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    for number in range(3):
        path = root / f"images/train/train000{number}.png"
        Image.new("RGB", (1280, 960)).save(path, exif=exif)
    assert size(root) == (512, 384)


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


def test_what_is_not_used_is_listed(root, capsys):
    (root / "images/train/.DS_Store").write_text("x")
    (root / "masks/val/notes.txt").write_text("x")
    (root / "images/test").mkdir()
    (root / "normal").mkdir()
    prepared(root)
    assert (
        "not used: normal/, images/test/, images/train/.DS_Store, masks/val/notes.txt"
        in capsys.readouterr().out
    )


def test_an_unusual_depth_is_printed(root, capsys):
    for path in (root / "depth").rglob("*.npy"):
        np.save(path, 1000 * np.load(path).astype(np.float32))
    prepared(root)
    printed = capsys.readouterr().out
    values = np.concatenate([x["depth"][x["depth"] > 0] for p in EXAMPLES.values() for x in p])
    assert f"depth: median {1000 * np.median(values):.4g} m" in printed
    assert "is unusual: is depth_scale right?" in printed


def test_a_class_without_pixels_is_printed(root, capsys):
    (root / "classes.txt").write_text("\n".join((*fakes.CLASSES, "sky")))
    prepared(root)
    assert "WARNING: no pixel is labelled sky" in capsys.readouterr().out


def save(path, array):
    np.save(path, array) if path.suffix == ".npy" else Image.fromarray(array).save(path)


def replaces(name, array):
    return lambda root: save(root / name, array)


def changes(name, change):
    """Changes the numbers of a file."""

    def damage(root):
        path = root / name
        array = np.load(path) if path.suffix == ".npy" else np.array(Image.open(path))
        save(path, change(array))

    return damage


def cuts(name):
    return lambda root: (root / name).write_bytes((root / name).read_bytes()[:-30])


def copies(name, to):
    return lambda root: shutil.copy(root / name, root / to)


def from_one(root):
    for path in (root / "masks").rglob("*.png"):
        mask = np.array(Image.open(path))
        Image.fromarray(np.where(mask < 255, mask + 1, mask).astype(np.uint8)).save(path)


def four_bits(root):
    mask = root / "masks/train/train0001.png"
    Image.fromarray(np.zeros((HEIGHT, WIDTH), np.uint8)).convert("P").save(mask, bits=4)
    content = bytearray(mask.read_bytes())
    # The header then says grey, and is followed by a palette, which PNG forbids.
    content[25] = 0
    mask.write_bytes(content)


def turned(root):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    path = root / "images/train/train0001.png"
    Image.open(path).save(path, exif=exif)


MASK, PHOTO = "masks/train/train0001.png", "images/train/train0001.png"
DEPTH, NORMALS = "depth/train/train0001.npy", "normals/train/train0001.npy"
LEVEL = np.full((HEIGHT, WIDTH), 1)
WRONG = {
    "a label out of range": (changes(MASK, lambda x: x * 0 + 7), f"{MASK} has the label 7 outside"),
    "labels from 1": (from_one, "classes are counted from 0, so subtract 1"),
    "colours": (
        replaces(MASK, EXAMPLES["train"][1]["image"]),
        f"{MASK} holds colours (8-bit RGB), where the index",
    ),
    "four bits": (four_bits, f"{MASK} is 4-bit grey"),
    "a mask of another size": (
        replaces(MASK, np.zeros((8, 12), np.uint8)),
        f"{MASK} is 8x12, but its image is 16x24",
    ),
    "depth of another size": (
        replaces(DEPTH, np.ones((8, 12))),
        f"{DEPTH} is 8x12, but its image is 16x24",
    ),
    "another case": (
        lambda root: (root / MASK).rename(root / "masks/train/Train0001.png"),
        "Train0001.png has no image but train0001.png differs only in case",
    ),
    "two cases": (
        replaces("images/train/TRAIN0001.png", EXAMPLES["train"][3]["image"] // 2),
        "differ only in case",
    ),
    "a mask without an image": (
        copies(MASK, "masks/train/other.png"),
        "masks/train/other.png has no image of the same name",
    ),
    "a photo in both": (
        copies(PHOTO, "images/val/val0001.png"),
        f"images/val/val0001.png shows the same as ROOT/{PHOTO}",
    ),
    "two photos of one name": (copies(PHOTO, "images/train/train0001.jpg"), "have the same name"),
    "no photo": (lambda root: (root / PHOTO).write_text("x" * 99), f"{PHOTO} can't be read"),
    "a photo that is cut off": (cuts(PHOTO), f"{PHOTO} can't be read"),
    "a mask that is cut off": (cuts(MASK), f"{MASK} can't be read as a PNG"),
    "an array that is cut off": (cuts(DEPTH), f"{DEPTH} is truncated"),
    "depth of 8 bits": (
        replaces("depth/train/train0001.png", LEVEL.astype(np.uint8)),
        "is 8-bit grey, where 16-bit grey is expected",
    ),
    "depth that is no number": (changes(DEPTH, lambda x: x + np.nan), f"{DEPTH} holds NaN"),
    "depth below 0": (changes(DEPTH, lambda x: -x), f"{DEPTH} holds the negative depth"),
    "depth too large": (replaces(DEPTH, 1e6 * LEVEL), f"{DEPTH} holds the depth 1e+06"),
    "depth of three channels": (replaces(DEPTH, np.ones((HEIGHT, WIDTH, 3))), "one number per pix"),
    "long normals": (changes(NORMALS, lambda x: 7 * x), f"{NORMALS} holds 7 in a normal"),
    "normals away from the camera": (
        changes(NORMALS, lambda x: np.abs(x)),
        f"{NORMALS} points away from the camera",
    ),
    "normals of one channel": (replaces(NORMALS, LEVEL * 1.0), "three floats per pixel"),
    "a turned photo": (turned, "its image is 24x16 (once it is upright, as its EXIF data ask)"),
    "names of masks that are not those of photos": (
        lambda root: [
            x.rename(x.with_stem(f"{x.stem}_mask")) for x in (root / "masks").rglob("*.png")
        ],
        "masks/train/train0000_mask.png has no image of the same name",
    ),
    "masks of val alone": (
        lambda root: shutil.rmtree(root / "masks/train"),
        "masks has no files for the images to train on",
    ),
    "no classes": (lambda root: (root / "classes.txt").unlink(), "classes.txt is missing, and"),
    "a class twice": (
        lambda root: (root / "classes.txt").write_text("bed\nbed\nwall"),
        "classes.txt names 'bed' twice",
    ),
    "no names": (
        lambda root: (root / "classes.txt").write_text("\n"),
        "classes.txt is empty",
    ),
    "an empty line": (
        lambda root: (root / "classes.txt").write_text("bed\n\nwall"),
        "classes.txt: line 2 is empty",
    ),
    "classes that are no text": (
        lambda root: (root / "classes.txt").write_bytes(b"\xff\xfe\x00"),
        "classes.txt is not text in UTF-8",
    ),
    "no val": (lambda root: shutil.rmtree(root / "images/val"), "has train/ but no val/"),
    "no images": (lambda root: shutil.rmtree(root / "images"), "has no folder images/"),
    "no photos": (
        lambda root: [path.unlink() for path in (root / "images/val").iterdir()],
        "images/val holds no photos",
    ),
}


@pytest.mark.parametrize("mistake", WRONG)
def test_mistakes_are_named(root, capsys, mistake):
    damage, text = WRONG[mistake]
    if mistake == "depth of 8 bits":
        (root / DEPTH).unlink()
    damage(root)
    with pytest.raises(ValueError) as error:
        prepared(root)
    assert "\n" not in str(error.value)
    assert str(error.value).startswith(("`folder`=", "`dataset`=folder: "))
    assert text.replace("ROOT", str(root)) in f"{capsys.readouterr().out}{error.value}"
    left = [path.name for path in (root.parent / "data").rglob("*") if path.is_file()]
    assert len(left) <= 1 and all(name in str(error.value) for name in left)


def test_all_problems_are_listed(root, capsys):
    for number in range(4):
        cuts(f"masks/train/train000{number}.png")(root)
    (root / "images/val/val0000.png").write_text("x")
    copies(MASK, "masks/val/other.png")(root)
    with pytest.raises(
        ValueError, match=f"^`folder`={root}: 6 problems, listed above .all of them"
    ):
        prepared(root)
    printed = capsys.readouterr().out.splitlines()
    found = [line for line in printed if line.startswith(f"{root}/")]
    assert len(found) == 6, found
    assert "depth: labels of 4 of 4 images of train (100%)" in "\n".join(printed)


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


def test_the_account_keeps_few_depths_of_an_image():
    kept = account.Account(
        source="rooms",
        setting="`dataset`=rooms",
        images={"train": 1},
        class_names=fakes.CLASSES,
        entries=("depth",),
        stored=(64, 96),
    )
    kept.example("train", 0, "a", fakes.example(0, height=64, width=96))
    (depths,) = kept.depths
    assert depths.base is None
    assert 50 <= depths.size <= account.DEPTHS_PER_IMAGE
