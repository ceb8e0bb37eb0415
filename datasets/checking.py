"""Checks of the files of a data set, with all problems reported in one message.

A reader describes its arrays by kinds: `form` judges what a header says, `values` what an array
holds. Both return phrases such as "holds NaN or infinite values"; `name` puts the file before them.
`refuse` reports the problems found before anything is written, `checked` those that are found only
while the files are converted.
"""

import collections
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple, TypeVar

import numpy as np

Item = TypeVar("Item")

# Number of problems that a message lists; the others are counted.
LISTED = 10

# Metres. A median outside the first range suggests another unit. No camera or laser scanner of
# these data sets sees as far as the second limit, which is also well inside float16.
MEDIAN_DEPTH = (0.1, 100.0)
LARGEST_DEPTH = 1000.0
# The largest number in half precision, in which depth is stored.
STORABLE_DEPTH = float(np.finfo(np.float16).max)
# Metres between the two cameras of a stereo pair.
BASELINE = (0.01, 10.0)
SAME_VIEW = "shows the same as the left view: it must be of the camera to the right"
# Resizing shortens the normals at edges, and nothing makes them longer.
LONGEST_NORMAL = 1.1
SHORTEST_MEDIAN_NORMAL = 0.9

_FLOATS = ("float16", "float32", "float64")
_INTEGERS = tuple(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64))


class Kind(NamedTuple):
    """What an array may hold.

    Attributes:
      numbers: its type in words.
      dtypes: names of the types it may have, in any byte order.
      channels: the sizes of its axes after height and width.
      values: array -> phrases for what is wrong with its values, where type and shape are right.
    """

    numbers: str
    dtypes: tuple[str, ...]
    channels: tuple[int, ...]
    values: Callable[[np.ndarray], list[str]]

    def form(self, dtype: np.dtype, shape: tuple[int, ...], expected: tuple[int, ...]) -> list[str]:
        """Returns phrases for a wrong type or shape, as a header states them."""
        if dtype.name in self.dtypes and tuple(shape) == tuple(expected) and 0 not in shape:
            return []
        return [f"is {dtype.name}{list(shape)} instead of {self.numbers}{list(expected)}"]

    def problems(self, array: np.ndarray, expected: tuple[int, ...]) -> list[str]:
        """Returns phrases for a wrong type or shape or, where those are right, wrong values."""
        return self.form(array.dtype, array.shape, expected) or self.values(array)


def image(scale: int, dtypes: tuple[str, ...]) -> Kind:
    """Returns the kind of colours in 0..scale, [H, W, 3]."""

    def values(array: np.ndarray) -> list[str]:
        low, high = array.min(), array.max()
        if not (np.isfinite(low) and np.isfinite(high)):
            return ["holds NaN or infinite values"]
        # Whoever resized the image may have overshot the range by a rounding error.
        if low < 0 or high > scale * 1.001:
            return [f"is not in 0..{scale} but {low:g}..{high:g}"]
        return []

    return Kind("/".join(dtypes), dtypes, (3,), values)


def labels(low: int, high: int, dtypes: tuple[str, ...] = _INTEGERS + _FLOATS) -> Kind:
    """Returns the kind of whole numbers in low..high, [H, W]."""

    def values(array: np.ndarray) -> list[str]:
        smallest, largest = array.min(), array.max()
        if not (np.isfinite(smallest) and np.isfinite(largest)):
            return ["holds NaN or infinite values"]
        if array.dtype.kind == "f":
            fractions = array[array != np.rint(array)]
            if fractions.size:
                return [f"holds {fractions[0]:g}, which is not a whole number"]
        outside = [value for value in (smallest, largest) if not low <= value <= high]
        if outside:
            found = " and ".join(f"{value:g}" for value in dict.fromkeys(outside))
            return [f"has the label {found} outside {low}..{high}"]
        return []

    numbers = "integer or float" if "float32" in dtypes else "/".join(dtypes)
    return Kind(numbers, dtypes, (), values)


def depth_numbers(array: np.ndarray) -> list[str]:
    """Returns phrases for numbers that can't be depth in any unit, 0 = missing."""
    smallest, largest = array.min(), array.max()
    if not (np.isfinite(smallest) and np.isfinite(largest)):
        return ["holds NaN or infinite values: a missing depth is 0"]
    if smallest < 0:
        return [f"holds the negative depth {smallest:g}: a missing depth is 0"]
    return []


def depth_unit(array: np.ndarray, *, largest: float = LARGEST_DEPTH) -> list[str]:
    """Returns phrases for depth, 0 = missing, whose median exceeds `largest` metres."""
    known = array[array > 0]
    median = _median(known) if known.size else 0.0
    if median > largest:
        return [f"has a median of {median:.4g}, where metres are expected: is it in millimetres?"]
    return []


def storable_depth(array: np.ndarray) -> list[str]:
    """Returns phrases for depth in metres that is too large for half precision."""
    if (largest := array.max()) > STORABLE_DEPTH:
        return [
            f"holds the depth {largest:.6g}: metres up to {STORABLE_DEPTH:g} can be stored, and a "
            "missing depth is 0"
        ]
    return []


