"""Writes examples as the files of a folder, without loss."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

FOLDERS = {"segmentation": "masks", "depth": "depth", "normals": "normals"}


# Name of a folder, such as "train", or "" -> examples as they are stored.
Splits = Mapping[str, Sequence[Mapping[str, np.ndarray]]]


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


def _stem(part: str, number: int) -> str:
    return f"{part or 'photo'}{number:04d}"
