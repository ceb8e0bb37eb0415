"""The cameras of a folder's photos: cameras.txt, the photo's own EXIF data, or a stated angle.

Intrinsics are fx, fy, cx, cy in pixels of the upright photo, with the centre of its first pixel at
(0, 0). In cameras.txt a line is `NAME fx fy cx cy`, and may end with the baseline in metres.
"""

import math
from collections.abc import Container, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from datasets import checking
from datasets.folder import texts

# Either of these files may exist; both have the same form.
FILES = ("cameras.txt", "cameras.csv")
# Stands in place of a name for all images that have no line of their own.
ALL = "*"
# Marks a first line that names the columns.
HEAD = "fx"


class Camera(NamedTuple):
    """A line of the file: intrinsics f64[4], and metres to the right camera, None if not said."""

    intrinsics: np.ndarray
    baseline: float | None


class Stated(NamedTuple):
    """What the options say of all photos, 0 where they don't.

    Attributes:
      field_of_view: horizontal, in degrees, of photos whose camera is not known otherwise.
      baseline: metres between the cameras of a stereo pair, unless cameras.txt says it.
    """

    field_of_view: float = 0.0
    baseline: float = 0.0


def find_file(root: Path) -> Path | None:
    """Returns the path of the file of cameras, None without one.

    Raises:
      ValueError: if there are two.
    """
    found = [root / name for name in FILES if (root / name).exists()]
    if len(found) > 1:
        raise ValueError(f"{found[0]} and {found[1].name} are both there: keep one of them")
    return found[0] if found else None


def read(path: Path, names: Container[str]) -> tuple[dict[str, Camera], list[str]]:
    """Returns the cameras of a file by the names in it, and what is wrong in it.

    Args:
      path: its path.
      names: of all images, such as `train/0001`, `train/0001.jpg`, `0001` and `0001.jpg`.

    Raises:
      ValueError: in one line, if it can't be read.
    """
    cameras: dict[str, Camera] = {}
    problems = []
    for number, (place, words) in enumerate(texts.rows(path)):
        if number == 0 and HEAD in [word.lower() for word in words]:
            continue
        name, numbers = _fields(words, names)
        if len(numbers) not in (4, 5):
            hint = " (NAME is * for all images)" if len(_numbers(words)) == 4 else ""
            problems.append(f"{place} is not NAME fx fy cx cy, or these and a baseline{hint}")
        elif name != ALL and name not in names:
            problems.append(f"{place} is for {name}, and there is no such photo in images/")
        elif name in cameras:
            problems.append(f"{place} is for {name} again")
        else:
            camera = Camera(np.array(numbers[:4]), numbers[4] if len(numbers) == 5 else None)
            wrong = [] if camera.baseline is None else checking.baseline_values(camera.baseline)
            problems += checking.name(place, wrong)
            cameras[name] = camera
    if not cameras and not problems:
        problems.append(f"{path} is empty")
    return cameras, problems


def _fields(words: list[str], names: Container[str]) -> tuple[str, list[float]]:
    """Returns the name, which may have spaces, and the numbers of a line."""
    for count in (4, 5):
        name = " ".join(words[:-count])
        if name in names:
            return name, _numbers(words[-count:])
    return words[0], _numbers(words[1:])


def _numbers(words: list[str]) -> list[float]:
    """Returns words as numbers; none if one of them is not a finite number."""
    try:
        numbers = [float(word) for word in words]
    except ValueError:
        return []
    return numbers if all(map(math.isfinite, numbers)) else []


def names_of(image: Path, part: str) -> tuple[str, ...]:
    """Returns the names by which a file of cameras may call an image, the most precise ones first.

    Args:
      image: path of the photo.
      part: folder of its split, "" for none.
    """
    short = (image.name, image.stem)
    return (*(f"{part}/{name}" for name in short if part), *short)


def camera_of(cameras: Mapping[str, Camera], image: Path, part: str) -> Camera | None:
    """Returns the camera of an image by a file's lines, None if there is none for it."""
    names = (*names_of(image, part), ALL)
    return next((cameras[name] for name in names if name in cameras), None)


def intrinsics_of(
    camera: Camera | None,
    focal_length: float | None,
    shape: tuple[int, int],
    stated: Stated,
) -> tuple[np.ndarray, str]:
    """Returns the intrinsics f64[4] of a photo and what says them; zeros and "" if nothing does.

    Args:
      camera: of the file, None without a line for the photo.
      focal_length: in pixels by EXIF, None if the photo does not say it.
      shape: height and width of the photo.
      stated: in the options.
    """
    height, width = shape
    centre = ((width - 1) / 2, (height - 1) / 2)
    if camera is not None:
        return camera.intrinsics, "the file of cameras"
    if focal_length is not None:
        return np.array([focal_length, focal_length, *centre]), "EXIF data"
    if stated.field_of_view:
        focal = width / 2 / math.tan(math.radians(stated.field_of_view) / 2)
        return np.array([focal, focal, *centre]), f"field_of_view={stated.field_of_view:g}"
    return np.zeros(4), ""
