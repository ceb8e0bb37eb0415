"""Reading nyu_depth_v2_labeled.mat, the official file (MATLAB 7.3, which is HDF5)."""

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path

import h5py
import numpy as np

from datasets.nyu_depth_v2 import classes
from datasets.nyu_depth_v2.frame import SHAPE, Frame

FILENAME = "nyu_depth_v2_labeled.mat"
SIZE = 2_972_037_809
SHA256 = "2d724b0c0ab358aa1ce5df855e5bd14a2279ab7202efe22f32a30d612dcb86aa"

# MATLAB stores columns first: its [rows, columns, ..., frames] are [frames, ..., columns, rows]
# to HDF5. Each entry is the shape of a frame and the kinds of numbers that it may consist of.
_DATASETS = {
    "images": ((3, *SHAPE[::-1]), "u"),
    "depths": (SHAPE[::-1], "f"),
    "labels": (SHAPE[::-1], "u"),
}


def check(path: Path) -> None:
    """Checks that the file is complete, and says so if it isn't the official one.

    Raises:
      ValueError: in one line, for a file that is truncated, no HDF5 or lacks a part.
    """
    with _open(path) as file:
        for name, (shape, kinds) in _DATASETS.items():
            if not isinstance(file.get(name), h5py.Dataset):
                raise ValueError(f"{path} has no data set {name!r}: it is not {FILENAME}")
            found, expected = file[name], (classes.NUM_FRAMES, *shape)
            if found.shape != expected or found.dtype.kind not in kinds:
                raise ValueError(
                    f"{path}: {name!r} is {found.dtype}{list(found.shape)} instead of "
                    f"{list(expected)} of the official file"
                )
    if path.stat().st_size != SIZE or _sha256(path) != SHA256:
        print(f"{path} is complete but not the official file (SHA-256 {SHA256[:16]}...); using it")


def frames(path: Path, indices: Iterable[int], num_classes: int) -> Iterator[tuple[int, Frame]]:
    """Yields (index, frame) for the 0-based indices, with the in-filled depth.

    Raises:
      OSError: in one line, where a frame can't be read.
      ValueError: in one line, for a label above 894.
    """
    table = classes.class_of_label(num_classes)
    with _open(path) as file:
        for index in map(int, indices):
            try:
                image, depth, labels = (np.swapaxes(file[n][index], -1, -2) for n in _DATASETS)
            except OSError as error:
                raise OSError(
                    f"{path}: frame {index + 1} can't be read, the file is damaged: "
                    "download it again"
                ) from error
            if labels.max() > classes.NUM_LABELS:
                raise ValueError(
                    f"{path}: frame {index + 1} has the label {labels.max()}, "
                    f"the official labels end at {classes.NUM_LABELS}"
                )
            yield (
                index,
                Frame(
                    image=np.moveaxis(image, 0, -1).astype(np.float32),  # [3, H, W] -> [H, W, 3]
                    segmentation=table[labels],
                    depth=np.where(np.isfinite(depth) & (depth > 0), depth, 0).astype(np.float32),
                ),
            )


def _open(path: Path) -> h5py.File:
    try:
        return h5py.File(path, "r")
    except OSError as error:
        raise ValueError(
            f"{path} can't be opened, it is truncated or not an HDF5 file "
            f"({path.stat().st_size:,} bytes; the official file has {SIZE:,}): download it again"
        ) from error


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
