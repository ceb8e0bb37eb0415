"""A photo and its depth as points in space, in the PLY format that 3D programs read."""

from typing import BinaryIO

import numpy as np

from mtl_jax.deploy.bands import bands

# x right, y down, z forward, in metres; red, green and blue.
POINT = np.dtype(
    [("x", "<f4"), ("y", "<f4"), ("z", "<f4"), ("red", "u1"), ("green", "u1"), ("blue", "u1")]
)
PLY_TYPES = {"<f4": "float", "|u1": "uchar"}


def points_of(
    depth: np.ndarray, pixels: np.ndarray, focal_length: float, *, part: slice = slice(None)
) -> np.ndarray:
    """Returns the points that the pixels of a photo show, as an array of `POINT`.

    The camera is a pinhole at the origin whose optical axis goes through the middle of the photo.

    Args:
      depth: f32[H, W] along the optical axis in metres; pixels where it is not positive and finite
        are left out.
      pixels: uint8[H, W, C]; the first three channels are red, green and blue.
      focal_length: in pixels.
      part: rows whose points are returned.
    """
    height, width = depth.shape
    rows, columns = np.nonzero(is_known(depth[part]))
    rows += part.start or 0
    z = depth[rows, columns]
    points = np.empty(len(z), POINT)
    # Pixel centres lie at integer coordinates.
    points["x"] = (columns - (width - 1) / 2) / focal_length * z
    points["y"] = (rows - (height - 1) / 2) / focal_length * z
    points["z"] = z
    for channel, name in enumerate(("red", "green", "blue")):
        points[name] = pixels[rows, columns, channel]
    return points


def is_known(depth: np.ndarray) -> np.ndarray:
    """Returns where there is a depth."""
    return (depth > 0) & np.isfinite(depth)


def write_ply(file: BinaryIO, depth: np.ndarray, pixels: np.ndarray, focal_length: float) -> None:
    """Writes the points of `points_of` as binary PLY."""
    properties = [f"property {PLY_TYPES[POINT[name].str]} {name}" for name in POINT.names or ()]
    header = [
        "ply",
        "format binary_little_endian 1.0",
        "comment metres; x right, y down, z forward from the camera",
        f"element vertex {np.count_nonzero(is_known(depth))}",
        *properties,
        "end_header",
    ]
    file.write(("\n".join(header) + "\n").encode("ascii"))
    for part in bands(depth.shape):
        file.write(points_of(depth, pixels, focal_length, part=part).tobytes())
