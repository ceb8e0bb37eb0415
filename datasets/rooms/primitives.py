"""The solids that a room is made of: upright boxes, ellipsoids and cylinders, as arrays.

World frame: x and y along the room's walls, z up, metres; the origin is a corner of the floor.
"""

from collections.abc import Callable
from itertools import pairwise
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

BOX, ELLIPSOID, CYLINDER = range(3)

CLASS_NAMES = (
    "bed", "books", "ceiling", "chair", "floor", "furniture", "objects",
    "picture", "sofa", "table", "tv", "wall", "window",
)  # fmt: skip
(
    BED, BOOKS, CEILING, CHAIR, FLOOR, FURNITURE, OBJECTS,
    PICTURE, SOFA, TABLE, TV, WALL, WINDOW,
) = range(13)  # fmt: skip


class Material(NamedTuple):
    """What a surface looks like.

    Attributes:
      texture: i32[...], one of the kinds in `textures`.
      colour: f32[..., 3], linear RGB in 0..1.
      accent: f32[..., 3], the texture's second colour.
      scale: f32[..., 2], size of the texture's cells in metres, or cells per face (see `textures`).
      glow: f32[...], light that the surface gives off, as a multiple of its colour.
    """

    texture: jax.Array
    colour: jax.Array
    accent: jax.Array
    scale: jax.Array
    glow: jax.Array


class Primitives(NamedTuple):
    """N solids, turned about the vertical axis by `yaw`; a solid's front is its local -y side.

    Attributes:
      centre: f32[N, 3].
      half: f32[N, 3], half the extent along the local axes.
      yaw: f32[N], radians.
      shape: i32[N], BOX, ELLIPSOID or CYLINDER.
      label: i32[N], class.
      seed: i32[N], of the texture's random numbers.
      active: bool[N], whether the solid exists.
      material: Material with a leading axis of N.
    """

    centre: jax.Array
    half: jax.Array
    yaw: jax.Array
    shape: jax.Array
    label: jax.Array
    seed: jax.Array
    active: jax.Array
    material: Material


# Models return rows f32[N, 21] of these numbers: one array compiles far faster than fourteen.
_COLUMNS = np.cumsum([0, 3, 3, 1, 1, 1, 1, 1, 1, 3, 3, 2, 1])


def unpack(rows: jax.Array) -> Primitives:
    """Returns the solids of rows f32[N, 21], which models make."""
    parts = [rows[:, a] if b - a == 1 else rows[:, a:b] for a, b in pairwise(_COLUMNS)]
    centre, half, yaw, shape, label, seed, active, texture, colour, accent, scale, glow = parts
    shape, label, seed, texture = (part.astype(jnp.int32) for part in (shape, label, seed, texture))
    look = Material(texture, colour, accent, scale, glow)
    return Primitives(centre, half, yaw, shape, label, seed, active > 0, look)


def vector(*values) -> jax.Array:
    """Returns f32[n] of numbers and f32[] arrays."""
    return jnp.stack([jnp.asarray(value, jnp.float32) for value in values])


def material(texture, colour, accent=None, scale=(0.1, 0.1), glow=0.0) -> jax.Array:
    """Packs a `Material` into f32[10]; without an accent, the accent is the colour itself."""
    accent = colour if accent is None else accent
    return jnp.concatenate([vector(texture), colour, accent, vector(*scale, glow)])


def solid(low, high, look: jax.Array, label, *, shape=BOX, active=True) -> jax.Array:
    """Makes a solid [1, 21] from opposite corners of its bounding box, three numbers each."""
    low, high = vector(*low), vector(*high)
    rest = vector(0, shape, label, 0, active)
    half = jnp.maximum(high - low, 1e-3) / 2
    return jnp.concatenate([(low + high) / 2, half, rest, look])[None]


def several(model: Callable[..., jax.Array], *arguments: jax.Array | np.ndarray) -> jax.Array:
    """Returns the solids of model(row, ...) for all rows of the arguments."""
    rows = jax.vmap(model)(*arguments)  # [M, N, 21]
    return rows.reshape(-1, rows.shape[-1])


def legs(width, depth, height, thickness, look: jax.Array, label) -> jax.Array:
    """Makes four square legs [4, 21] from the floor to `height`, within width x depth."""
    r = thickness / 2

    def leg(corner):
        x, y = corner * (vector(width, depth) / 2 - r)
        return solid((x - r, y - r, 0), (x + r, y + r, height), look, label)

    return several(leg, np.array([(-1, -1), (1, -1), (-1, 1), (1, 1)], np.float32))


def join(*parts: jax.Array) -> jax.Array:
    """Returns all solids, one after the other."""
    return jnp.concatenate(parts)


def place(rows: jax.Array, position: jax.Array, yaw, active=True) -> jax.Array:
    """Turns a model about its own origin by `yaw` and moves it to `position` f32[3]."""
    cos, sin = jnp.cos(yaw), jnp.sin(yaw)
    x, y, z = rows[:, 0], rows[:, 1], rows[:, 2]
    centre = jnp.stack([x * cos - y * sin, x * sin + y * cos, z], axis=-1) + position
    turned = rows[:, 6:7] + yaw
    there = rows[:, 10:11] * jnp.asarray(active, jnp.float32)
    return jnp.concatenate([centre, rows[:, 3:6], turned, rows[:, 7:10], there, rows[:, 11:]], 1)


def keep(solids: Primitives, shape: int, count: int, priority: jax.Array) -> Primitives:
    """Returns the `count` solids of this shape with the highest `priority` f32[N] > 0.

    Unused places are filled with solids that no ray meets.
    """
    wanted = solids.active & (solids.shape == shape)
    order = jnp.argsort(jnp.where(wanted, priority, -1.0), descending=True)[:count]
    kept = jax.tree.map(lambda leaf: leaf[order], solids)
    there = wanted[order]
    nowhere = vector(0, 0, -1000)
    return kept._replace(centre=jnp.where(there[:, None], kept.centre, nowhere), active=there)
