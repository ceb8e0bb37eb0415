"""From the range images of laser scanners to sparse depth in a camera.

The vehicle's frame and those of its sensors are x forward, y left, z up. An extrinsic is the matrix
from a sensor's frame to the vehicle's.
"""

from typing import NamedTuple

import numpy as np


class Lidar(NamedTuple):
    """A laser scanner.

    Attributes:
      extrinsic: f64[4, 4].
      lowest: the smallest inclination of its beams in radians.
      highest: the largest.
      inclinations: of all beams, from the lowest to the highest, f64[H]; none if they are evenly
        spaced.
    """

    extrinsic: np.ndarray
    lowest: float
    highest: float
    inclinations: np.ndarray


class Projections(NamedTuple):
    """The pixels of a range image that a camera sees.

    Attributes:
      index: their numbers in the flattened range image, i64[N].
      pixels: where the camera sees them, f32[N, 2], from the left and from the top.
      shape: height and width of the range image.
    """

    index: np.ndarray
    pixels: np.ndarray
    shape: tuple[int, int]


def projections(image: np.ndarray, camera: int) -> Projections:
    """Returns what a camera sees of a range image.

    Args:
      image: [H, W, 6]: number of a camera, x and y in pixels from the corner of its image; and the
        same for a second camera. Number 0 is for none.
      camera: number of the camera.
    """
    first, second = image.reshape(-1, 2, 3).swapaxes(0, 1)
    index = [
        np.flatnonzero((seen[:, 0] == camera) & np.isfinite(seen[:, 1:]).all(axis=1))
        for seen in (first, second)
    ]
    pixels = [seen[found, 1:] for seen, found in zip((first, second), index, strict=True)]
    shape = (image.shape[0], image.shape[1])
    return Projections(np.concatenate(index), np.concatenate(pixels).astype(np.float32), shape)


def vehicle_points(
    ranges: np.ndarray, index: np.ndarray, shape: tuple[int, int], lidar: Lidar
) -> np.ndarray:
    """Returns points f64[N, 3] in the vehicle's frame, as Waymo's own code computes them.

    The columns of a range image go once around, from behind the vehicle over its left and its front
    to its right, and its rows from the highest beam to the lowest.

    Args:
      ranges: in metres, [N].
      index: their numbers in the flattened range image, i64[N].
      shape: height and width of the range image.
      lidar: the scanner that measured them.
    """
    height, width = shape
    rows, columns = np.divmod(index, width)
    beams = lidar.inclinations
    if not len(beams):
        span = lidar.highest - lidar.lowest
        beams = lidar.lowest + (np.arange(height) + 0.5) / height * span
    rotation, origin = lidar.extrinsic[:3, :3], lidar.extrinsic[:3, 3]
    yaw = np.arctan2(rotation[1, 0], rotation[0, 0])
    azimuth = np.pi - (columns + 0.5) / width * 2 * np.pi - yaw
    inclination = beams[::-1][rows]
    level = np.cos(inclination)
    rays = np.stack([np.cos(azimuth) * level, np.sin(azimuth) * level, np.sin(inclination)], -1)
    return (ranges[:, None] * rays) @ rotation.T + origin


def camera_depth(points: np.ndarray, extrinsic: np.ndarray) -> np.ndarray:
    """Returns how far points f64[N, 3] of the vehicle's frame are along a camera's optical axis."""
    return (points - extrinsic[:3, 3]) @ extrinsic[:3, 0]


def depth_map(
    pixels: np.ndarray, depth: np.ndarray, full: tuple[int, int], height: int, width: int
) -> np.ndarray:
    """Returns depth f32[height, width]: the nearest return of each pixel, 0 where there is none.

    Args:
      pixels: f32[N, 2], from the left and from the top of the full image.
      depth: in metres, f32[N]; where it is not positive, it is left out.
      full: height and width of the full image.
      height: of the map.
      width: of the map.
    """
    columns, rows = np.floor(pixels).astype(np.int64).T
    kept = (depth > 0) & (columns >= 0) & (columns < full[1]) & (rows >= 0) & (rows < full[0])
    # The pixel of the map that contains the centre of the one in the image; in integers, since
    # rounding must not depend on the machine.
    down = (2 * rows[kept] + 1) * height // (2 * full[0])
    across = (2 * columns[kept] + 1) * width // (2 * full[1])
    nearest = np.full(height * width, np.inf, np.float32)
    np.minimum.at(nearest, down * width + across, depth[kept])
    return np.where(np.isfinite(nearest), nearest, 0).reshape(height, width)
