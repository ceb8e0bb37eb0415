"""Reading nyu_depth_v2_labeled.mat, the official file (MATLAB 7.3, which is HDF5)."""

import contextlib
import functools
import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path

import h5py
import numpy as np

from datasets import checking
from datasets.nyu_depth_v2 import classes
from datasets.nyu_depth_v2.frame import SHAPE, Frame

FILENAME = "nyu_depth_v2_labeled.mat"
SIZE = 2_972_037_809
SHA256 = "2d724b0c0ab358aa1ce5df855e5bd14a2279ab7202efe22f32a30d612dcb86aa"

# A file with some of the frames may leave the others empty: these are counted while converting.
_DEPTH = checking.DEPTH._replace(values=functools.partial(checking.depth_values, may_be_empty=True))

# MATLAB stores columns first: its [rows, columns, ..., frames] are [frames, ..., columns, rows]
# in HDF5. Each entry is the shape of a frame and what it may hold.
_DATASETS = {
    "images": ((3, *SHAPE[::-1]), checking.image(255, ("uint8",))),
    "depths": (SHAPE[::-1], _DEPTH),
    "labels": (SHAPE[::-1], checking.labels(0, classes.NUM_LABELS, ("uint16", "uint32", "uint64"))),
}


def check(path: Path) -> None:
    """Checks that the file is complete, and prints a line if it isn't the official one.

    Raises:
      ValueError: in one line, for a file that is truncated, not HDF5 or lacks parts.
      OSError: in one line, for a damaged one.
    """
    problems = []
    for name, form in _forms(path).items():
        shape, kind = _DATASETS[name]
        if form is None:
            problems.append(f"{path} has no data set {name!r}: it is not {FILENAME}")
        else:
            phrases = kind.form(*form, (classes.NUM_FRAMES, *shape))
            problems += checking.name(f"{path}: {name!r}", phrases)
    checking.refuse(problems)
    if path.stat().st_size != SIZE or _sha256(path) != SHA256:
        print(f"{path} is complete but not the official file (SHA-256 {SHA256[:16]}...); using it")


def readings(
    path: Path, indices: Iterable[int], num_classes: int
) -> Iterator[tuple[tuple[int, Frame] | None, list[str]]]:
    """Yields pairs for `checking.checked`: (index, frame), and what is wrong with the frame.

    Raises:
      OSError: in one line, where a frame can't be read.
    """
    table = classes.class_of_label(num_classes)
    with _open(path) as file:
        for index in map(int, indices):
            arrays = _read(file, path, index)
            place = f"{path}: frame {index + 1}"
            problems = [
                problem
                for name, (_, kind) in _DATASETS.items()
                for problem in checking.name(place, kind.values(arrays[name]))
            ]
            yield None if problems else (index, _frame(table, **arrays)), problems


def _forms(path: Path) -> dict[str, tuple[np.dtype, tuple[int, ...]] | None]:
    """Returns type and shape of each data set, None for a missing one."""
    forms = {}
    with _open(path) as file, _damage_reported(path, "its structure"):
        for name in _DATASETS:
            found = file.get(name)
            forms[name] = (found.dtype, found.shape) if isinstance(found, h5py.Dataset) else None
    return forms


def _read(file: h5py.File, path: Path, index: int) -> dict[str, np.ndarray]:
    """Returns a frame of each data set, [..., H, W]."""
    with _damage_reported(path, f"frame {index + 1}"):
        return {name: np.swapaxes(file[name][index], -1, -2) for name in _DATASETS}


@contextlib.contextmanager
def _damage_reported(path: Path, part: str) -> Iterator[None]:
    try:
        yield
    except MemoryError:
        raise
    except Exception as error:
        # HDF5 raises OSError, RuntimeError, KeyError or TypeError, depending on the place.
        raise OSError(
            f"{path}: {part} can't be read because the file is damaged: download it again"
        ) from error


def _frame(table: np.ndarray, images: np.ndarray, depths: np.ndarray, labels: np.ndarray) -> Frame:
    return Frame(
        image=np.moveaxis(images, 0, -1).astype(np.float32),  # [3, H, W] -> [H, W, 3]
        segmentation=table[labels],
        depth=depths.astype(np.float32),
    )


def _open(path: Path) -> h5py.File:
    try:
        return h5py.File(path, "r")
    except OSError as error:
        raise ValueError(
            f"{path} can't be opened because it is truncated or not an HDF5 file "
            f"({path.stat().st_size:,} bytes; the official file has {SIZE:,}): download it again"
        ) from error


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
