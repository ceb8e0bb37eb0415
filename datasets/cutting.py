"""The middle of a photo and of its labels, at the size that all images of a set have."""

from typing import NamedTuple

import numpy as np
from PIL import Image

from datasets.resizing import resize_intrinsics, resize_nearest
from mtl_jax.tasks.images import divided

# The most classes of a mask that is stored in 8 bits.
MOST_SMALL = 128
# Largest rounding error in the length of a unit vector in half precision.
ROUNDING = 1e-3
# A shorter normal is the mean of two surfaces, or of a surface and nothing.
SHORTEST_NORMAL = 0.5


class Box(NamedTuple):
    """A part of an image, in pixels."""

    top: int
    left: int
    height: int
    width: int


def middle(shape: tuple[int, int], size: tuple[int, int]) -> Box:
    """Returns the largest part in the middle of an image that has the aspect ratio of `size`.

    Args:
      shape: height and width of the image.
      size: height and width of what is stored.
    """
    (rows, columns), (height, width) = shape, size
    if rows * width > columns * height:
        kept = max(1, round(columns * height / width))
        return Box((rows - kept) // 2, 0, kept, columns)
    kept = max(1, round(rows * width / height))
    return Box(0, (columns - kept) // 2, rows, kept)


def cut_image(image: np.ndarray, box: Box, size: tuple[int, int]) -> np.ndarray:
    """Returns a part of an image u8[H, W, C] at another size; depth among its channels, too."""
    top, left, rows, columns = box
    colours, depth = divided(image)
    # Bilinear with antialiasing, as `resize_image`, and faster with photos of many megapixels.
    resized = Image.fromarray(colours[..., 0] if colours.shape[-1] == 1 else colours).resize(
        size[::-1], Image.Resampling.BILINEAR, box=(left, top, left + columns, top + rows)
    )
    resized = np.asarray(resized).reshape(*size, -1)
    return np.concatenate([resized, cut_labels(depth, box, size)], -1) if depth.size else resized


def cut_labels(labels: np.ndarray, box: Box, size: tuple[int, int]) -> np.ndarray:
    """Returns a part of labels [H, W, ...] at another size."""
    top, left, rows, columns = box
    return resize_nearest(labels[top : top + rows, left : left + columns], *size)


def cut_intrinsics(intrinsics: np.ndarray, box: Box, size: tuple[int, int]) -> np.ndarray:
    """Returns fx, fy, cx, cy of a part of an image at another size, f32[4]."""
    shifted = intrinsics - np.array([0, 0, box.left, box.top])
    return resize_intrinsics(shifted, (box.height, box.width), *size)


def unit(normals: np.ndarray) -> np.ndarray:
    """Returns normals f32[H, W, 3] of length 1, and 0 0 0 for `SHORTEST_NORMAL` or less."""
    normals = normals.astype(np.float32)
    length = np.linalg.norm(normals, axis=-1, keepdims=True)
    known = length > SHORTEST_NORMAL
    # Normals of length 1, up to the rounding of half precision, stay as they are.
    wrong = known & (np.abs(length - 1) > ROUNDING)
    return np.where(known, normals / np.where(wrong, length, 1), 0)


def class_type(num_classes: int) -> type[np.signedinteger]:
    """Returns the type in which classes are stored, which holds -1, too."""
    return np.int8 if num_classes <= MOST_SMALL else np.int32
