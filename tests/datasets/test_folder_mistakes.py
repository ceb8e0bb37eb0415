"""A folder of one's own: mistakes in its files are named."""

import shutil

import numpy as np
import pytest
from PIL import ExifTags, Image

from tests.datasets.folder_files import EXAMPLES, HEIGHT, WIDTH, changes, cuts, prepared, save


def replaces(name, array):
    return lambda root: save(root / name, array)


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
CORNER = np.zeros((HEIGHT, WIDTH))
CORNER[0, 0] = 1
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
        f"{MASK} is 8x12 (height x width), but its image is 16x24: resize it without interpolation",
    ),
    "depth of another size": (
        replaces(DEPTH, np.ones((8, 12))),
        f"{DEPTH} is 8x12 (height x width), but its image is 16x24: resize it",
    ),
    "another case": (
        lambda root: (root / MASK).rename(root / "masks/train/Train0001.png"),
        "Train0001.png has no image, but train0001.png differs only in case, leading zeros or",
    ),
    "another number of zeros": (
        lambda root: (root / MASK).rename(root / "masks/train/train 1.png"),
        "train 1.png has no image, but train0001.png differs only in case, leading zeros or spaces",
    ),
    "two cases": (
        replaces("images/train/TRAIN0001.png", EXAMPLES["train"][3]["image"] // 2),
        "differ only in case",
    ),
    "a mask without an image": (
        copies(MASK, "masks/train/other.png"),
        "masks/train/other.png has no image of the same name (suffixes may differ): rename or",
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
    "depth too large": (replaces(DEPTH, 1e6 * CORNER + 1), f"{DEPTH} holds the depth 1e+06: metr"),
    "depth in millimetres": (
        replaces(DEPTH, 2431.0 * LEVEL),
        f"{DEPTH} has a median of 2431, where metres are expected: is it in millimetres? (floats "
        "must be metres, which depth_scale does not change: divide them by 1000)",
    ),
    "depth in whole millimetres of thousandths": (
        replaces(DEPTH, 2_431_000 * LEVEL),
        f"{DEPTH} has a median of 2431, where metres are expected: is it in millimetres? (whole "
        "numbers are divided by depth_scale=1000, which can be set as in",
    ),
    "depth of three channels": (replaces(DEPTH, np.ones((HEIGHT, WIDTH, 3))), "one number per pix"),
    "long normals": (changes(NORMALS, lambda x: 7 * x), f"{NORMALS} holds 7 in a normal"),
    "short normals": (
        changes(NORMALS, lambda x: x * np.float16(0.25)),
        f"{NORMALS} holds normals of length 0.25: unit vectors are expected",
    ),
    "normals away from the camera": (
        changes(NORMALS, lambda x: np.abs(x)),
        f"{NORMALS} points away from the camera",
    ),
    "normals of one channel": (replaces(NORMALS, LEVEL * 1.0), "three floats per pixel"),
    "a turned photo": (
        turned,
        "its image is 24x16 once it is upright, as its EXIF data ask: rotate it",
    ),
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
    assert "  depth: usable labels of 4 of 4 images of train (100%)" in "\n".join(printed)
