"""Writes examples as the files of a folder, without loss."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

FOLDERS = {"segmentation": "masks", "depth": "depth", "normals": "normals"}


def write(
    root: Path,
    splits: Mapping[str, Sequence[Mapping[str, np.ndarray]]],
    class_names: Sequence[str],
) -> None:
    """Writes images and masks as PNG, depth and normals as they are.

    Args:
      root: where to.
      splits: name of a folder, such as "train", or "" -> examples as they are stored.
      class_names: names of the classes.
    """
    root.mkdir(parents=True, exist_ok=True)
    (root / "classes.txt").write_text("\n".join(class_names) + "\n")
    for part, examples in splits.items():
        for name in ("images", *FOLDERS.values()):
            (root / name / part).mkdir(parents=True, exist_ok=True)
        for number, example in enumerate(examples):
            stem = f"{part or 'photo'}{number:04d}"
            Image.fromarray(example["image"]).save(root / "images" / part / f"{stem}.png")
            classes = example["segmentation"].astype(np.int16)
            mask = np.where(classes < 0, 255, classes)
            Image.fromarray(mask.astype(np.uint8)).save(root / "masks" / part / f"{stem}.png")
            for entry in ("depth", "normals"):
                np.save(root / FOLDERS[entry] / part / f"{stem}.npy", example[entry])
