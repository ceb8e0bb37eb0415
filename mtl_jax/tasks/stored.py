"""How predictions are stored as PNG files that other programs read; NumPy only."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from mtl_jax.tasks.pictures import class_colours

# The largest number that 16 bits can hold.
LARGEST = 65535


def _nothing(prediction: np.ndarray) -> int:
    return 0


class Stored(NamedTuple):
    """How the predictions of a task are stored as a PNG file.

    Attributes:
      text: what the numbers of the file mean, for its metadata.
      encode: (prediction [H, W, ...] as `Task.sample` gives it, number of classes) ->
        uint8[H, W], uint16[H, W], or uint8[H, W, 3].
      palette: number of classes -> colours uint8[C, 3] of the indices uint8[H, W]; None for
        numbers that are no indices.
      lost: prediction -> number of pixels whose value the file can't hold.
      lost_text: what these pixels are, such as "farther than 65.535 m".
      is_distance: whether the prediction is a distance along the optical axis in metres, from
        which points in space follow.
      is_scaled: whether the numbers of an enlarged part of a photo differ by a factor, since it
        looks closer than it is.
    """

    text: str
    encode: Callable[[np.ndarray, int], np.ndarray]
    palette: Callable[[int], np.ndarray] | None = None
    lost: Callable[[np.ndarray], int] = _nothing
    lost_text: str = ""
    is_distance: bool = False
    is_scaled: bool = False


def indices(colours: Callable[[int], np.ndarray] = class_colours) -> Stored:
    """Returns the form in which class indices are stored, with the classes' colours as palette."""
    return Stored("pixel = index of the class", _as_indices, palette=colours)


def _as_indices(labels: np.ndarray, num_classes: int) -> np.ndarray:
    # A palette has 256 entries.
    return labels.astype(np.uint8 if num_classes <= 256 else np.uint16)


def _as_millimetres(depth: np.ndarray, num_classes: int) -> np.ndarray:
    known = depth > 0
    # A depth is never rounded to 0, which would mean that there is none.
    millimetres = np.clip(np.where(known, depth, 0.001) * 1000.0, 1.0, LARGEST)
    return np.where(known, np.rint(millimetres), 0.0).astype(np.uint16)


def _as_parts_of_one(numbers: np.ndarray, num_classes: int) -> np.ndarray:
    known = numbers > 0
    parts = np.clip(np.where(known, numbers, 1.0) * LARGEST, 1.0, LARGEST)
    return np.where(known, np.rint(parts), 0.0).astype(np.uint16)


def _as_colours(vectors: np.ndarray, num_classes: int) -> np.ndarray:
    known = np.isfinite(vectors).all(axis=-1) & (vectors != 0).any(axis=-1)
    encoded = np.rint((np.clip(vectors, -1.0, 1.0) + 1.0) * 127.5)
    encoded[~known] = 0.0
    return encoded.astype(np.uint8)


MILLIMETRES = Stored(
    "pixel = depth along the optical axis in millimetres, 1 to 65535; 0 = invalid; "
    "65535 = 65.535 m or more",
    _as_millimetres,
    lost=lambda depth: int(np.count_nonzero(depth > LARGEST / 1000.0)),
    lost_text="farther than 65.535 m",
    is_distance=True,
    is_scaled=True,
)
PARTS_OF_ONE = Stored(
    "pixel = inverse depth times 65535, 1 to 65535; 0 = invalid",
    _as_parts_of_one,
    lost=lambda numbers: int(np.count_nonzero(numbers > 1.0)),
    lost_text="with an inverse depth above 1",
    is_scaled=True,
)
UNIT_VECTORS = Stored(
    "red, green, blue = (n + 1) / 2 * 255 of the unit normal n with x to the right, y down and z "
    "forward, away from the camera; black = invalid",
    _as_colours,
)