def depth_values(array: np.ndarray, *, may_be_empty: bool = False) -> list[str]:
    """Returns phrases for what is wrong with depth in metres, 0 = missing."""
    if phrases := depth_numbers(array):
        return phrases
    largest = array.max()
    known = array[array > 0]
    if not known.size:
        return [] if may_be_empty else ["holds no depth: every pixel is missing"]
    low, high = MEDIAN_DEPTH
    if phrases := depth_unit(known, largest=high):
        return phrases
    if (median := _median(known)) < low:
        return [f"has a median of {median:.4g}, where metres are expected: is it scaled?"]
    if largest > LARGEST_DEPTH:
        return [f"holds the depth {largest:.6g}: metres up to {LARGEST_DEPTH:g} are expected"]
    return []


def _normals_values(array: np.ndarray) -> list[str]:
    largest = max(-array.min(), array.max())
    if not np.isfinite(largest):
        return ["holds NaN or infinite values: a missing normal is 0 0 0"]
    if largest > LONGEST_NORMAL:
        return [f"holds {largest:.3g} in a normal: unit vectors are expected"]
    vectors = array.astype(np.float32, copy=False)
    length = np.sqrt(np.einsum("...c,...c->...", vectors, vectors))
    known = length[length > 0]
    if not known.size:
        return ["holds no normals: every pixel is missing"]
    if known.max() > LONGEST_NORMAL:
        return [f"holds a normal of length {known.max():.3g}: unit vectors are expected"]
    if _median(known) < SHORTEST_MEDIAN_NORMAL:
        return [f"holds normals of length {_median(known):.3g}: unit vectors are expected"]
    if array[..., 2].sum(dtype=np.float64) > 0:
        return [
            "points away from the camera: normals must be in the camera frame x right, y down, z "
            "forward and face the camera, so that most z are negative"
        ]
    return []


DEPTH = Kind("float", _FLOATS, (), depth_values)
NORMALS = Kind("float", _FLOATS, (3,), _normals_values)


def disparity_values(array: np.ndarray) -> list[str]:
    """Returns phrases for what is wrong with a disparity in pixels [H, W], 0 = missing."""
    if not np.any(array > 0):
        return ["holds no disparity: every pixel is missing"]
    largest, width = array.max(), array.shape[1]
    if largest >= width:
        return [f"holds a disparity of {largest:.4g} pixels in an image {width} pixels wide"]
    return []


def intrinsics_values(intrinsics: np.ndarray, height: int, width: int) -> list[str]:
    """Returns phrases for what is wrong with fx, fy, cx, cy in pixels of an image of this size."""
    fx, fy, cx, cy = intrinsics
    if not np.all(np.isfinite(intrinsics)):
        return ["holds intrinsics that are NaN or infinite"]
    problems = []
    # From a fisheye to a telephoto lens.
    if not all(0.1 <= focal / width <= 50 for focal in (fx, fy)):
        problems.append(f"has the focal lengths {fx:g} and {fy:g} for a width of {width} pixels")
    if not (0 <= cx < width and 0 <= cy < height):
        problems.append(
            f"has the principal point {cx:g} {cy:g} outside the image of {width} x {height} pixels"
        )
    return problems


def baseline_values(baseline: float) -> list[str]:
    """Returns phrases for what is wrong with the metres from the left camera to the right one."""
    low, high = BASELINE
    if low <= baseline <= high:
        return []
    return [f"has a baseline of {baseline:g}: {low:g} to {high:g} metres are expected"]


def _median(values: np.ndarray) -> float:
    """Returns the approximate median: a few thousand values are enough to distinguish units."""
    few = values[:: 1 + values.size // 5000]
    # In float64, since the mean of the two middle values may leave the range of float16.
    return float(np.median(few.astype(np.float64)))


def most_common(sizes: Iterable[tuple[int, ...]]) -> tuple[int, ...]:
    """Returns the size of most files, compared with which the others are wrong; () for no files."""
    counts = collections.Counter(sizes)
    return max(counts, key=lambda size: counts[size], default=())


def name(place: object, phrases: Iterable[str]) -> list[str]:
    """Returns the phrases, each after the file or part of a file that it is about."""
    return [f"{place} {phrase}" for phrase in phrases]


def refuse(problems: Iterable[str], advice: str = "") -> None:
    """Raises an error for the problems, if there are any.

    Raises:
      ValueError: in one line with the first of them, the number of the others, and the advice.
    """
    problems = list(problems)
    if problems:
        listed = problems[:LISTED]
        if len(problems) > LISTED:
            listed.append(f"and {len(problems) - LISTED:,} more")
        raise ValueError("; ".join(listed) + (advice and f": {advice}"))


def checked(
    splits: Mapping[str, Iterable[tuple[Item | None, list[str]]]],
) -> dict[str, Iterator[Item]]:
    """Returns the items of each split, up to the first with a problem.

    Args:
      splits: pairs of an item, or None where it can't be read, and its problems, in the order in
        which the splits are converted.

    Returns:
      Iterators to be used in that order. The first item with problems ends the conversion: all
      items after it, including those of later splits, are read to collect their problems as well,
      and one ValueError reports them together.
    """
    unread = {split: iter(pairs) for split, pairs in splits.items()}

    def items(split: str) -> Iterator[Item]:
        for item, problems in unread[split]:
            if item is not None and not problems:
                yield item
                continue
            rest = itertools.chain.from_iterable(unread.values())
            refuse([*problems, *(problem for _, found in rest for problem in found)])

    return {split: items(split) for split in splits}
