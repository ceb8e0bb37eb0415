"""The pinhole camera, and surface normals from a depth image.

Camera frame: x right, y down, z forward. Pixel centres lie at integer coordinates, so the pixel
(u, v) looks along ((u - cx) / fx, (v - cy) / fy, 1), and depth is the z of the point that it sees.
"""

import functools
import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

# Largest misfit of an accepted plane, as a fraction of the inverse depth.
TOLERANCE = 0.01
# A shifted window must fit better than the centred one by this part of the tolerance to be
# preferred: otherwise noise alone would choose among windows that lie on the same plane.
SHIFT_PENALTY = 0.1


def normals_from_depth(
    depth: jax.Array,
    intrinsics: jax.Array,
    *,
    radii: Sequence[int] = (8, 4, 2),
    largest_misfit: float = math.inf,
) -> tuple[jax.Array, jax.Array]:
    """Computes surface normals from a depth image by local plane fits that respect edges.

    A plane in space is linear in inverse depth over pixel coordinates: n . X = d at X = ray / q
    gives q = (n . ray) / d. So a least-squares fit of q over a square window gives the normal. Each
    pixel takes the best of nine windows that contain it, the centred one and eight shifted ones (as
    Kuwahara's filter does): next to an edge there is one that does not cross it. The misfit of a
    window is the relative residual of its plane plus that of the plane at the pixel. Radii are
    tried in order until the misfit is below `TOLERANCE`; a pixel that no radius fits takes the best
    window of the last radius.

    The choice of the window is not differentiated; the fit in it is, with a finite gradient.

    Args:
      depth: f32[H, W] in metres; missing where not positive or not finite.
      intrinsics: f32[4], fx fy cx cy in pixels of this image.
      radii: radii of the windows in pixels, from large to small; 2 r + 1 must not exceed the image.
      largest_misfit: limit beyond which a pixel is not valid, since no window there shows a single
        surface.

    Returns:
      normals f32[H, W, 3], unit, facing the camera (normal . ray < 0), zero where not valid;
      valid bool[H, W], whether the pixel has a depth and a plane could be fitted.

    Raises:
      ValueError: for radii that are not positive or too large for the image.
    """
    if not radii or min(radii) < 1 or 2 * max(radii) + 1 > min(depth.shape):
        raise ValueError(
            f"radii must be at least 1 and windows of 2 r + 1 fit into the image "
            f"{depth.shape[0]}x{depth.shape[1]}, got {tuple(radii)}"
        )
    known = jnp.isfinite(depth) & (depth > 0)
    inverse = jnp.where(known, 1.0 / jnp.where(known, depth, 1.0), 0.0)

    def best(radius: int) -> _Plane:
        return _best_window(_fit_windows(inverse, known, radius), inverse, radius)

    plane = best(radii[0])
    for radius in radii[1:]:
        finer = best(radius)
        plane = _choose(plane.misfit < TOLERANCE, plane, finer)
    valid = known & jnp.isfinite(plane.misfit) & (plane.misfit <= largest_misfit)
    return _facing_normals(plane, intrinsics, valid), valid


class _Plane(NamedTuple):
    """Inverse depth as a plane over pixels, each entry f32[H, W].

    Attributes:
      slope_x: change a pixel to the right.
      slope_y: change a pixel down.
      value: at the pixel.
      misfit: relative to the inverse depth; infinite where nothing could be fitted.
    """

    slope_x: jax.Array
    slope_y: jax.Array
    value: jax.Array
    misfit: jax.Array


def _choose(first_is_better: jax.Array, first: _Plane, second: _Plane) -> _Plane:
    return jax.tree.map(functools.partial(jnp.where, first_is_better), first, second)


