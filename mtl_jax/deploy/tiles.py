"""Predictions of large photos in overlapping tiles, for details that the network does not see.

The network sees each tile at the size at which it otherwise sees the whole photo. Only the whole
shows how far things are and which things they are part of, so that its prediction takes part, too:
it sets the scale of the distances in each tile, and counts as much as a tile where that ends.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from mtl_jax.tasks import Task

# Part of a tile that it shares with the next one.
OVERLAP = 0.25
# Weight of the prediction of the whole photo; that of a tile is 1 in its middle.
WHOLE = 0.5

Results = dict[str, np.ndarray]


def predict(
    predictor: Callable[..., Results],
    photo: np.ndarray,
    tasks: Mapping[str, Task],
    *,
    tiles: int,
    **options: Any,
) -> Results:
    """Returns the predictions of one photo, blended from those of the whole and of tiles.

    Numbers are averaged with weights that fall off from the middle of a tile to its edges; where
    the predicted classes differ, the largest weight decides.

    Args:
      predictor: images uint8[B, h, w, C] -> predictions [B, h, w, ...] by task.
      photo: uint8[H, W, C].
      tasks: the predicted tasks by name.
      tiles: number of tiles along each side.
      options: further arguments of the predictor.
    """
    rows, columns = (spans(side, tiles) for side in photo.shape[:2])
    weights = np.multiply.outer(falling_off(rows[0]), falling_off(columns[0]))
    whole = {name: x[0] for name, x in predictor(photo[None], **options).items()}
    blended = {name: x * np.float32(WHOLE) if is_mean(x) else x.copy() for name, x in whole.items()}
    total = np.full(photo.shape[:2], WHOLE, np.float32)
    best = total.copy()
    for row in rows:
        found = predictor(np.stack([photo[row, column] for column in columns]), **options)
        for index, column in enumerate(columns):
            wins = weights > best[row, column]
            for name, task in tasks.items():
                tile = align(found[name][index], whole[name][row, column], task)
                add(blended[name][row, column], tile, weights, wins)
            total[row, column] += weights
            best[row, column] = np.maximum(weights, best[row, column])
    return {name: finish(x, tasks[name], total) for name, x in blended.items()}


def spans(length: int, number: int) -> list[slice]:
    """Returns overlapping parts of one size that cover a length, at most as many as given."""
    size = min(length, math.ceil(length / (number - (number - 1) * OVERLAP)))
    starts = np.linspace(0, length - size, number).round().astype(int)
    return [slice(int(start), int(start) + size) for start in np.unique(starts)]


def falling_off(span: slice) -> np.ndarray:
    """Returns weights f32[n] of the pixels of a part, 1 in its middle and small at its ends."""
    place = np.arange(span.stop - span.start, dtype=np.float32)
    weights = np.minimum(place, place[::-1]) + 1
    return weights / weights.max()


def is_mean(prediction: np.ndarray) -> bool:
    """Returns whether predictions are numbers, whose means make sense, and not classes."""
    return np.issubdtype(prediction.dtype, np.floating)


def align(tile: np.ndarray, whole: np.ndarray, task: Task) -> np.ndarray:
    """Returns the prediction in a tile on the scale of the whole photo; see `Stored.is_scaled`."""
    if not task.stored.is_scaled:
        return tile
    return tile * np.float32(np.median(whole) / max(np.median(tile), 1e-6))


def add(blended: np.ndarray, tile: np.ndarray, weights: np.ndarray, wins: np.ndarray) -> None:
    """Adds a tile to its place in the blended prediction: numbers by weight, classes if it wins."""
    if is_mean(tile):
        blended += tile * weights.reshape(weights.shape + (1,) * (tile.ndim - 2))
    else:
        blended[wins] = tile[wins]


def finish(blended: np.ndarray, task: Task, total: np.ndarray) -> np.ndarray:
    """Returns predictions: the weighted means of numbers, and classes as they are."""
    if not is_mean(blended):
        return blended
    blended /= total.reshape(total.shape + (1,) * (blended.ndim - 2))
    return np.asarray(task.blend(jnp.asarray(blended)))


def number_for(size: tuple[int, int], seen: tuple[int, int], wanted: int) -> int:
    """Returns the number of tiles along a side: more than the photo has details are of no use.

    Args:
      size: height and width of the photo.
      seen: height and width at which the network sees a photo.
      wanted: the largest number.
    """
    return min(wanted, max(1, math.ceil(math.sqrt(math.prod(size) / math.prod(seen)))))
