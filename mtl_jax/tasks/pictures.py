"""How labels are drawn, as data for the report; NumPy only.

A picture is one of three kinds: classes with a legend, numbers on a scale, or colours with a key.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

# More classes than any data set has: larger numbers are broken, and their colours would fill the
# memory.
MOST_CLASSES = 1000

# Handa's colours of the 13 NYU classes (SceneNet), as the field draws them; void is black.
COLOURS_13 = np.array(
    [
        (0, 0, 255), (232, 88, 47), (0, 217, 0), (148, 0, 240), (222, 241, 23),
        (255, 205, 205), (0, 223, 228), (106, 135, 204), (116, 28, 41), (240, 35, 235),
        (0, 166, 156), (249, 139, 0), (225, 228, 194),
    ],
    np.uint8,
)  # fmt: skip


def class_colours(num_classes: int) -> np.ndarray:
    """Returns colours uint8[num_classes, 3]: the usual ones of 13 classes, or else Pascal VOC's."""
    if num_classes == len(COLOURS_13):
        return COLOURS_13
    colours = np.zeros((num_classes, 3), np.uint8)
    for index in range(num_classes):
        # VOC spreads the bits of the 1-based class over red, green and blue, highest bit first.
        for bit in range(8):
            colours[index, bit % 3] |= ((index + 1) >> bit & 1) << (7 - bit // 3)
    return colours


class Classes(NamedTuple):
    """Labels i[..., H, W] of classes, drawn in their colours with a legend of those that occur.

    Attributes:
      noun: what is drawn, in a column's title.
      caption: a sentence for the figure's caption, or "".
      names: of the classes by index; None for those of the data set.
      colours: number of classes -> uint8[number, 3].
    """

    noun: str
    caption: str = ""
    names: tuple[str, ...] | None = None
    colours: Callable[[int], np.ndarray] = class_colours

    def shape(self, image: tuple[int, ...]) -> tuple[int, ...]:
        """Returns the shape of the labels of images [n, H, W, 3]."""
        return image[:3]

    def can_draw(self, labels: np.ndarray) -> bool:
        """Returns whether the labels are classes, or -1 for void."""
        return labels.dtype.kind in "iu" and labels.min() >= -1 and labels.max() < MOST_CLASSES

    def paint(self, labels: np.ndarray, num_classes: int) -> np.ndarray:
        """Returns the labels as uint8[..., H, W, 3]; void (-1) is black."""
        palette = np.concatenate([np.zeros((1, 3), np.uint8), self.colours(num_classes)])
        return palette[np.clip(np.asarray(labels, np.int64), -1, num_classes - 1) + 1]

    def words(self, label: np.ndarray, names: Sequence[str]) -> str:
        """Returns what a single label i[] means, given the names of the classes."""
        return names[int(label)] if label >= 0 else "void"


class Scale(NamedTuple):
    """Positive numbers f[..., H, W], drawn on one scale of colours; 0 and NaN are missing.

    Attributes:
      noun: as in `Classes`.
      caption: as in `Classes`.
      label: label of the scale, with the unit after a slash.
      largest: limit beyond which numbers come from a network that diverged.
      colormap: matplotlib's name.
    """

    noun: str
    caption: str
    label: str
    largest: float
    colormap: str = "viridis_r"

    def shape(self, image: tuple[int, ...]) -> tuple[int, ...]:
        """Returns the shape of the numbers of images [n, H, W, 3]."""
        return image[:3]

    def can_draw(self, values: np.ndarray) -> bool:
        """Returns whether the values are real numbers."""
        return values.dtype.kind in "iuf"

    def limits(self, labels: np.ndarray, predicted: np.ndarray) -> tuple[float, float]:
        """Returns the smallest and largest label, or prediction if no label is known.

        If all numbers are the same, the scale begins at zero; without any number it is 0 to 1.
        """
        for values in (labels, predicted):
            values = np.asarray(values, np.float64)
            known = values[(values > 0) & (values < self.largest)]
            if known.size:
                low, high = float(known.min()), float(known.max())
                return (low, high) if low < high else (0.0, high)
        return 0.0, 1.0

    def words(self, value: np.ndarray, names: Sequence[str]) -> str:
        """Returns a single number f[] with its unit."""
        return f"{value:.2f} {self.label.rpartition('/')[2].strip()}" if value > 0 else "unknown"


class Colours(NamedTuple):
    """Vectors f[..., H, W, C] that are colours themselves, drawn with a key.

    Attributes:
      noun: as in `Classes`.
      caption: as in `Classes`.
      channels: C.
      paint: the vectors -> uint8[..., H, W, 3].
      key: size in pixels -> a picture uint8[size, size, 3] that shows what the colours mean.
      key_text: text next to the key, in two short lines.
    """

    noun: str
    caption: str
    channels: int
    paint: Callable[[np.ndarray], np.ndarray]
    key: Callable[[int], np.ndarray]
    key_text: str

    def shape(self, image: tuple[int, ...]) -> tuple[int, ...]:
        """Returns the shape of the vectors of images [n, H, W, 3]."""
        return (*image[:3], self.channels)

    def can_draw(self, vectors: np.ndarray) -> bool:
        """Returns whether the vectors consist of real numbers."""
        return vectors.dtype.kind in "iuf"

    def words(self, vector: np.ndarray, names: Sequence[str]) -> str:
        """Returns a single vector f[C]."""
        return f"({', '.join(f'{x:.2f}'.replace('-', '−') for x in vector)})"


Picture = Classes | Scale | Colours
