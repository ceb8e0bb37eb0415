"""Predictions of large photos in overlapping tiles, for details that the network does not see.

The network sees each tile at the size at which it would otherwise see the whole photo. A part that
fills the view looks like a scene that is closer by the same factor, which is undone.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from mtl_jax.tasks import Task

# Part of a tile that it shares with the next one.
OVERLAP = 0.25

Results = dict[str, np.ndarray]


def predict(
    predictor: Callable[..., Results],
    photo: np.ndarray,
    tasks: Mapping[str, Task],
    *,
    tiles: int,
    **options: Any,
) -> Results:
    """Returns the predictions of one photo, blended from tiles.

    Numbers are averaged with weights that fall off towards the edges of a tile; where tiles predict
    different classes, the one whose middle is closer decides.

    Args:
      predictor: images uint8[B, h, w, 3] -> predictions [B, h, w, ...] by task.
      photo: uint8[H, W, 3].
      tasks: the predicted tasks by name.
      tiles: number of tiles along each side.
      options: further arguments of the predictor.
    """
    rows, columns = (spans(side, tiles) for side in photo.shape[:2])
    weights = np.multiply.outer(falling_off(rows[0]), falling_off(columns[0]))
    factor = math.sqrt(math.prod(photo.shape[:2]) / weights.size)
    total = np.zeros(photo.shape[:2], np.float32)
    best = np.zeros(photo.shape[:2], np.float32)
    blended: Results = {}
    for row in rows:
        found = predictor(np.stack([photo[row, column] for column in columns]), **options)
        for index, column in enumerate(columns):
            wins = weights > best[row, column]
            for name, task in tasks.items():
                tile = at_distance(found[name][index], task, factor)
                if name not in blended:
                    blended[name] = np.zeros(photo.shape[:2] + tile.shape[2:], tile.dtype)
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
    """Returns weights f32[n] of the pixels of a part, which fall off towards its ends."""
    place = np.arange(span.stop - span.start, dtype=np.float32)
    return np.minimum(place + 1, place[::-1] + 1) / np.float32(len(place))


def at_distance(tile: np.ndarray, task: Task, factor: float) -> np.ndarray:
    """Returns the prediction of an enlarged part of a photo as that of the scene in the photo."""
    return np.asarray(task.labels[0].scale(jnp.asarray(tile), jnp.float32(1 / factor)))


def add(blended: np.ndarray, tile: np.ndarray, weights: np.ndarray, wins: np.ndarray) -> None:
    """Adds a tile to its place in the blended prediction: numbers by weight, classes if it wins."""
    if np.issubdtype(tile.dtype, np.floating):
        blended += tile * weights.reshape(weights.shape + (1,) * (tile.ndim - 2))
    else:
        blended[wins] = tile[wins]


def finish(blended: np.ndarray, task: Task, total: np.ndarray) -> np.ndarray:
    """Returns the weighted means of numbers as predictions; classes are finished."""
    if not np.issubdtype(blended.dtype, np.floating):
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
