"""Made-up files of NYU-Depth V2 in its two layouts, small on disk, and what tests do with them."""

import contextlib
import os

import h5py
import numpy as np
import pytest
import tensorflow_datasets as tfds

from datasets import resizing
from datasets.nyu_depth_v2 import nyu_depth_v2_dataset_builder as nyu
from datasets.nyu_depth_v2.frame import INTRINSICS

PLANE = np.array([0.3, -0.6, -0.742])  # a floor that rises to the right, unit to 1e-3
WALL, FLOOR, BED = 21, 11, 157  # official labels


def plane_depth(height, width):
    fx, fy, cx, cy = resizing.resize_intrinsics(INTRINSICS, (480, 640), height, width)
    v, u = np.mgrid[:height, :width]
    rays = np.stack([(u - cx) / fx, (v - cy) / fy, np.ones((height, width))], axis=-1)
    return (-2.0 / (rays @ (PLANE / np.linalg.norm(PLANE)))).astype(np.float32)


def quarters(height, width, top_left, top_right, bottom_left, bottom_right):
    out = np.empty((height, width), np.uint16)
    half = height // 2, width // 2
    out[: half[0], : half[1]], out[: half[0], half[1] :] = top_left, top_right
    out[half[0] :, : half[1]], out[half[0] :, half[1] :] = bottom_left, bottom_right
    return out


def image(height, width):
    v, u = np.mgrid[:height, :width]
    return np.stack([200 * u / width, 200 * v / height, np.full_like(u, 50)], -1).astype(np.uint8)


def write_mat(path, frames=(0, 1, 2, 3), **replaced):
    """Writes the official file's structure at full size; unwritten frames take no space.

    `replaced` gives a data set's (shape, dtype), or None to leave it out.
    """
    datasets = {
        "images": ((1449, 3, 640, 480), "u1"),
        "depths": ((1449, 640, 480), "f4"),
        "labels": ((1449, 640, 480), "u2"),
    } | replaced
    labels = quarters(480, 640, WALL, FLOOR, BED, 0)
    labels[0, 0] = 894
    contents = {
        "images": image(480, 640).transpose(2, 1, 0),
        "depths": plane_depth(480, 640).T,
        "labels": labels.T,
    }
    with h5py.File(path, "w") as file:
        for name, spec in datasets.items():
            if spec is None:
                continue
            shape, dtype = spec
            made = file.create_dataset(
                name, shape, dtype, chunks=(1, *shape[1:]), compression="gzip", fletcher32=True
            )
            for index in frames if name not in replaced else ():
                made[index] = contents[name]
    return path


def write_mtan(root, height=6, width=8, counts=None):
    """Writes the mtan layout; all files of a folder except the first are links to the second."""
    counts = counts or {"train": 795, "val": 654}
    labels = quarters(height, width, 11, 4, 0, 0).astype(np.float32)
    labels[height // 2 :, width // 2 :] = -1
    normals = np.broadcast_to(PLANE, (height, width, 3)).astype(np.float32).copy()
    normals[0, 0] = 0
    files = {
        "image": image(height, width).astype(np.float32) / 255,
        "label": labels,
        "depth": plane_depth(height, width)[..., None],
        "normal": normals,
    }
    for split, count in counts.items():
        for kind, array in files.items():
            folder = root / split / kind
            folder.mkdir(parents=True)
            np.save(folder / "0.npy", array * (0.5 if (split, kind) == ("val", "depth") else 1))
            np.save(folder / "1.npy", array)
            for index in range(2, count):
                os.link(folder / "1.npy", folder / f"{index}.npy")
    return root


def everything_in(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


@contextlib.contextmanager
def one_line(kind, *parts, folder=None):
    """Expects an error in one line with these parts, and nothing new in the folder."""
    before = everything_in(folder) if folder else None
    with pytest.raises(kind) as caught:
        yield
    assert "\n" not in str(caught.value)
    for part in parts:
        assert str(part) in str(caught.value)
    if folder:
        assert everything_in(folder) == before


def builder(data_dir, **wanted):
    return nyu.Builder(data_dir=data_dir, config=nyu.config(**wanted))


def prepare_some(made, manual_dir, count=2):
    made.download_and_prepare(
        download_config=tfds.download.DownloadConfig(
            manual_dir=manual_dir, max_examples_per_split=count, try_download_gcs=False
        )
    )
