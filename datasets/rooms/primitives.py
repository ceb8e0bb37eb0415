"""The solids that a room is made of: upright boxes, ellipsoids and cylinders, as arrays.

World frame: x and y along the room's walls, z up, metres; the origin is a corner of the floor.
"""

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
      texture: i32[], one of the kinds in `textures`.
      colour: f32[3], linear RGB in 0..1.
      accent: f32[3], the texture's second colour.
      scale: f32[2], size of the texture's cells: metres, or cells a face (see `textures`).
      glow: f32[], light that the surface gives off, as a multiple of its colour.
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
      seed: i32[N], what the texture's random numbers start from.
      material: Material with a leading axis of N.
      active: bool[N], whether the solid is there at all.
    """

    centre: jax.Array
    half: jax.Array
    yaw: jax.Array
    shape: jax.Array
    label: jax.Array
    seed: jax.Array
    material: Material
    active: jax.Array


def solid(
    low, high, material: Material, label, *, shape: int = BOX, yaw=0.0, active=True
) -> Primitives:
    """One solid from the opposite corners of its bounding box: three numbers each."""
    low = jnp.stack([jnp.float32(value) for value in low])
    high = jnp.stack([jnp.float32(value) for value in high])
    return Primitives(
        centre=(low + high)[None] / 2,
        half=jnp.maximum(high - low, 1e-3)[None] / 2,
        yaw=jnp.float32(yaw)[None],
        shape=jnp.int32(shape)[None],
        label=jnp.int32(label)[None],
        seed=jnp.zeros(1, jnp.int32),
        material=jax.tree.map(lambda leaf: leaf[None], material),
        active=jnp.bool_(active)[None],
    )


def legs(
    width, depth, height, thickness, material: Material, label, *, inset=0.0, active=True
) -> Primitives:
    """Four legs [4] from the floor up to `height` under a top of width x depth."""
    corners = np.array([(-1, -1), (1, -1), (-1, 1), (1, 1)], np.float32)
    reach = jnp.stack([width, depth]) / 2 - thickness / 2 - inset

    def leg(corner):
        x, y = corner * reach
        r = thickness / 2
        return solid((x - r, y - r, 0), (x + r, y + r, height), material, label, active=active)

    return flatten(jax.vmap(leg)(corners))


def flatten(primitives: Primitives) -> Primitives:
    """[M, N] solids of a vmapped model -> [M * N]."""
    return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), primitives)


def join(*parts: Primitives) -> Primitives:
    """All the solids, one after the other."""
    return jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *parts)


def place(primitives: Primitives, position: jax.Array, yaw: jax.Array, active=True) -> Primitives:
    """Turns a model about its own origin by `yaw` and moves it to `position` f32[3]."""
    cos, sin = jnp.cos(yaw), jnp.sin(yaw)
    x, y, z = primitives.centre.T
    centre = jnp.stack([x * cos - y * sin, x * sin + y * cos, z], axis=-1) + position
    return primitives._replace(
        centre=centre, yaw=primitives.yaw + yaw, active=primitives.active & active
    )


def keep(primitives: Primitives, shape: int, count: int, priority: jax.Array) -> Primitives:
    """The `count` solids of this shape that come first by `priority` f32[N], descending.

    Places left over are filled with solids that no ray meets.
    """
    wanted = primitives.active & (primitives.shape == shape)
    order = jnp.argsort(jnp.where(wanted, priority, -1.0), descending=True)[:count]
    kept = jax.tree.map(lambda leaf: leaf[order], primitives)
    there = wanted[order]
    nowhere = jnp.array([0.0, 0.0, -1000.0], jnp.float32)
    return kept._replace(centre=jnp.where(there[:, None], kept.centre, nowhere), active=there)
