"""Reads an image of a folder and its labels, and says everything that is wrong with them."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from datasets import array_files, checking
from datasets.cutting import SHORTEST_NORMAL, unit
from datasets.folder import exr, masks, views
from datasets.folder.cameras import Stated
from datasets.folder.layout import SENSOR_FOLDER, Item
from datasets.folder.masks import VOID, Coding
from datasets.folder.views import Views
from mtl_jax.tasks.images import COLOURS, with_depth

# Where normals come from.
FILES, DEPTH = "files", "depth"


class Options(NamedTuple):
    """What the files mean, and what is made of them.

    Attributes:
      ignore_label: number of the pixels of a mask without a label.
      depth_scale: what whole numbers of depth are divided by to give metres.
      stated: what is said of all cameras.
      normals: `FILES`, or `DEPTH` for images with depth and no file of normals.
      num_classes: number of classes in the masks.
      coding: how their pixels become classes; None if that is not known, and masks are not read.
      channels: of the images, 1, 3 or 4; see `tasks.images`.
      sensor_range: metres that the largest number of the fourth stands for.
    """

    ignore_label: int
    depth_scale: float
    stated: Stated
    normals: str
    num_classes: int = 0
    coding: Coding | None = None
    channels: int = 3
    sensor_range: float = 10.0


class Reading(NamedTuple):
    """An image with its labels at the size of its files.

    Attributes:
      views: the photo and its camera; None if it can't be read.
      labels: those that can be used: `segmentation` i32[H, W], -1 = void; `depth` [H, W] in metres,
        0 = missing; `normals` [H, W, 3], 0 = missing.
      problems: what is wrong, each with the name of the file.
      label_range: lowest and highest number in the mask besides the ignored one, None without any.
      lacks_normals: whether its normals are to be computed from its depth.
      lacking: names of what the image needs and lacks, such as "intrinsics".
    """

    views: Views | None
    labels: dict[str, np.ndarray]
    problems: list[str]
    label_range: tuple[int, int] | None
    lacks_normals: bool
    lacking: tuple[str, ...]


def read(item: Item, options: Options) -> Reading:
    """Reads all files of an image."""
    labels, raw = {}, {}
    found, problems = views.read(item, options.stated, grey=options.channels == 1)
    if found is not None and options.channels > COLOURS:
        found, more = _with_sensor(found, item, options)
        problems += more
    for entry, path in item.labels.items():
        if entry == "segmentation" and options.coding is None:
            continue
        try:
            raw[entry] = _READERS[entry](path, options)
        except ValueError as error:
            problems.append(str(error))
    for entry, array in raw.items():
        phrases = [] if found is None else _size_phrases(array.shape[:2], found.image.shape[:2])
        phrases = phrases or _CHECKS[entry](array, options)
        problems += checking.name(item.labels[entry], phrases)
        if not phrases:
            labels[entry] = _FORMS[entry](array, options)
    computed = options.normals == DEPTH and "depth" in item.labels and "normals" not in item.labels
    lacking = () if found is None else found.lacking
    if computed and found and not found.known_by:
        problems.append(f"{item.image} has no intrinsics, which normals from its depth need")
        lacking += ("intrinsics",)
    mask = raw.get("segmentation")
    known = None if mask is None else mask[mask != VOID]
    seen = (int(known.min()), int(known.max())) if known is not None and known.size else None
    return Reading(found, labels, problems, seen, computed, lacking)


def _with_sensor(found: Views, item: Item, options: Options) -> tuple[Views | None, list[str]]:
    """Returns the views with the depth of the sensor, None without it, and what is wrong."""
    if item.sensor is None:
        return None, [f"{item.image} has no file in {SENSOR_FOLDER}/"]
    try:
        numbers = _load_depth(item.sensor)
    except ValueError as error:
        return None, [str(error)]
    phrases = _size_phrases(numbers.shape, found.image.shape[:2])
    phrases = phrases or _distance_phrases(numbers, options)
    if phrases:
        return None, checking.name(item.sensor, phrases)
    depth = _in_metres(numbers, options.depth_scale)
    return found._replace(image=with_depth(found.image, depth, options.sensor_range)), []


def _size_phrases(shape: tuple[int, ...], expected: tuple[int, ...]) -> list[str]:
    if shape == expected:
        return []
    found, wanted = (f"{height}x{width}" for height, width in (shape, expected))
    turned = shape == expected[::-1]
    upright = " once it is upright, as its EXIF data ask" * turned
    remedy = "rotate it" if turned else "resize it without interpolation"
    return [f"is {found} (height x width), but its image is {wanted}{upright}: {remedy}"]


def _read_mask(path: Path, options: Options) -> np.ndarray:
    """Returns the classes of a mask, i32[H, W]; `VOID` where it has none."""
    assert options.coding is not None
    return masks.read(path, options.coding, options.ignore_label)


def _mask_phrases(mask: np.ndarray, options: Options) -> list[str]:
    known = mask[mask != VOID]
    phrases = checking.labels(0, options.num_classes - 1).values(known) if known.size else []
    return [f"{phrase} ({options.ignore_label} = no label)" for phrase in phrases]


def read_depth(path: Path, depth_scale: float) -> np.ndarray:
    """Returns depth [H, W] in metres.

    Args:
      path: PNG, NPY, TIFF or EXR file.
      depth_scale: what whole numbers are divided by.

    Raises:
      ValueError: in one line, if the file can't be read or is of another form.
    """
    return _in_metres(_load_depth(path), depth_scale)


def _load_depth(path: Path) -> np.ndarray:
    """Returns the numbers [H, W] in a file of depth; raises as `read_depth`."""
    suffix = path.suffix.lower()
    if suffix == ".npy":
        array = array_files.load_npy(path)
        array = array[..., 0] if array.shape[2:] == (1,) else array
    elif suffix == ".exr":
        array = exr.load(path)
    elif suffix == ".png":
        pixels = array_files.png_form(path).pixels
        if pixels != "16-bit grey":
            raise ValueError(f"{path} is {pixels}, where 16-bit grey is expected")
        array = array_files.load_png(path)
    else:
        array = _load_tiff(path)
    if array.ndim != 2 or array.dtype.kind not in "uif" or not array.size:
        raise ValueError(
            f"{path} is {array.dtype}{list(array.shape)}, where one number per pixel is expected"
        )
    if array.dtype.itemsize == 1:
        raise ValueError(
            f"{path} is {array.dtype}{list(array.shape)}: 8 bits are too few for depth"
        )
    return array


def _load_tiff(path: Path) -> np.ndarray:
    try:
        with Image.open(path, formats=["TIFF"]) as image:
            return np.array(image)
    # Decoders of broken files raise errors of any kind.
    except Exception as error:
        raise ValueError(
            f"{path} can't be read as a TIFF: it is damaged or of another format"
        ) from error


def _in_metres(numbers: np.ndarray, depth_scale: float) -> np.ndarray:
    """Returns depth in metres from the numbers in its file: floats are metres already."""
    if numbers.dtype.kind == "f":
        return numbers
    return (numbers / depth_scale).astype(np.float32)


def _distance_phrases(numbers: np.ndarray, options: Options) -> list[str]:
    """Returns phrases for numbers in a file that can't be depth."""
    if phrases := checking.depth_numbers(numbers):
        return phrases
    phrases = checking.depth_unit(_in_metres(numbers, options.depth_scale))
    return _with_remedy(phrases, numbers, options)


