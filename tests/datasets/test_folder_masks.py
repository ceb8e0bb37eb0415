"""Masks of a folder: indices, palettes, colours that a file names, and numbers mapped to others."""

import re
import shutil

import numpy as np
import pytest
from PIL import Image

from tests import fakes
from tests.datasets import folder_files
from tests.datasets.folder_files import HEIGHT, WIDTH, prepared, refusal

EXAMPLES = folder_files.examples(2, 2)
# As CamVid's label_colors.txt, in another order than classes.txt.
COLOURS = {"wall": (128, 0, 0), "bed": (64, 128, 64), "floor": (0, 0, 192), "Void": (0, 0, 0)}
CAMVID = "".join(f"{r} {g} {b}\t{name}\n" for name, (r, g, b) in COLOURS.items())
MASK = "masks/train/train0001.png"


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    root = tmp_path_factory.mktemp("masks") / "mine"
    folder_files.write(root, EXAMPLES, fakes.CLASSES)
    shutil.rmtree(root / "depth")
    shutil.rmtree(root / "normals")
    return root


def change_masks(root, change, **options):
    """Replaces each mask by what a function makes of its numbers."""
    for path in (root / "masks").rglob("*.png"):
        made = change(np.array(Image.open(path)))
        (made if isinstance(made, Image.Image) else Image.fromarray(made)).save(path, **options)


def coloured(mask):
    """Returns a mask in the colours of `COLOURS`; 255 is void."""
    table = np.zeros((256, 3), np.uint8)
    for index, name in enumerate(fakes.CLASSES):
        table[index] = COLOURS[name]
    return table[mask]


def in_palette(mask, shuffle=0):
    """Returns a mask as a picture with a palette, its indices changed by some number."""
    picture = Image.fromarray(((mask.astype(int) + shuffle) % 256).astype(np.uint8)).convert("L")
    picture.putpalette(np.roll(coloured(np.arange(256)), shuffle, axis=0).tobytes())
    assert picture.mode == "P"
    return picture


def assert_unchanged(splits):
    for split, part in (("train", "train"), ("test", "val")):
        for i, expected in enumerate(EXAMPLES[part]):
            found = splits[split].source[i]["segmentation"]
            np.testing.assert_array_equal(found, expected["segmentation"])
    assert splits["train"].class_names == fakes.CLASSES


@pytest.mark.parametrize("bits", [2, 8])
def test_of_a_palette_without_its_file_the_indices_count(root, bits):
    text = "folder"
    if bits == 2:
        text = "folder:ignore_label=3"
        change_masks(root, lambda mask: in_palette(np.minimum(mask, 3)), bits=2)
    else:
        change_masks(root, in_palette)
    assert_unchanged(prepared(root, text))


@pytest.mark.parametrize("form", ["RGB", "RGBA", "palette"])
def test_colours_have_the_class_of_their_name(root, form):
    (root / "palette.txt").write_text(CAMVID)
    if form == "palette":
        change_masks(root, lambda mask: in_palette(mask, shuffle=7))
    else:
        change_masks(root, lambda mask: Image.fromarray(coloured(mask)).convert(form))
    assert_unchanged(prepared(root))


def test_a_palette_with_names_needs_no_classes(root):
    (root / "palette.txt").write_text(f"# colours\n\n{CAMVID}7,7,7,bed\n")
    (root / "classes.txt").unlink()
    change_masks(root, coloured)
    splits = prepared(root)
    assert splits["train"].class_names == ("wall", "bed", "floor")
    expected = EXAMPLES["train"][0]["segmentation"]
    found = splits["train"].source[0]["segmentation"]
    for index, name in enumerate(splits["train"].class_names):
        np.testing.assert_array_equal(found == index, expected == fakes.CLASSES.index(name))


def test_colours_without_names_are_in_the_order_of_the_classes(root):
    lines = [" ".join(map(str, COLOURS[name])) for name in fakes.CLASSES]
    (root / "palette.txt").write_text("\n".join(lines))
    change_masks(root, lambda mask: coloured(np.where(mask == 255, 0, mask)))
    found = prepared(root)["train"].source[0]["segmentation"]
    expected = EXAMPLES["train"][0]["segmentation"]
    np.testing.assert_array_equal(found, np.where(expected < 0, 0, expected))


