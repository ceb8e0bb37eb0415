"""A photo with its camera and, of a stereo pair, its right view."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from datasets import checking
from datasets.folder import cameras
from datasets.folder.cameras import Stated
from datasets.folder.layout import Item
from mtl_jax.deploy import photos
from mtl_jax.tasks.images import in_grey


class Views(NamedTuple):
    """A photo at the size of its file.

    Attributes:
      image: u8[H, W, C], upright, with the depth of its sensor if C is 4.
      intrinsics: f64[4], fx fy cx cy in its pixels; zeros if its camera is not known.
      known_by: what says the intrinsics, "" if nothing does.
      right: u8[H, W, C], None without a right view that can be used.
      baseline: metres between the cameras, 0 if it is not known or there is no right view.
      lacking: names of what the right view needs and lacks.
    """

    image: np.ndarray
    intrinsics: np.ndarray
    known_by: str
    right: np.ndarray | None
    baseline: float
    lacking: tuple[str, ...]


def read(item: Item, stated: Stated, *, grey: bool) -> tuple[Views | None, list[str]]:
    """Returns the views of an item, None if its image can't be read, and what is wrong with them.

    A right view needs the camera and the baseline.

    Args:
      item: photo with what belongs to it.
      stated: what is said of all cameras.
      grey: whether the views have one channel and not three.
    """
    photo, problems = _photo(item.image)
    right, more = _photo(item.right) if item.right else (None, [])
    problems += more
    if photo is None:
        return None, problems
    shape = photo.pixels.shape[:2]
    intrinsics, known_by = cameras.intrinsics_of(item.camera, photo.focal_length, shape, stated)
    if item.camera is not None:
        phrases = checking.intrinsics_values(intrinsics, *shape)
        problems += checking.name(f"{item.image}, by the file of cameras,", phrases)
    baseline = 0.0
    if item.right is not None:
        baseline = item.camera.baseline if item.camera and item.camera.baseline else stated.baseline
    lacking: tuple[str, ...] = ()
    pixels = None
    if right is not None:
        phrases = _phrases(photo.pixels, right.pixels)
        problems += checking.name(item.right, phrases)
        pixels = None if phrases else right.pixels
        needed = {"baseline": baseline, "intrinsics": known_by}
        lacking = tuple(name for name, value in needed.items() if not value)
        problems += [f"{item.right} has no {name}" for name in lacking]
    image = photo.pixels
    if grey:
        image, pixels = in_grey(image), None if pixels is None else in_grey(pixels)
    return Views(image, intrinsics, known_by, pixels, baseline, lacking), problems


def _photo(path: Path) -> tuple[photos.Photo | None, list[str]]:
    try:
        return photos.read(path), []
    except photos.Unreadable as error:
        return None, [f"{path} can't be read: {error}"]


def _phrases(left: np.ndarray, right: np.ndarray) -> list[str]:
    """Returns phrases for what is wrong with a right view."""
    if left.shape != right.shape:
        (height, width), (rows, columns) = left.shape[:2], right.shape[:2]
        return [
            f"is {rows}x{columns} (height x width), but the left view {height}x{width}: rectified "
            "views have the same size"
        ]
    if np.array_equal(left, right):
        return [checking.SAME_VIEW]
    return []
