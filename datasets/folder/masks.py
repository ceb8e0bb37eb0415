"""The classes of the pixels of a mask: by their numbers, or by colours that palette.txt lists.

Every pixel first has a number: the one in the file or, with palette.txt, the number of the line of
its colour, from 0. The pixels of `ignore_label` have no class. The others have the class that
mapping.txt gives their number, or else that of the name in palette.txt, or else their number.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from datasets import array_files
from datasets.folder import texts

VOID = -1
LARGEST_NUMBER = 65535
PALETTE, MAPPING = "palette.txt", "mapping.txt"
# Words, in either case, for what has no class.
NO_CLASS = ("ignore", "void")
# Forms whose numbers Pillow would change.
SCALED = ("2-bit grey", "4-bit grey")
# Most colours or numbers of a file that a message lists; the others are counted.
LISTED = 3


class Palette(NamedTuple):
    """The lines of palette.txt.

    Attributes:
      colours: u8[n, 3].
      names: of each colour; None if the lines have none.
    """

    colours: np.ndarray
    names: tuple[str, ...] | None


class Coding(NamedTuple):
    """How the pixels of all masks become classes.

    Attributes:
      colours: u8[n, 3] of the numbers from 0; None if the files hold numbers.
      classes: number -> class, or `VOID`; None if they are the same.
      source: path of the file that the classes come from, None without one.
    """

    colours: np.ndarray | None = None
    classes: Mapping[int, int] | None = None
    source: Path | None = None


def read_palette(path: Path) -> tuple[Palette, list[str]]:
    """Returns the colours of a file with lines `R G B` or `R G B NAME`, and what is wrong in it.

    Raises:
      ValueError: in one line, if the file can't be read.
    """
    colours: dict[tuple[int, ...], str] = {}
    problems = []
    for place, words in texts.rows(path):
        colour = tuple(int(word) if word.isascii() and word.isdigit() else -1 for word in words[:3])
        if len(colour) < 3 or not all(0 <= part <= 255 for part in colour):
            problems.append(f"{place} does not begin with red, green and blue from 0 to 255")
        elif colour in colours:
            problems.append(f"{place} has the colour {_colour_text(colour)} of an earlier line")
        else:
            colours[colour] = " ".join(words[3:])
    named = [bool(name) for name in colours.values()]
    if any(named) and not all(named):
        problems.append(f"{path} has a name in some lines only: give all colours one, or none")
    if not colours and not problems:
        problems.append(f"{path} is empty")
    array = np.array(list(colours), np.uint8).reshape(-1, 3)
    return Palette(array, tuple(colours.values()) if any(named) else None), problems


def names_of(palette: Palette) -> tuple[str, ...]:
    """Returns the classes that a palette names, in the order of its lines."""
    names = palette.names or ()
    return tuple(dict.fromkeys(name for name in names if name.lower() not in NO_CLASS))


def read_mapping(path: Path, num_classes: int) -> tuple[dict[int, int], list[str]]:
    """Returns number -> class of a file with lines `OLD NEW`, and what is wrong in it.

    Raises:
      ValueError: in one line, if the file can't be read.
    """
    classes: dict[int, int] = {}
    problems = []
    for place, words in texts.rows(path):
        # As in `7 -> 1`.
        words = [word for word in words if word != "->"]
        old, new = words if len(words) == 2 else ("", "")
        if not (old.isascii() and old.isdigit() and int(old) <= LARGEST_NUMBER):
            problems.append(
                f"{place} is not OLD NEW: a number from 0 to {LARGEST_NUMBER}, and its class or "
                "the word ignore"
            )
            continue
        known = new.isascii() and new.isdigit() and int(new) < num_classes
        if not known and new.lower() not in NO_CLASS:
            problems.append(
                f"{place} maps {old} to {new}, which is neither a class from 0 to "
                f"{num_classes - 1} nor the word ignore"
            )
        elif int(old) in classes:
            problems.append(f"{place} maps {old} again")
        else:
            classes[int(old)] = int(new) if known else VOID
    if not classes and not problems:
        problems.append(f"{path} is empty")
    return classes, problems


def coding(root: Path, class_names: Sequence[str]) -> tuple[Coding | None, list[str]]:
    """Returns how the masks of a folder are read, and what is wrong with the files that say it.

    Returns:
      None where something is wrong, since every mask would be wrong as well.

    Raises:
      ValueError: in one line, if one of the files can't be read.
    """
    palette, classes, source = None, None, None
    problems: list[str] = []
    if (root / PALETTE).exists():
        palette, problems = read_palette(root / PALETTE)
    if (root / MAPPING).exists():
        source = root / MAPPING
        classes, more = read_mapping(source, len(class_names))
        problems += more
    elif palette and palette.names:
        source = root / PALETTE
        classes, more = _by_name(palette.names, class_names, source)
        problems += more
    elif palette and not problems and len(palette.colours) != len(class_names):
        problems.append(
            f"{root / PALETTE} has {len(palette.colours)} colours and classes.txt "
            f"{len(class_names)} names: write the name of its class after each colour"
        )
    if problems:
        return None, problems
    return Coding(None if palette is None else palette.colours, classes, source), []


def _by_name(
    names: Sequence[str], class_names: Sequence[str], path: Path
) -> tuple[dict[int, int], list[str]]:
    numbers = {name: number for number, name in enumerate(class_names)}
    classes = {}
    problems = []
    for number, name in enumerate(names):
        if name in numbers or name.lower() in NO_CLASS:
            classes[number] = numbers.get(name, VOID)
        else:
            problems.append(
                f"{path} names {name}, which is not in classes.txt: write the name of a class "
                "there, or ignore"
            )
    return classes, problems


def read(path: Path, code: Coding, ignore_label: int) -> np.ndarray:
    """Returns the classes of a mask, i32[H, W]; `VOID` where it has none.

    Raises:
      ValueError: in one line, for a file of the wrong form, or colours or numbers not listed.
    """
    numbers = _numbers(path) if code.colours is None else _coloured(path, code.colours)
    known = numbers != ignore_label
    if code.classes is None:
        return np.where(known, numbers, VOID)
    table = np.full(max([*code.classes, int(numbers.max(initial=0))]) + 1, VOID - 1, np.int32)
    table[list(code.classes)] = list(code.classes.values())
    classes = np.where(known, table[numbers], VOID)
    unknown = numbers[classes < VOID]
    if unknown.size:
        values, counts = np.unique(unknown, return_counts=True)
        raise ValueError(
            f"{path} holds {_most(map(str, values), counts)}: list it in {code.source}, with its "
            "class or the word ignore"
        )
    return classes


def _numbers(path: Path) -> np.ndarray:
    """Returns the numbers in a PNG, i32[H, W]."""
    pixels = array_files.png_form(path).pixels
    if pixels in SCALED:
        raise ValueError(f"{path} is {pixels}: save it as 8-bit grey or with a palette")
    if not pixels.endswith(("bit grey", "palette")):
        colours = array_files.load_png(path, mode="RGB")
        if np.all(colours == colours[..., :1]):
            what, remedy = "is grey, but not saved as such", "save it as 8-bit grey"
        else:
            what = "holds colours"
            remedy = f"list the class of each colour in {PALETTE}, in lines such as 64 128 64 tree"
        raise ValueError(
            f"{path} {what} ({pixels}), where the index of each pixel's class is expected: {remedy}"
        )
    return array_files.load_png(path).astype(np.int32)


def _coloured(path: Path, colours: np.ndarray) -> np.ndarray:
    """Returns the numbers of the colours in a PNG, i32[H, W]."""
    pixels = array_files.png_form(path).pixels
    if not pixels.startswith("8-bit RGB") and not pixels.endswith("palette"):
        raise ValueError(
            f"{path} is {pixels}, where {PALETTE} lists colours: save it as 8-bit RGB, or remove "
            f"{PALETTE} if its numbers are classes"
        )
    array = array_files.load_png(path, mode="RGBA")
    transparent = int(np.count_nonzero(array[..., 3] < 255))
    if transparent:
        raise ValueError(f"{path} is transparent at {transparent:,} pixels: save it as 8-bit RGB")
    found = _packed(array)
    known = _packed(colours)
    order = np.argsort(known)
    nearest = np.minimum(np.searchsorted(known[order], found), len(known) - 1)
    numbers = order[nearest].astype(np.int32)
    wrong = known[numbers] != found
    if np.any(wrong):
        values, counts = np.unique(array[wrong][:, :3], axis=0, return_counts=True)
        raise ValueError(
            f"{path} holds the colour {_most(map(_colour_text, values), counts)}: not in {PALETTE}"
        )
    return numbers


def _packed(colours: np.ndarray) -> np.ndarray:
    """Returns one number for each colour [..., 3]."""
    red, green, blue = (colours[..., channel].astype(np.int32) for channel in range(3))
    return (red << 16) | (green << 8) | blue


def _colour_text(colour: Sequence[int]) -> str:
    return " ".join(map(str, colour))


def _most(names: Iterable[str], counts: np.ndarray) -> str:
    """Returns the most frequent names with their pixels, and how many others there are."""
    named = list(names)
    order = np.argsort(-counts, kind="stable")
    listed = [
        f"{named[i]} at {counts[i]:,} pixel{'s' * bool(counts[i] != 1)}" for i in order[:LISTED]
    ]
    others = f" and {len(order) - LISTED:,} others" if len(order) > LISTED else ""
    return ", ".join(listed) + others
