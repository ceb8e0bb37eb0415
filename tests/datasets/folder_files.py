"""Folders of one's own: examples as files, without loss, and the sets that are prepared of them."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import datasets
from mtl_jax import data
from tests import fakes

FOLDERS = {"segmentation": "masks", "depth": "depth", "normals": "normals"}
ENTRIES = ("image", *FOLDERS)
HEIGHT, WIDTH = 16, 24

# Name of a folder, such as "train", or "" -> examples as they are stored.
Splits = Mapping[str, Sequence[Mapping[str, np.ndarray]]]


def examples(train: int, val: int, *, height: int = HEIGHT, width: int = WIDTH) -> Splits:
    """Returns as many different examples of each split."""
    return {
        part: [fakes.example(first + i, height=height, width=width) for i in range(count)]
        for part, first, count in (("train", 0, train), ("val", 100, val))
    }


# Those of the fixture `root`, where a module has no others.
EXAMPLES = examples(4, 2)


def write(root: Path, splits: Splits, class_names: Sequence[str]) -> None:
    """Writes images and masks as PNG, depth and normals as they are.

    Args:
      root: where to.
      splits: the examples.
      class_names: names of the classes.
    """
    root.mkdir(parents=True, exist_ok=True)
    (root / "classes.txt").write_text("\n".join(class_names) + "\n")
    for part, examples in splits.items():
        for name in ("images", *FOLDERS.values()):
            (root / name / part).mkdir(parents=True, exist_ok=True)
        for number, example in enumerate(examples):
            stem = _stem(part, number)
            Image.fromarray(example["image"]).save(root / "images" / part / f"{stem}.png")
            classes = example["segmentation"].astype(np.int16)
            mask = np.where(classes < 0, 255, classes)
            Image.fromarray(mask.astype(np.uint8)).save(root / "masks" / part / f"{stem}.png")
            for entry in ("depth", "normals"):
                np.save(root / FOLDERS[entry] / part / f"{stem}.npy", example[entry])


def write_pairs(root: Path, splits: Splits) -> None:
    """Adds the right views, and the cameras with their baselines."""
    lines = []
    for part, examples in splits.items():
        (root / "images_right" / part).mkdir(parents=True)
        for number, example in enumerate(examples):
            stem = _stem(part, number)
            Image.fromarray(example["image_right"]).save(
                root / "images_right" / part / f"{stem}.png"
            )
            numbers = (*example["intrinsics"], example["baseline"])
            lines.append(" ".join([stem, *(repr(float(x)) for x in numbers)]))
    (root / "cameras.txt").write_text("\n".join(lines))


def colour_masks(root: Path, class_names: Sequence[str]) -> None:
    """Replaces the masks by colours, of which two stand for each class, palette and mapping."""
    colours = np.random.default_rng(0).permutation(256**3)[: 2 * len(class_names) + 1]
    colours = np.stack([colours >> 16, colours >> 8 & 255, colours & 255], axis=-1).astype(np.uint8)
    for number, path in enumerate(sorted((root / "masks").rglob("*.png"))):
        mask = np.array(Image.open(path)).astype(int)
        lines = np.where(mask == 255, 2 * len(class_names), 2 * mask + number % 2)
        Image.fromarray(colours[lines]).save(path)
    (root / "palette.txt").write_text("\n".join(" ".join(map(str, x)) for x in colours.tolist()))
    mapped = [*(f"{line} {line // 2}" for line in range(len(colours) - 1))]
    (root / "mapping.txt").write_text("\n".join([*mapped, f"{len(colours) - 1} ignore"]))


def prepared(
    root: Path, text: str = "folder", size: tuple[int, int] = (HEIGHT, WIDTH)
) -> dict[str, data.Dataset]:
    """Returns the splits of the set that is prepared from a folder."""
    builder = datasets.builder(text, image_size=size, data_dir=root.parent / "data", folder=root)
    datasets.prepare(builder)
    return data.open_splits(builder)


def refusal(
    root: Path,
    capsys: pytest.CaptureFixture[str],
    text: str = "folder",
    size: tuple[int, int] = (HEIGHT, WIDTH),
) -> str:
    """Returns all that is printed when a folder is refused, the paths without the root."""
    with pytest.raises(ValueError) as error:
        prepared(root, text, size)
    assert "\n" not in str(error.value)
    assert not list((root.parent / "data").rglob("*.array_record*"))
    return f"{capsys.readouterr().out}{error.value}".replace(f"{root}/", "")


def assert_equal(
    example: Mapping[str, np.ndarray],
    expected: Mapping[str, np.ndarray],
    entries: Sequence[str] = ENTRIES,
) -> None:
    """Compares entries of two examples, and their types."""
    for name in entries:
        assert example[name].dtype == expected[name].dtype, name
        np.testing.assert_array_equal(example[name], expected[name], err_msg=name)


def save(path: Path, array: np.ndarray) -> None:
    """Writes an array or, by the suffix, a picture."""
    np.save(path, array) if path.suffix == ".npy" else Image.fromarray(array).save(path)


# What a test does to the files of a folder.
Damage = Callable[[Path], object]


def changes(name: str, change: Callable[[np.ndarray], np.ndarray]) -> Damage:
    """Changes the numbers of a file."""

    def damage(root: Path) -> None:
        path = root / name
        array = np.load(path) if path.suffix == ".npy" else np.array(Image.open(path))
        save(path, change(array))

    return damage


def cuts(name: str) -> Damage:
    """Cuts off the end of a file."""
    return lambda root: (root / name).write_bytes((root / name).read_bytes()[:-30])


def _stem(part: str, number: int) -> str:
    return f"{part or 'photo'}{number:04d}"