def _fit_windows(inverse: jax.Array, known: jax.Array, radius: int) -> _Plane:
    """Fits a plane to the known pixels in the window around each pixel by least squares.

    Moments are taken about each window's own centre, which keeps them accurate in float32.
    """
    weight = known.astype(inverse.dtype)
    w0, wx, wxx = _moments(weight, 1, radius, 2)
    q0, qx = _moments(inverse, 1, radius, 1)
    (n, wy, wyy), (sx, sxy), (sxx,) = (
        _moments(w0, 0, radius, 2),
        _moments(wx, 0, radius, 1),
        _moments(wxx, 0, radius, 0),
    )
    (sq, syq), (sxq,) = _moments(q0, 0, radius, 1), _moments(qx, 0, radius, 0)
    (sqq,) = _moments(_moments(jnp.square(inverse), 1, radius, 0)[0], 0, radius, 0)

    count = jnp.maximum(n, 1.0)
    x, y, q = sx / count, wy / count, sq / count  # means
    xx, yy, xy = sxx / count - x * x, wyy / count - y * y, sxy / count - x * y
    xq, yq, qq = sxq / count - x * q, syq / count - y * q, sqq / count - q * q
    determinant = xx * yy - xy * xy
    # Half a window leaves enough spread both ways; a line of pixels does not.
    fitted = (n >= (2 * radius + 1) ** 2 // 2) & (determinant > 0.01 * radius**4 / 9)
    determinant = jnp.where(fitted, determinant, 1.0)
    slope_x = (yy * xq - xy * yq) / determinant
    slope_y = (xx * yq - xy * xq) / determinant
    residual = lax.stop_gradient(jnp.maximum(qq - slope_x * xq - slope_y * yq, 0.0))
    misfit = jnp.sqrt(residual) / jnp.where(fitted, lax.stop_gradient(q), 1.0)
    plane = _Plane(
        slope_x, slope_y, q - slope_x * x - slope_y * y, jnp.where(fitted, misfit, jnp.inf)
    )
    # Nine shifts read each fit: compute it once.
    return _Plane(*lax.optimization_barrier(tuple(plane)))


def _moments(field: jax.Array, axis: int, radius: int, highest: int) -> list[jax.Array]:
    """Returns sums of k^power * field over the offsets k = -radius..radius along an axis."""
    pad = [(radius, radius) if i == axis else (0, 0) for i in range(field.ndim)]
    padded = jnp.pad(field, pad)
    shifted = [
        (k, lax.slice_in_dim(padded, k + radius, k + radius + field.shape[axis], axis=axis))
        for k in range(-radius, radius + 1)
    ]
    sums = [sum(float(k**power) * values for k, values in shifted) for power in range(highest + 1)]
    return list(lax.optimization_barrier(tuple(sums)))


def _best_window(planes: _Plane, inverse: jax.Array, radius: int) -> _Plane:
    """Finds each pixel's best plane among the windows centred on it and `radius` away from it."""

    def moved(dy: int, dx: int) -> _Plane:
        slope_x, slope_y, value = (_shift(field, dy, dx, 0.0) for field in planes[:3])
        value = value - dy * slope_y - dx * slope_x
        misfit = _shift(planes.misfit, dy, dx, jnp.inf)
        misfit += jnp.abs(value - inverse) / jnp.where(inverse > 0, inverse, 1.0)
        misfit += SHIFT_PENALTY * TOLERANCE * ((dy, dx) != (0, 0))
        # Behind the camera the plane would face away from it.
        misfit = jnp.where(value > 0, misfit, jnp.inf)
        return _Plane(slope_x, slope_y, value, lax.stop_gradient(misfit))

    offsets = [(dy, dx) for dy in (0, -radius, radius) for dx in (0, -radius, radius)]
    best = moved(*offsets[0])
    for dy, dx in offsets[1:]:
        candidate = moved(dy, dx)
        best = _choose(best.misfit <= candidate.misfit, best, candidate)
    return best


def _shift(field: jax.Array, dy: int, dx: int, fill: float) -> jax.Array:
    """Returns field[v + dy, u + dx] at each (v, u), and `fill` outside the image."""
    height, width = field.shape
    margin = max(abs(dy), abs(dx))
    padded = jnp.pad(field, margin, constant_values=fill)
    return lax.dynamic_slice(padded, (margin + dy, margin + dx), (height, width))


def _facing_normals(plane: _Plane, intrinsics: jax.Array, valid: jax.Array) -> jax.Array:
    """Returns unit normals f32[H, W, 3]; n . ray is -q over a length, so negative."""
    fx, fy, cx, cy = intrinsics
    height, width = valid.shape
    u = jnp.arange(width, dtype=intrinsics.dtype) - cx  # [W]
    v = jnp.arange(height, dtype=intrinsics.dtype)[:, None] - cy  # [H, 1]
    normal = -jnp.stack(
        [
            plane.slope_x * fx,
            plane.slope_y * fy,
            plane.value - plane.slope_x * u - plane.slope_y * v,
        ],
        axis=-1,
    )
    normal = jnp.where(valid[..., None], normal, jnp.ones(3, normal.dtype))
    length = jnp.sqrt(jnp.sum(jnp.square(normal), axis=-1, keepdims=True))
    return jnp.where(valid[..., None], normal / length, 0.0)