def test_numbers_are_mapped(root):
    (root / "mapping.txt").write_text("# old new\n7 -> 1\n11, 0\n12 0\n300 2\n40 ignore\n")

    def change(mask):
        old = np.select([mask == 1, mask == 0, mask == 2], [7, 11, 300], 40)
        old[0, 0], old[0, 1] = 12, 255
        return old.astype(np.uint16)

    change_masks(root, change)
    found = prepared(root)["train"].source[0]["segmentation"]
    expected = EXAMPLES["train"][0]["segmentation"].copy()
    expected[0, 0], expected[0, 1] = 0, -1
    np.testing.assert_array_equal(found, expected)


def test_lines_of_a_palette_are_mapped(root):
    (root / "palette.txt").write_text(CAMVID)
    (root / "mapping.txt").write_text("0 2\n1 0\n2 1\n3 ignore\n")
    change_masks(root, coloured)
    assert_unchanged(prepared(root))


def test_the_number_without_a_label_has_no_class(root):
    change_masks(root, lambda mask: np.where(mask == 1, 255, 0).astype(np.uint8))
    (root / "mapping.txt").write_text("0 0\n255 1\n")
    with pytest.raises(ValueError, match=r"ignore_label=255 .*mapping.txt gives .* class floor:"):
        prepared(root)
    found = prepared(root, "folder:ignore_label=65535")["train"].source[0]["segmentation"]
    np.testing.assert_array_equal(found, EXAMPLES["train"][0]["segmentation"] == 1)


def test_the_256th_colour_of_a_palette_has_the_class_of_its_name(root):
    others = [f"{i} 1 1 Void\n" for i in range(255)]
    (root / "palette.txt").write_text("".join(others) + CAMVID)
    change_masks(root, coloured)
    with pytest.raises(ValueError, match=r"ignore_label=255 .*palette.txt gives .* class wall:"):
        prepared(root)
    assert_unchanged(prepared(root, "folder:ignore_label=65535"))


def test_a_changed_palette_is_prepared_anew(root):
    change_masks(root, coloured)
    (root / "palette.txt").write_text(CAMVID)
    assert_unchanged(prepared(root))
    (root / "palette.txt").write_text(CAMVID.replace("bed", "ignore"))
    found = prepared(root)["train"].source[0]["segmentation"]
    assert not np.any(found == 0)


def one_pixel(name, colour):
    def damage(root):
        array = coloured(np.array(Image.open(root / name)))
        array[5, 5] = colour
        change_masks(root, coloured)
        Image.fromarray(array).save(root / name)

    return damage


def with_palette(text):
    def damage(root):
        change_masks(root, coloured)
        (root / "palette.txt").write_text(text)

    return damage


def with_mapping(text):
    return lambda root: (root / "mapping.txt").write_text(text)


def both(*damages):
    return lambda root: [damage(root) for damage in damages]


def as_grey_colours(root):
    change_masks(root, lambda mask: np.stack(3 * [mask], axis=-1))


def as_jpeg(root):
    for path in (root / "masks/train").glob("*.png"):
        Image.open(path).save(path.with_suffix(".jpg"))
        path.unlink()


def transparent(root):
    with_palette(CAMVID)(root)
    array = np.array(Image.open(root / MASK).convert("RGBA"))
    array[:2, :3, 3] = 0
    Image.fromarray(array).save(root / MASK)