def _depth_phrases(numbers: np.ndarray, options: Options) -> list[str]:
    """Returns phrases for numbers in a file that can't be depth, or can't be stored as such."""
    if phrases := _distance_phrases(numbers, options):
        return phrases
    phrases = checking.storable_depth(_in_metres(numbers, options.depth_scale))
    return _with_remedy(phrases, numbers, options)


def _with_remedy(phrases: list[str], numbers: np.ndarray, options: Options) -> list[str]:
    """Returns phrases about depth that is too large, each with what changes its unit."""
    if numbers.dtype.kind == "f":
        remedy = "floats must be metres, which depth_scale does not change: divide them by 1000"
    else:
        remedy = (
            f"whole numbers are divided by depth_scale={options.depth_scale:g}, which can be set "
            "as in folder:depth_scale=1000"
        )
    return [f"{phrase} ({remedy})" for phrase in phrases]


def _read_normals(path: Path, options: Options) -> np.ndarray:
    """Returns normals [H, W, 3] of their own length; those that are too short become zero."""
    if path.suffix.lower() == ".npy":
        normals = array_files.load_npy(path)
        if (
            normals.ndim != 3
            or normals.shape[2] != 3
            or normals.dtype.kind != "f"
            or not normals.size
        ):
            raise ValueError(
                f"{path} is {normals.dtype}{list(normals.shape)}, where three floats per pixel are "
                "expected"
            )
        short = _length(normals) <= SHORTEST_NORMAL
        # Kept if all are short: the file is then refused and not taken for one without normals.
        return normals if np.all(short) else np.where(short, 0, normals)
    pixels = array_files.png_form(path).pixels
    if pixels != "8-bit RGB":
        raise ValueError(f"{path} is {pixels}, where normals are 8-bit RGB (or in a .npy file)")
    colours = array_files.load_png(path)
    normals = colours.astype(np.float32) / 127.5 - 1.0
    known = (_length(normals) > SHORTEST_NORMAL) & np.any(colours > 0, axis=-1, keepdims=True)
    return np.where(known, normals, 0)


def _length(normals: np.ndarray) -> np.ndarray:
    """Returns the lengths of vectors [H, W, 3] as f32[H, W, 1]."""
    return np.linalg.norm(normals.astype(np.float32), axis=-1, keepdims=True)


def _normals_phrases(normals: np.ndarray, options: Options) -> list[str]:
    return checking.NORMALS.values(normals) if np.any(normals != 0) else []


_READERS: dict[str, Callable[[Path, Options], np.ndarray]] = {
    "segmentation": _read_mask,
    "depth": lambda path, options: _load_depth(path),
    "normals": _read_normals,
}
_CHECKS: dict[str, Callable[[np.ndarray, Options], list[str]]] = {
    "segmentation": _mask_phrases,
    "depth": _depth_phrases,
    "normals": _normals_phrases,
}
_FORMS: dict[str, Callable[[np.ndarray, Options], np.ndarray]] = {
    "segmentation": lambda mask, options: mask,
    "depth": lambda numbers, options: _in_metres(numbers, options.depth_scale),
    "normals": lambda normals, options: unit(normals),
}
