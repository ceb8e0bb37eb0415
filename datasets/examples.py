"""A user's own data set in NumPy arrays, and the checks of its examples; needs no TFDS."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from datasets import checking
from mtl_jax.tasks.images import CHANNELS, COLOURS

INTEGERS = tuple(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64))
# Labels and, of a stereo pair, the right view and the metres between the cameras.
LABELS = ("segmentation", "depth", "normals", "image_right", "baseline")
KEYS = ("image", *LABELS, "intrinsics")
# Number of examples, spread over a split, by which changes are noticed.
SAMPLED = 5

Example = Mapping[str, np.ndarray]


class Examples(NamedTuple):
    """Holds a data set of your own as NumPy arrays.

    A split is anything with a length whose items 0, 1, ... are dicts of arrays: a list, or an
    object with `__len__` and `__getitem__` that reads or computes one example at a time. An example
    has these entries:

        image         u8[H, W, C], or floats from 0 to 1: C is 3; 1 for grey images; or 4 for
                      these colours and the depth of a sensor, divided by the largest one
        segmentation  whole numbers [H, W], the class of each pixel; -1 = no label
        depth         floats [H, W] in metres; 0 = missing
        normals       floats [H, W, 3], unit vectors, x right, y down, z forward; 0 0 0 = missing
        intrinsics    floats [4]: fx, fy, cx, cy in pixels
        image_right   as the image: the right view of a rectified stereo pair
        baseline      a float: the metres between the two cameras

    All except the image may be missing from an example; the image then has no such label.

    Attributes:
      train: examples to train on.
      test: examples to evaluate on.
      class_names: names of the classes 0, 1, ... of `segmentation`; needed only with it.
      labels: entries that examples may have in addition to the image and `intrinsics`; None means
        those of the first training example.
    """

    train: Sequence[Example]
    test: Sequence[Example]
    class_names: Sequence[str] = ()
    labels: Sequence[str] | None = None


class Known(NamedTuple):
    """A set and what its examples may hold.

    Attributes:
      train: as in `Examples`.
      test: as in `Examples`.
      class_names: none without segmentation.
      channels: of the images.
      labels: in the order of `LABELS`.
      has_cameras: whether the first example of `train` has intrinsics.
    """

    train: Sequence[Example]
    test: Sequence[Example]
    class_names: tuple[str, ...]
    channels: int
    labels: tuple[str, ...]
    has_cameras: bool


class Checked(NamedTuple):
    """An example and what is wrong with it.

    Attributes:
      arrays: those that can be used.
      problems: phrases, each after the name of the example.
    """

    arrays: dict[str, np.ndarray]
    problems: list[str]


def known(examples: Examples) -> Known:
    """Returns a set with what its first example says of all.

    Raises:
      ValueError: in one line, for a set that can't be used.
    """
    for split, items in (("train", examples.train), ("test", examples.test)):
        if not (hasattr(items, "__len__") and hasattr(items, "__getitem__")):
            raise ValueError(
                f"{split} is of type {type(items).__name__}, which has no length or no items by "
                "number: make it a list, or give its class __len__ and __getitem__"
            )
        if not len(items):
            raise ValueError(f"{split} has no examples")
    first = read(examples.train, 0, "train example 0")
    if isinstance(first, str):
        raise ValueError(first)
    given = [key for key in LABELS if key in first] if examples.labels is None else examples.labels
    unknown = [key for key in given if key not in LABELS]
    if unknown:
        raise ValueError(f"labels={unknown[0]}: choose from {', '.join(LABELS)}")
    names = tuple(examples.class_names)
    if "segmentation" in given and not names:
        raise ValueError("there is segmentation, but class_names is empty: name each class")
    if len(set(names)) != len(names) or not all(isinstance(name, str) for name in names):
        raise ValueError("class_names must be distinct strings")
    if ("image_right" in given) != ("baseline" in given):
        raise ValueError("a stereo pair has both image_right and baseline")
    labels = tuple(key for key in LABELS if key in given)
    names = names if "segmentation" in given else ()
    shape = first["image"].shape if "image" in first else ()
    # Other shapes are reported when the examples are checked.
    channels = shape[2] if len(shape) == 3 and shape[2] in CHANNELS else COLOURS
    if channels > COLOURS and "image_right" in given:
        raise ValueError("image_right is for images of 1 or 3 channels, and the image has 4")
    return Known(examples.train, examples.test, names, channels, labels, "intrinsics" in first)


def first_image_size(examples: Known) -> tuple[int, int]:
    """Returns height and width of the first image of `train`.

    Raises:
      ValueError: in one line, if it can't be used.
    """
    first = read(examples.train, 0, "train example 0")
    if isinstance(first, str):
        raise ValueError(first)
    phrases = _image(first["image"], examples) if "image" in first else ["is missing"]
    if phrases:
        raise ValueError(f"train example 0: image {phrases[0]}")
    height, width = first["image"].shape[:2]
    return height, width


def splits(examples: Known) -> dict[str, Sequence[Example]]:
    """Returns the examples of each split."""
    return {"train": examples.train, "test": examples.test}


def read(items: Sequence[Example], number: int, name: str) -> dict[str, np.ndarray] | str:
    """Returns an example, or why it can't be read."""
    try:
        example = items[number]
        if isinstance(example, Mapping):
            return {key: np.asarray(value) for key, value in example.items() if value is not None}
    # The user's own code may raise anything.
    except Exception as error:
        return f"{name} can't be read ({type(error).__name__}: {' '.join(str(error).split())})"
    return f"{name} is of type {type(example).__name__}, where a dict of arrays is expected"


