"""What a folder holds, counted while its files are read: printed once a set is prepared or refused.

Labels are counted as they are stored, which is at the size of all images.
"""

import collections
import dataclasses
import hashlib

import numpy as np

from datasets import checking
from datasets.folder.labels import VOID, Reading
from datasets.folder.layout import FOLDERS, Item, Layout

# Depths that are kept of an image, from which the quantiles come.
DEPTHS_PER_IMAGE = 100
# Number of sizes and of files that are listed; the others are counted.
LISTED = 5
# Images of a split on the page.
SHOWN = 6


@dataclasses.dataclass
class Account:
    """Facts about the images that were read.

    Attributes:
      layout: files of the folder.
      stored: height and width of the stored images.
      problems: all that were found, each with the name of a file.
      labelled: (split, name of labels) -> number of images with such a label.
      sizes: (height, width) of the photos -> their number.
      classes: pixels of each class, those without a class last.
      depths: depths of random pixels of each image, in metres.
      without_camera: number of photos that do not say their focal length.
      label_range: the lowest and the highest number in all masks, None without any.
      shown: split -> names and examples of up to `SHOWN` images, spread over the split.
    """

    layout: Layout
    stored: tuple[int, int]
    problems: list[str] = dataclasses.field(default_factory=list)
    labelled: collections.Counter = dataclasses.field(default_factory=collections.Counter)
    sizes: collections.Counter = dataclasses.field(default_factory=collections.Counter)
    classes: np.ndarray = dataclasses.field(init=False)
    depths: list[np.ndarray] = dataclasses.field(default_factory=list)
    without_camera: int = 0
    label_range: tuple[int, int] | None = None
    shown: dict[str, list[tuple[str, dict[str, np.ndarray]]]] = dataclasses.field(
        default_factory=dict
    )
    _seen: dict[bytes, tuple[str, Item]] = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        self.problems = list(self.layout.problems)
        self.classes = np.zeros(len(self.layout.class_names) + 1, np.int64)

    def read(self, split: str, item: Item, reading: Reading) -> list[str]:
        """Counts what was read, and returns what is wrong with it."""
        problems = [*reading.problems, *self._other_split(split, item, reading)]
        self.problems += problems
        if reading.image is not None:
            self.sizes[reading.image.shape[:2]] += 1
            self.without_camera += reading.focal_length is None
        if reading.label_range:
            low, high = self.label_range or reading.label_range
            self.label_range = min(low, reading.label_range[0]), max(high, reading.label_range[1])
        return problems

    def stored_example(self, split: str, number: int, example: dict[str, np.ndarray]) -> None:
        """Counts the labels of the image of this number, and keeps some examples to show them."""
        items = self.layout.items[split]
        if number in np.linspace(0, len(items) - 1, min(SHOWN, len(items))).astype(int):
            self.shown.setdefault(split, []).append((items[number].image.name, example))
        for entry in self.layout.entries:
            missing = VOID if entry == "segmentation" else 0
            self.labelled[split, entry] += bool(np.any(example[entry] != missing))
        if "segmentation" in example:
            # Void, -1, is the last one.
            labels = example["segmentation"].astype(np.int64) % len(self.classes)
            self.classes += np.bincount(labels.ravel(), minlength=len(self.classes))
        if "depth" in example:
            known = example["depth"][example["depth"] > 0].astype(np.float32)
            # A view would keep the depths of all pixels in memory.
            self.depths.append(known[:: 1 + known.size // DEPTHS_PER_IMAGE].copy())

    def refusal(self) -> str:
        """Returns the line with which a folder with problems is refused."""
        count = len(self.problems)
        what = (
            f"1 problem: {self.problems[0]}" if count == 1 else f"{count:,} problems, listed above"
        )
        return f"`folder`={self.layout.root}: {what}{self._hint()}"

    def lines(self) -> list[str]:
        """Returns what was found."""
        items, (height, width) = self.layout.items, self.stored
        sizes = [f"{rows}x{columns} ({n})" for (rows, columns), n in self.sizes.most_common()]
        lines = [
            f"{self.layout.root}: {len(items['train'])} images to train on and "
            f"{len(items['test'])} to test on, stored at {height}x{width} pixels",
            f"  size of the photos: {_listed(sizes)}",
            *(self._labels_line(entry) for entry in FOLDERS),
        ]
        if self.classes.sum() > 0:
            lines += self._class_lines()
        depths = np.concatenate(self.depths) if self.depths else np.zeros(0)
        if depths.size:
            lines += _depth_lines(depths)
        if self.without_camera:
            lines.append(
                f"  focal length: {self.without_camera} photos do not say theirs, and 60° are "
                "taken for the horizontal field of view"
            )
        if self.layout.ignored:
            lines.append(f"  not used: {_listed(self.layout.ignored)}")
        return lines

    def _other_split(self, split: str, item: Item, reading: Reading) -> list[str]:
        """Returns a problem if an image of another split has the same pixels."""
        if reading.image is None:
            return []
        digest = hashlib.sha256(reading.image.tobytes() + bytes(str(reading.image.shape), "ascii"))
        other, first = self._seen.setdefault(digest.digest(), (split, item))
        if other == split:
            return []
        return [
            f"{item.image} shows the same as {first.image}, which is in another split: remove one"
        ]

    def _labels_line(self, entry: str) -> str:
        if entry not in self.layout.entries:
            return f"  {entry}: no labels, since there are no files in {FOLDERS[entry]}/"
        parts = []
        for split, items in self.layout.items.items():
            count, share = self.labelled[split, entry], self.labelled[split, entry] / len(items)
            parts.append(f"{count} of {len(items)} images of {split} ({share:.0%})")
        return f"  {entry}: labels of {' and '.join(parts)}"

    def _class_lines(self) -> list[str]:
        names = (*self.layout.class_names, "no label")
        order = np.argsort(-self.classes, kind="stable")
        shares = [f"{names[i]} {self.classes[i] / self.classes.sum():.2%}" for i in order]
        absent = [name for name, n in zip(names[:-1], self.classes[:-1], strict=True) if n == 0]
        lines = [f"  pixels of the classes: {', '.join(shares)}"]
        if absent:
            lines.append(f"  WARNING: no pixel is labelled {', '.join(absent)}")
        return lines

    def _hint(self) -> str:
        count = len(self.layout.class_names)
        if self.label_range == (1, count):
            return (
                f". The masks hold 1 to {count} and classes.txt names {count} classes: classes are "
                "counted from 0, so subtract 1, or name class 0 in the first line of classes.txt"
            )
        if self.label_range is not None and self.label_range[1] >= count:
            return (
                f". The masks hold {self.label_range[0]} to {self.label_range[1]} and classes.txt "
                f"names {count} classes, which are 0 to {count - 1}: if one of the numbers marks "
                f"pixels without a label, set it as in `dataset`=folder:ignore_label="
                f"{self.label_range[1]}"
            )
        return ""


def _depth_lines(depths: np.ndarray) -> list[str]:
    low, median, high = np.quantile(depths, (0.01, 0.5, 0.99))
    lines = [f"  depth: median {median:.4g} m, 98 % of the pixels in {low:.4g} to {high:.4g} m"]
    smallest, largest = checking.MEDIAN_DEPTH
    if not smallest <= median <= largest:
        lines.append(
            f"  WARNING: a median depth of {median:.4g} m is unusual: is depth_scale right? Whole "
            "numbers are divided by it to give metres, as in `dataset`=folder:depth_scale=1000; "
            "other numbers must be metres"
        )
    return lines


def _listed(items: list[str] | tuple[str, ...]) -> str:
    """Returns the first items and the number of the others."""
    others = f" and {len(items) - LISTED:,} more" if len(items) > LISTED else ""
    return ", ".join(items[:LISTED]) + others
