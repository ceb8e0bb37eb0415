"""Reading the preprocessed folders of the multi-task literature, see `datasets.mtan_files`.

{train,val}/image/I.npy            float [H, W, 3] in 0..1
{train,val}/label_{7,19}/I.npy     [H, W], classes from 0, -1 = void
{train,val}/depth/I.npy            float [H, W, 1], inverse depth in 0..1, 0 = missing
"""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from datasets import checking, mtan_files

_FLOATS = ("float16", "float32", "float64")


class Frame(NamedTuple):
    """A frame at the size of its files.

    Attributes:
      image: f32[H, W, 3] in 0..255.
      segmentation: int8[H, W], class, -1 = void.
      inverse_depth: f32[H, W], 0 = missing.
    """

    image: np.ndarray
    segmentation: np.ndarray
    inverse_depth: np.ndarray


def check(root: Path, counts: dict[str, int], num_classes: int) -> None:
    """Checks the headers of all files; see `mtan_files.check`."""
    mtan_files.check(root, counts, _kinds(num_classes))


def readings(
    root: Path, split: str, count: int, num_classes: int
) -> Iterator[tuple[tuple[int, Frame] | None, list[str]]]:
    """Returns pairs for `checking.checked`; see `mtan_files.readings`."""
    return mtan_files.readings(root, split, count, _kinds(num_classes), _frame)


def _kinds(num_classes: int) -> dict[str, checking.Kind]:
    return {
        "image": checking.image(1, _FLOATS),
        f"label_{num_classes}": checking.labels(-1, num_classes - 1),
        "depth": checking.Kind("float", _FLOATS, (1,), _inverse_depth_values),
    }


def _inverse_depth_values(array: np.ndarray) -> list[str]:
    if phrases := checking.depth_numbers(array):
        return phrases
    largest = array.max()
    if largest > 1:
        return [
            f"holds the inverse depth {largest:.4g}, where 0 to 1 is expected: is it a depth in "
            "metres or a disparity in pixels?"
        ]
    return [] if largest > 0 else ["holds no inverse depth: every pixel is missing"]


def _frame(image: np.ndarray, label: np.ndarray, depth: np.ndarray) -> Frame:
    return Frame(
        image=image.astype(np.float32) * 255,
        segmentation=label.astype(np.int8),
        inverse_depth=depth[..., 0].astype(np.float32),
    )
