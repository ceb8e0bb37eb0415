"""Reading the preprocessed folders of the multi-task literature (MTAN, Liu et al., CVPR 2019).

{train,val}/image/I.npy    float [H, W, 3] in 0..1
{train,val}/label/I.npy    [H, W], 13 classes 0..12, -1 = void
{train,val}/depth/I.npy    float [H, W, 1] in metres, 0 = missing
{train,val}/normal/I.npy   float [H, W, 3], unit, 0 = missing
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from datasets.nyu_depth_v2 import classes
from datasets.nyu_depth_v2.frame import Frame

FOLDER_OF_SPLIT = {"train": "train", "test": "val"}

# Trailing axes of each kind of file after [H, W].
_CHANNELS = {"image": (3,), "label": (), "depth": (1,), "normal": (3,)}


def check(root: Path, counts: dict[str, int]) -> None:
    """Checks that every file is there, whole and of one size, reading the headers alone.

    Args:
      root: folder with train/ and val/.
      counts: split -> number of frames.

    Raises:
      ValueError: in one line that names the file or folder.
    """
    size = None
    for split, count in counts.items():
        for kind, channels in _CHANNELS.items():
            folder = root / FOLDER_OF_SPLIT[split] / kind
            if not folder.is_dir():
                raise ValueError(
                    f"there is no folder {folder}: --manual_dir must hold train/ and val/ of the "
                    "mtan layout"
                )
            found = len(list(folder.glob("*.npy")))
            if found != count:
                raise ValueError(f"{folder} has {found} .npy files instead of {count}")
            for index in range(count):
                array = _load(folder / f"{index}.npy")
                size = size or array.shape[:2]
                if array.shape != (*size, *channels):
                    raise ValueError(
                        f"{folder / f'{index}.npy'} has the shape {list(array.shape)} "
                        f"instead of {[*size, *channels]}"
                    )


def frames(root: Path, split: str, count: int) -> Iterator[tuple[int, Frame]]:
    """Yields (index, frame) in the order of the files, which is the official one.

    Raises:
      ValueError: in one line that names a file whose values are out of range.
    """
    for index in range(count):
        paths = {k: root / FOLDER_OF_SPLIT[split] / k / f"{index}.npy" for k in _CHANNELS}
        image, labels, depth, normals = (np.asarray(_load(path)) for path in paths.values())
        if not (image.min() >= 0 and image.max() <= 1.001):
            raise ValueError(f"{paths['image']} is not in 0..1 but {image.min()}..{image.max()}")
        if labels.min() < -1 or labels.max() >= len(classes.NAMES_13):
            raise ValueError(
                f"{paths['label']} is not in -1..12 but {labels.min()}..{labels.max()}"
            )
        if normals[..., 2].mean() > 0:
            raise ValueError(
                f"{paths['normal']} points away from the camera: normals must be in the camera "
                "frame x right, y down, z forward and face the camera, so that most z are negative"
            )
        yield (
            index,
            Frame(
                image=image.astype(np.float32) * 255,
                segmentation=labels.astype(np.int8),
                depth=np.where(np.isfinite(depth) & (depth > 0), depth, 0)[..., 0],
                normals=_unit_or_zero(normals.astype(np.float32)),
            ),
        )


def _load(path: Path) -> np.ndarray:
    # Mapping the file compares its length with its header, and reads no values yet.
    try:
        return np.load(path, mmap_mode="r")
    except FileNotFoundError:
        raise ValueError(f"there is no {path}: files are numbered from 0 on") from None
    except (ValueError, EOFError, OSError) as error:
        raise ValueError(f"{path} is truncated or not a .npy file") from error


def _unit_or_zero(normals: np.ndarray) -> np.ndarray:
    length = np.linalg.norm(normals, axis=-1, keepdims=True)
    return np.where(length > 0.5, normals / np.maximum(length, 0.5), 0)
