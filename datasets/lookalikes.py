"""Images that look the same although their pixels differ, such as a photo that was saved anew."""

from collections.abc import Mapping

import numpy as np
from PIL import Image

from mtl_jax.tasks.images import in_colour

# Pixels of a look per side.
SIDE = 16
# Largest difference, of 255, between the pixels of looks that agree. Saving a photo as a JPEG
# changes them by 1 or 2.
TOLERANCE = 3
# Images of less contrast all look the same.
CONTRAST = 8


def look(pixels: np.ndarray) -> np.ndarray:
    """Returns a small grey copy u8[SIDE * SIDE] of an image u8[H, W, C]."""
    grey = Image.fromarray(in_colour(pixels)).convert("L")
    small = grey.resize((SIDE, SIDE), Image.Resampling.BOX)
    return np.asarray(small).ravel()


def pairs(first: Mapping[str, np.ndarray], second: Mapping[str, np.ndarray]) -> list[tuple]:
    """Returns pairs of names, one from each set, whose looks agree.

    Args:
      first: name -> look.
      second: the same.
    """
    first, second = (
        {name: x.astype(np.int16) for name, x in looks.items() if np.ptp(x) >= CONTRAST}
        for looks in (first, second)
    )
    if not first or not second:
        return []
    names, looks = np.array(list(first), object), np.stack(list(first.values()))
    # Looks that agree have means that agree, and a few pixels: only these are compared.
    order = np.argsort(looks.mean(axis=1), kind="stable")
    names, looks = names[order], looks[order]
    means, few = looks.mean(axis=1), np.ascontiguousarray(looks[:, ::SIDE])
    found = []
    for name, x in second.items():
        low, high = np.searchsorted(means, x.mean() + np.array([-TOLERANCE, TOLERANCE]))
        near = low + np.flatnonzero(_agree(few[low:high], x[::SIDE]))
        found += [(str(other), name) for other in names[near][_agree(looks[near], x)]]
    return found


def _agree(looks: np.ndarray, look: np.ndarray) -> np.ndarray:
    return np.abs(looks - look).max(axis=1, initial=0) <= TOLERANCE
