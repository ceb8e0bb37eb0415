"""What a report shows of a task's errors over a whole split, as data for it; NumPy only.

A chart is one of three kinds: a confusion of classes, errors over a quantity, or a distribution of
errors. Each keeps one small array of the sums of a split.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

# Returns what a chart keeps of the sums of a split, see `Task.tally`.
Collect = Callable[[dict[str, np.ndarray]], np.ndarray]


class Confusion(NamedTuple):
    """Pixels i64[C, C] by true class (row) and predicted class (column).

    Attributes:
      name: key among the task's charts.
      collect: see `Collect`.
      names: of the classes; None for those of the data set.
    """

    name: str
    collect: Collect
    names: tuple[str, ...] | None = None

    def fits(self, array: np.ndarray) -> bool:
        """Returns whether the chart can be drawn of an array."""
        return array.ndim == 2 and array.shape[0] == array.shape[1] and _are_counts(array)


class Profile(NamedTuple):
    """Errors over a quantity: f64[1 + E, bins], the pixels of each bin and the sums of E errors.

    Attributes:
      name: key among the task's charts.
      collect: see `Collect`.
      label: of the quantity, with its unit.
      starts: where each bin begins; the last one has no end.
      errors: labels of the errors, with their units.
    """

    name: str
    collect: Collect
    label: str
    starts: tuple[float, ...]
    errors: tuple[str, ...]

    def fits(self, array: np.ndarray) -> bool:
        """Returns whether the chart can be drawn of an array."""
        return array.shape == (1 + len(self.errors), len(self.starts)) and _are_counts(array[0])


class Distribution(NamedTuple):
    """Pixels i64[bins] by the size of their error.

    Attributes:
      name: key among the task's charts.
      collect: see `Collect`.
      label: of the error, with its unit.
      width: of a bin; the first one begins at zero.
      marks: errors that are marked on the axis.
    """

    name: str
    collect: Collect
    label: str
    width: float
    marks: tuple[float, ...] = ()

    def fits(self, array: np.ndarray) -> bool:
        """Returns whether the chart can be drawn of an array."""
        return array.ndim == 1 and _are_counts(array)


Chart = Confusion | Profile | Distribution


def class_iou(confusion: np.ndarray) -> np.ndarray:
    """Returns intersection over union f64[C] of each class; NaN for a class that never occurs."""
    intersection = np.diag(confusion).astype(np.float64)
    union = confusion.sum(0) + confusion.sum(1) - intersection
    return np.divide(intersection, union, out=np.full_like(intersection, np.nan), where=union > 0)


def recall(confusion: np.ndarray) -> np.ndarray:
    """Returns the fraction f64[C, C] of each true class's pixels that is predicted as each class.

    The row of a class without pixels is NaN.
    """
    pixels = confusion.sum(1, keepdims=True)
    rows = np.full(confusion.shape, np.nan)
    return np.divide(confusion, pixels, out=rows, where=pixels > 0)


def cumulative(histogram: np.ndarray) -> np.ndarray:
    """Returns the fraction f64[bins] of the pixels up to the end of each bin; NaN of none."""
    total = histogram.sum()
    return np.cumsum(histogram) / total if total else np.full(histogram.shape, np.nan)


def merge_bins(array: np.ndarray, count: int) -> np.ndarray:
    """Returns [..., bins / count], rounded up: the sums of `count` neighbouring bins each."""
    missing = -array.shape[-1] % count
    padded = np.concatenate([array, np.zeros((*array.shape[:-1], missing), array.dtype)], axis=-1)
    return padded.reshape(*array.shape[:-1], -1, count).sum(-1)


def _are_counts(array: np.ndarray) -> bool:
    return array.size > 0 and array.dtype.kind in "iuf" and bool(np.all(array >= 0))