WRONG = {
    "no palette": (
        lambda root: change_masks(root, coloured),
        f"{MASK} holds colours (8-bit RGB), where the index of each pixel's class is expected: "
        "list the class of each colour in palette.txt, in lines such as 64 128 64 tree",
    ),
    "grey as colours": (as_grey_colours, f"{MASK} is grey, but not saved as such (8-bit RGB)"),
    "a colour that is not listed": (
        both(one_pixel(MASK, (1, 2, 3)), lambda root: (root / "palette.txt").write_text(CAMVID)),
        f"{MASK} holds the colour 1 2 3 at 1 pixel: not in palette.txt",
    ),
    "grey masks and a palette": (
        lambda root: (root / "palette.txt").write_text(CAMVID),
        f"{MASK} is 8-bit grey, where palette.txt lists colours: save it as 8-bit RGB, or remove",
    ),
    "transparent": (transparent, f"{MASK} is transparent at 6 pixels"),
    "a name that is no class": (
        with_palette(CAMVID.replace("bed", "sofa")),
        "palette.txt names sofa, which is not in classes.txt",
    ),
    "a colour twice": (
        with_palette(CAMVID + "0 0 192 bed\n"),
        "palette.txt: line 5 has the colour 0 0 192 of an earlier line",
    ),
    "a colour beyond 255": (
        with_palette(CAMVID + "0 0 256 bed\n"),
        "palette.txt: line 5 does not begin with red, green and blue from 0 to 255",
    ),
    "the name first": (with_palette("bed 0 0 0\n"), "palette.txt: line 1 does not begin with red"),
    "some names": (with_palette(CAMVID + "9 9 9\n"), "palette.txt has a name in some lines only"),
    "fewer colours": (with_palette("0 0 0\n"), "has 1 colours and classes.txt 3 names"),
    "an empty palette": (with_palette("# R G B\n"), "palette.txt is empty"),
    "a palette that is no text": (
        lambda root: (root / "palette.txt").write_bytes(b"\xff\xfe\x00"),
        "palette.txt is not text in UTF-8",
    ),
    "a number that is not mapped": (
        with_mapping("0 0\n1 1\n255 ignore\n"),
        f"{MASK} holds 2 at COUNT pixels: list it in mapping.txt, with its class or the word",
    ),
    "mapped to no class": (
        with_mapping("0 0\n1 1\n2 3\n"),
        "mapping.txt: line 3 maps 2 to 3, which is neither a class from 0 to 2 nor the word ignore",
    ),
    "mapped to a name": (with_mapping("0 bed\n"), "mapping.txt: line 1 maps 0 to bed, which is"),
    "mapped twice": (with_mapping("0 0\n0 1\n"), "mapping.txt: line 2 maps 0 again"),
    "a line of three": (with_mapping("0 0 0\n"), "mapping.txt: line 1 is not OLD NEW: a number"),
    "a negative number": (with_mapping("-1 0\n"), "mapping.txt: line 1 is not OLD NEW: a number"),
    "an empty mapping": (with_mapping(""), "mapping.txt is empty"),
    "JPEG": (
        as_jpeg,
        "masks/train/train0001.jpg is in none of the formats that are read from masks/: .png",
    ),
}


@pytest.mark.parametrize("mistake", WRONG)
def test_mistakes_are_named(root, capsys, mistake):
    damage, text = WRONG[mistake]
    damage(root)
    count = np.count_nonzero(EXAMPLES["train"][1]["segmentation"] == 2)
    assert text.replace("COUNT", str(count)) in refusal(root, capsys)


def test_each_wrong_line_and_each_wrong_mask_is_named(root, capsys):
    (root / "palette.txt").write_text(CAMVID + "0 0 192 bed\n1 2 bed\n")
    (root / "mapping.txt").write_text("0 9\n1\n")
    Image.new("L", (3, 2)).save(root / "images/val/val0001.png")
    (root / "images/train/train0000.png").write_text("x")
    found = refusal(root, capsys)
    assert "5 problems, listed above" in found
    assert len(re.findall("(?m)^palette.txt: line|^mapping.txt: line", found)) == 4
    # Masks are not read before it is known what they mean.
    assert MASK not in found


def test_the_most_frequent_of_many_colours_are_named(root, capsys):
    (root / "palette.txt").write_text(CAMVID)
    change_masks(root, coloured)
    array = coloured(np.zeros((HEIGHT, WIDTH), int))
    array[0, :4] = np.arange(12).reshape(4, 3)
    array[1:3] = (9, 9, 8)
    Image.fromarray(array).save(root / MASK)
    assert (
        f"{MASK} holds the colour 9 9 8 at 48 pixels, 0 1 2 at 1 pixel, 3 4 5 at 1 pixel and 2 "
        "others: not in palette.txt" in refusal(root, capsys)
    )
