"""Reading the preprocessed folders of the multi-task literature, see `datasets.mtan_files`.

{train,val}/image/I.npy    float [H, W, 3] in 0..1
{train,val}/label/I.npy    [H, W], 13 classes 0..12, -1 = void
{train,val}/depth/I.npy    float [H, W, 1] in metres, 0 = missing
{train,val}/normal/I.npy   float [H, W, 3], unit, 0 = missing
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from datasets import checking, mtan_files
from datasets.nyu_depth_v2 import classes
from datasets.nyu_depth_v2.frame import Frame

_KINDS = {
    "image": checking.image(1, ("float16", "float32", "float64")),
    "label": checking.labels(-1, len(classes.NAMES_13) - 1),
    "depth": checking.DEPTH._replace(channels=(1,)),
    "normal": checking.NORMALS,
}


def check(root: Path, counts: dict[str, int]) -> None:
    """Checks the headers of all files; see `mtan_files.check`."""
    mtan_files.check(root, counts, _KINDS)


def readings(
    root: Path, split: str, count: int
) -> Iterator[tuple[tuple[int, Frame] | None, list[str]]]:
    """Returns pairs for `checking.checked`; see `mtan_files.readings`."""
    return mtan_files.readings(root, split, count, _KINDS, _frame)


def _frame(image: np.ndarray, label: np.ndarray, depth: np.ndarray, normal: np.ndarray) -> Frame:
    return Frame(
        image=image.astype(np.float32) * 255,
        segmentation=label.astype(np.int8),
        depth=depth[..., 0].astype(np.float32),
        normals=_unit_or_zero(normal.astype(np.float32)),
    )


def _unit_or_zero(normals: np.ndarray) -> np.ndarray:
    # A shorter normal is the mean of two surfaces, or of a surface and nothing.
    length = np.linalg.norm(normals, axis=-1, keepdims=True)
    return np.where(length > 0.5, normals / np.maximum(length, 0.5), 0)
