"""Resizing of photographs and their labels.

Half-pixel centres throughout: pixel i of n covers [i, i + 1] / n of the picture. Colours are
filtered by a triangle as wide as a pixel of the smaller image (antialiased bilinear, as Pillow's
BILINEAR). Labels, depth and normals can't be averaged over an edge, so each takes the value of
the source pixel that contains its centre, the same one for all three.
"""

import functools

import numpy as np


def resize_image(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resizes f32[H, W, C] to f32[height, width, C], bilinearly with antialiasing."""
    if image.shape[:2] == (height, width):
        return image
    rows = _triangle_weights(image.shape[0], height)  # [height, H]
    columns = _triangle_weights(image.shape[1], width)  # [width, W]
    image = np.tensordot(rows, image, axes=1)  # [height, W, C]
    return np.matmul(columns, image)  # [height, width, C]


def resize_colours(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Returns an image [H, W, 3] in 0..255, resized by `resize_image`, as u8[height, width, 3]."""
    resized = resize_image(image.astype(np.float32), height, width)
    return np.clip(np.rint(resized), 0, 255).astype(np.uint8)


def resize_nearest(array: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resizes [H, W, ...] to [height, width, ...]: each pixel copies the one at its centre."""
    if array.shape[:2] == (height, width):
        return array
    rows = _nearest(array.shape[0], height)
    columns = _nearest(array.shape[1], width)
    return array[rows[:, None], columns]


def resize_intrinsics(
    intrinsics: np.ndarray, shape: tuple[int, int], height: int, width: int
) -> np.ndarray:
    """Returns fx, fy, cx, cy of a resized image, given those of the original of this [H, W] shape.

    With pixel centres at integer coordinates, scaling by s takes c to (c + 0.5) s - 0.5.
    """
    scale = np.array([width / shape[1], height / shape[0]])
    focal, centre = np.split(np.asarray(intrinsics, np.float64), 2)
    scaled = np.concatenate([focal * scale, (centre + 0.5) * scale - 0.5])
    return scaled.astype(np.float32)


def _nearest(size: int, new_size: int) -> np.ndarray:
    # Twice the centre, as integers, since rounding must not depend on the machine.
    return (2 * np.arange(new_size) + 1) * size // (2 * new_size)


@functools.lru_cache(maxsize=8)
def _triangle_weights(size: int, new_size: int) -> np.ndarray:
    """Returns weights f32[new_size, size]; each row adds up to 1."""
    scale = size / new_size
    centres = (np.arange(new_size) + 0.5) * scale - 0.5
    distance = np.abs(np.arange(size) - centres[:, None]) / max(scale, 1.0)
    weights = np.maximum(0.0, 1.0 - distance)
    return (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)