def check(example: dict[str, np.ndarray], name: str, examples: Known) -> Checked:
    """Checks the arrays of an example.

    Args:
      example: from `read`.
      name: of the example.
      examples: from `known`.
    """
    image = example.get("image")
    if image is None:
        return Checked({}, [f"{name} has no image"])
    if phrases := _image(image, examples):
        return Checked({}, checking.name(f"{name}: image", phrases))
    arrays, problems = {}, []
    for key, array in example.items():
        if key not in KEYS:
            phrases = [f"is unknown: choose from {', '.join(KEYS)}"]
        elif key in LABELS and key not in examples.labels:
            phrases = [
                "is not among the labels of the set, which are those of train example 0 unless "
                "labels=(...) names them"
            ]
        else:
            phrases = _CHECKS[key](array, image.shape[:2], examples)
        problems += checking.name(f"{name}: {key}", phrases)
        if not phrases:
            arrays[key] = array
    if "image_right" in arrays and np.array_equal(arrays["image_right"], image):
        problems.append(f"{name}: image_right {checking.SAME_VIEW}")
    pair = {"image_right", "baseline", "intrinsics"} - example.keys()
    if pair and ("image_right" in example or "baseline" in example):
        problems.append(f"{name}: a stereo pair has no {' and no '.join(sorted(pair))}")
    return Checked(arrays, problems)


def digest(examples: Known, *facts: str) -> str:
    """Returns a hexadecimal digest of a set: its sizes, names and some examples of each split.

    Args:
      examples: from `known`.
      facts: further texts that change if the set does.
    """
    found = hashlib.sha256(repr((examples.class_names, examples.labels, facts)).encode())
    for split, items in splits(examples).items():
        found.update(f"{split} {len(items)}".encode())
        for number in np.linspace(0, len(items) - 1, min(SAMPLED, len(items))).astype(int):
            example = read(items, int(number), "")
            # An example that can't be read is reported when the set is prepared.
            for key, array in sorted({} if isinstance(example, str) else example.items()):
                found.update(f"{key} {array.dtype} {array.shape}".encode())
                found.update(np.ascontiguousarray(array).tobytes())
    return found.hexdigest()


Shape = tuple[int, int]


def _image(array: np.ndarray, examples: Known) -> list[str]:
    """Returns phrases for what is wrong with an image [H, W, C] of any size."""
    form, channels = array.dtype.name in ("uint8", "float32", "float64"), examples.channels
    if not form or array.ndim != 3 or array.shape[2] != channels or not array.size:
        return [
            f"is {array.dtype.name}{list(array.shape)} instead of uint8 or float "
            f"[H, W, {channels}]{' (grey images are [H, W, 1])' * (array.ndim == 2)}"
        ]
    phrases = checking.image(255 if array.dtype == np.uint8 else 1, ()).values(array)
    return [
        phrase + ": colours from 0 to 255 are uint8" * phrase.startswith("is not in 0..1 ")
        for phrase in phrases
    ]


def _image_right(array: np.ndarray, shape: Shape, examples: Known) -> list[str]:
    phrases = _image(array, examples)
    if not phrases and array.shape[:2] != shape:
        return [f"is {list(array.shape)}, but the image {[*shape, examples.channels]}"]
    return phrases


def _classes(array: np.ndarray, shape: Shape, examples: Known) -> list[str]:
    last = len(examples.class_names) - 1
    phrases = checking.labels(-1, last, INTEGERS).problems(array, shape)
    return [
        phrase + ", where -1 = no label" * phrase.startswith("has the label") for phrase in phrases
    ]


def _depth(array: np.ndarray, shape: Shape, examples: Known) -> list[str]:
    del examples
    phrases = checking.DEPTH.form(array.dtype, array.shape, shape)
    if phrases and array.dtype.kind in "iu":
        return [f"{phrases[0]}: depth is in metres"]
    phrases = phrases or checking.depth_numbers(array)
    return phrases or checking.depth_unit(array) or checking.storable_depth(array)


def _normals(array: np.ndarray, shape: Shape, examples: Known) -> list[str]:
    del examples
    phrases = checking.NORMALS.form(array.dtype, array.shape, (*shape, 3))
    return phrases or (checking.NORMALS.values(array) if np.any(array != 0) else [])


def _camera(array: np.ndarray, shape: Shape, examples: Known) -> list[str]:
    del examples
    if array.shape != (4,) or array.dtype.kind not in "iuf":
        return [f"is {array.dtype}{list(array.shape)} instead of float[4]: fx, fy, cx, cy"]
    return checking.intrinsics_values(array.astype(np.float64), *shape)


def _baseline(array: np.ndarray, shape: Shape, examples: Known) -> list[str]:
    del shape, examples
    if array.shape or array.dtype.kind not in "iuf":
        return [f"is {array.dtype}{list(array.shape)} instead of a number"]
    return checking.baseline_values(float(array))


_CHECKS: dict[str, Callable[[np.ndarray, Shape, Known], list[str]]] = {
    "image": lambda array, shape, examples: [],
    "segmentation": _classes,
    "depth": _depth,
    "normals": _normals,
    "intrinsics": _camera,
    "image_right": _image_right,
    "baseline": _baseline,
}
