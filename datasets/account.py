"""What a set of one's own holds, counted while its images are read.

It is printed, and shown on a page, once the set is prepared or refused. Labels are counted as they
are stored, which is at the size of all images.
"""

import collections
import dataclasses
import hashlib
import itertools
from collections.abc import Mapping, Sequence

import numpy as np

from datasets import checking, lookalikes
from mtl_jax.tasks import class_colours

# Labels that an example may hold -> what stands for a missing one.
MISSING = {"segmentation": -1, "depth": 0, "normals": 0}
# Most depths that are kept of an image, for the quantiles.
DEPTHS_PER_IMAGE = 100
QUANTILES = (0.01, 0.25, 0.5, 0.75, 0.99)
# Number of sizes and of files that are listed; the others are counted.
LISTED = 5
# Images of a split on the page.
SHOWN = 6


@dataclasses.dataclass(kw_only=True)
class Account:
    """Facts about the images that were read.

    Attributes:
      source: where the images come from.
      setting: the setting that chose them, in backticks, which begins the line of a refusal.
      images: split -> number of its images.
      class_names: of the segmentation.
      entries: names of the labels that an image can have.
      stored: height and width of the stored images.
      problems: all that were found, each with the name of an image or a file.
      labelled: (split, name of labels) -> number of images with such a label.
      sizes: (height, width) of the images as they are read -> their number.
      classes: pixels of each class, those without a class last.
      depths: of each image depths in metres, and the number of pixels that each of them stands for.
      without_camera: number of images whose focal length is unknown.
      shown: split -> names and examples of up to `SHOWN` images, spread over the split.
    """

    source: str
    setting: str
    images: Mapping[str, int]
    class_names: Sequence[str]
    entries: Sequence[str]
    stored: tuple[int, int]
    problems: list[str] = dataclasses.field(default_factory=list)
    labelled: collections.Counter = dataclasses.field(default_factory=collections.Counter)
    sizes: collections.Counter = dataclasses.field(default_factory=collections.Counter)
    classes: np.ndarray = dataclasses.field(init=False)
    depths: list[tuple[np.ndarray, int]] = dataclasses.field(default_factory=list)
    without_camera: int = 0
    shown: dict[str, list[tuple[str, dict[str, np.ndarray]]]] = dataclasses.field(
        default_factory=dict
    )
    _unusual: list[str] = dataclasses.field(default_factory=list)
    _seen: dict[bytes, tuple[str, str]] = dataclasses.field(default_factory=dict)
    _looks: dict[str, dict[str, np.ndarray]] = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        self.classes = np.zeros(len(self.class_names) + 1, np.int64)

    def absent(self, entry: str) -> str:
        """Returns why no image has a kind of labels, as a clause."""
        return f"no image has {entry}"

    def hint(self) -> str:
        """Returns what the problems together suggest, as sentences after a full stop, or ""."""
        return ""

    def notes(self) -> list[str]:
        """Returns further lines."""
        count = self.without_camera
        return [f"cameras: unknown for {counted(count, 'image')}"] if count else []

    def image(self, split: str, name: str, pixels: np.ndarray, *, has_camera: bool) -> list[str]:
        """Counts an image u8[H, W, C] as it was read; returns what is wrong with it."""
        self.sizes[pixels.shape[:2]] += 1
        self.without_camera += not has_camera
        digest = hashlib.sha256(pixels.tobytes() + bytes(str(pixels.shape), "ascii")).digest()
        other, first = self._seen.setdefault(digest, (split, name))
        if other == split:
            self._looks.setdefault(split, {})[name] = lookalikes.look(pixels)
            return []
        return [f"{name} shows the same as {first}, which is in another split: remove one"]

    def example(self, split: str, number: int, name: str, example: dict[str, np.ndarray]) -> None:
        """Counts the labels of the image of this number, and keeps some examples to show them."""
        count = self.images[split]
        if number in np.linspace(0, count - 1, min(SHOWN, count)).astype(int):
            self.shown.setdefault(split, []).append((name, example))
        for entry in self.kinds():
            self.labelled[split, entry] += bool(np.any(example[entry] != MISSING[entry]))
        if "segmentation" in example:
            # Void, -1, becomes the last one.
            labels = example["segmentation"].astype(np.int64) % len(self.classes)
            self.classes += np.bincount(labels.ravel(), minlength=len(self.classes))
        if "depth" in example:
            known = example["depth"][example["depth"] > 0].astype(np.float32)
            step = 1 + known.size // DEPTHS_PER_IMAGE
            # A view would keep the depths of all pixels in memory.
            kept = known[::step].copy()
            self.depths.append((kept, step))
            smallest, largest = checking.MEDIAN_DEPTH
            if kept.size and not smallest <= (median := np.median(kept)) <= largest:
                self._unusual.append(f"{name} ({median:.4g} m)")

    def colours(self) -> np.ndarray:
        """Returns the colours u8[n, 3] of the classes in pictures."""
        return class_colours(len(self.class_names))

    def kinds(self) -> list[str]:
        """Returns the names of the labels that are counted."""
        return [entry for entry in MISSING if entry in self.entries]

    def refusal(self) -> str:
        """Returns the line with which a set with problems is refused."""
        count = len(self.problems)
        what = (
            f"1 problem: {self.problems[0]}" if count == 1 else f"{count:,} problems, listed above"
        )
        return f"{self.setting}: {what}{self.hint()}"

    def lines(self) -> list[str]:
        """Returns what was found, the first line about the set as a whole."""
        lines = [self.title(), f"  size of the images: {listed(self.size_texts())}"]
        usable = "usable " if self.problems else ""
        for entry in MISSING:
            if entry in self.entries:
                parts = [
                    f"{self.labelled_text(split, entry).replace(' (', f' images of {split} (')}"
                    for split in self.images
                ]
                lines.append(f"  {entry}: {usable}labels of {' and '.join(parts)}")
            else:
                lines.append(f"  {entry}: no labels, since {self.absent(entry)}")
        if self.classes.sum() > 0:
            shares = [f"{name} {share:.2%}" for name, _, share in self.class_shares()]
            lines.append(f"  pixels of the classes: {', '.join(shares)}")
        quantiles = self.depth_quantiles()
        if quantiles:
            low, *_, high = quantiles.values()
            lines.append(
                f"  depth: median {quantiles[0.5]:.4g} m, 98 % of the pixels in {low:.4g} to "
                f"{high:.4g} m"
            )
        return lines + [f"  {line}" for line in (*self.notes(), *self.warnings())]

    def title(self) -> str:
        """Returns a line about the set as a whole."""
        height, width = self.stored
        return (
            f"{self.source}: {counted(self.images['train'], 'image')} to train on and "
            f"{self.images['test']:,} to test on, stored at {height}x{width} pixels"
        )

    def size_texts(self) -> list[str]:
        """Returns the sizes of the images with their numbers, the most common one first."""
        return [f"{rows}x{columns} ({n})" for (rows, columns), n in self.sizes.most_common()]

    def labelled_text(self, split: str, entry: str) -> str:
        """Returns how many images of a split have a kind of labels, such as 20 of 40 (50%)."""
        count, all_images = self.labelled[split, entry], self.images[split]
        return f"{count} of {all_images} ({count / all_images:.0%})"

    def class_shares(self) -> list[tuple[str, int, float]]:
        """Returns name, index and share of the pixels of each class, the largest share first.

        Those without a class have the index -1.
        """
        names = (*self.class_names, "no label")
        order = np.argsort(-self.classes, kind="stable")
        total = max(1, self.classes.sum())
        last = len(self.class_names)
        return [(names[i], -1 if i == last else int(i), self.classes[i] / total) for i in order]

    def depth_quantiles(self) -> dict[float, float]:
        """Returns quantiles of the depth of all pixels in metres; none without depth."""
        depths = np.concatenate([some for some, _ in self.depths] or [np.zeros(0)])
        if not depths.size:
            return {}
        # An image in which few pixels have depth counts less than others.
        pixels = np.concatenate([np.full(some.size, step) for some, step in self.depths])
        found = np.quantile(depths, QUANTILES, weights=pixels, method="inverted_cdf")
        return dict(zip(QUANTILES, found.tolist(), strict=True))

    def warnings(self) -> list[str]:
        """Returns what is probably wrong, but may be intended."""
        # Labels with problems are not counted, so they would seem to be missing.
        lines = [] if self.problems else self._missing_labels()
        if self._unusual:
            lines.append(
                f"WARNING: the median depth of {listed(self._unusual)} is unusual: "
                f"{self.depth_question()}"
            )
        alike = lookalikes.pairs(*(self._looks.get(split, {}) for split in ("train", "test")))
        if alike:
            pairs = [f"{one} and {other}" for one, other in alike]
            lines.append(f"WARNING: images of both splits look the same: {listed(pairs)}")
        return lines

    def _missing_labels(self) -> list[str]:
        lines = [
            f"WARNING: no image of {split} has {entry} labels"
            for split, entry in itertools.product(self.images, self.kinds())
            if not self.labelled[split, entry]
        ]
        absent = [name for name, index, share in self.class_shares() if index >= 0 and not share]
        if self.classes.sum() > 0 and absent:
            lines.append(f"WARNING: no pixel is labelled {', '.join(absent)}")
        return lines

    def depth_question(self) -> str:
        """Returns what to check if depth is unusual."""
        return "depth must be in metres"


def counted(number: int, noun: str) -> str:
    """Returns a number with its noun."""
    return f"{number:,} {noun}{'s' * (number != 1)}"


def listed(items: Sequence[str]) -> str:
    """Returns the first items and the number of the others."""
    others = f" and {len(items) - LISTED:,} more" if len(items) > LISTED else ""
    return ", ".join(items[:LISTED]) + others
