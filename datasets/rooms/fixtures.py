"""What hangs on walls and ceilings: doors, windows, pictures, shelves, lamps.

As in `furniture`: the origin is the middle of the footprint, the wall is at +y; z counts from
the thing's lower edge.
"""

import jax
import jax.numpy as jnp
import numpy as np

from datasets.rooms import primitives as prim
from datasets.rooms import textures
from datasets.rooms.draw import chance, pick, split, uniform
from datasets.rooms.furniture import book_row
from datasets.rooms.materials import (
    cloth_colour,
    fabric,
    material,
    random_colour,
    wood,
    wood_colour,
)
from datasets.rooms.primitives import Primitives, flatten, join, solid


def door(key: jax.Array, size: jax.Array) -> Primitives:
    """A panelled leaf in its casing, with a knob; walls and doors are one class.

    `size` counts the space that the door needs to open: the leaf is at the back of it.
    """
    leaf_key, knob_key, rows = split(key, 3)
    x, back, height = size[0] / 2, size[1] / 2, size[2]
    colour = wood_colour(leaf_key)
    panels = pick(rows, 1, 2, 3).astype(jnp.float32)
    leaf = material(textures.DRAWERS, colour, colour * 0.8, (pick(rows, 1, 2).astype(jnp.float32),
                                                            panels))  # fmt: skip
    casing = material(textures.PLAIN, jnp.clip(colour * 1.2, 0, 0.9))
    knob = material(textures.PLAIN, random_colour(knob_key, (0, 0.2), (0, 0.5), (0.3, 0.8)))
    return join(
        solid((-x, back - 0.05, 0), (x, back, height), casing, prim.WALL),
        solid((-x + 0.08, back - 0.06, 0), (x - 0.08, back, height - 0.08), leaf, prim.WALL),
        solid((x - 0.2, back - 0.12, 0.95), (x - 0.13, back - 0.05, 1.02), knob, prim.WALL,
              shape=prim.ELLIPSOID),
    )  # fmt: skip


def window(key: jax.Array, size: jax.Array) -> Primitives:
    """Panes with a view in a frame with a sill; curtains at its sides, or blinds over its top."""
    keys = split(key, 7)
    x, y, height = size[0] / 2, size[1] / 2, size[2]
    white = random_colour(keys[0], (0.05, 0.15), (0.0, 0.3), (0.3, 0.9))
    panes = (pick(keys[1], 1, 2, 3).astype(jnp.float32), pick(keys[2], 1, 2).astype(jnp.float32))
    glass = material(textures.PANES, white, scale=panes, glow=1.0)
    colour = cloth_colour(keys[3])
    cloth = material(textures.STRIPES, colour, colour * 0.8, (0.07, 0.07))
    slats = material(textures.BLINDS, white, scale=(0.05, 0.05))
    dressing, drop = keys[4], uniform(keys[5], 0.1, 0.7) * height
    wide = uniform(keys[6], 0.12, 0.3) * x
    has_curtains, has_blinds = chance(dressing, 0.5), ~chance(dressing, 0.75)

    def curtain(side):
        low = jnp.where(side < 0, -x - 0.08, x - wide)
        return solid((low, -y, -0.1), (low + wide + 0.08, y - 0.04, height + 0.08), cloth,
                     prim.WINDOW, active=has_curtains)  # fmt: skip

    return join(
        solid((-x + 0.1, y - 0.04, 0), (x - 0.1, y, height), glass, prim.WINDOW),
        solid((-x + 0.06, -y + 0.02, -0.04), (x - 0.06, y, 0), material(textures.PLAIN, white),
              prim.WINDOW),
        solid((-x + 0.1, -y + 0.04, height - drop), (x - 0.1, y - 0.05, height), slats,
              prim.WINDOW, active=has_blinds),
        flatten(jax.vmap(curtain)(np.array([-1, 1], np.float32))),
    )  # fmt: skip


def picture(key: jax.Array, size: jax.Array) -> Primitives:
    """A framed landscape or abstract."""
    frame, content = split(key)
    x, y = size[0] / 2, size[1] / 2
    look = material(textures.PICTURE, wood_colour(frame), cloth_colour(content))
    return solid((-x, -y, 0), (x, y, size[2]), look, prim.PICTURE)


def wall_shelf(key: jax.Array, size: jax.Array) -> Primitives:
    """A board on the wall with a row of books on it."""
    board_key, books = split(key)
    x, y = size[0] / 2, size[1] / 2
    board = solid((-x, -y, 0), (x, y, 0.03), wood(board_key), prim.FURNITURE)
    return join(board, book_row(books, size[0], size[1], 0.03, size[2] - 0.03))


def rug(key: jax.Array, size: jax.Array) -> Primitives:
    """A flat rug; NYU counts it as floor."""
    x, y = size[0] / 2, size[1] / 2
    return solid((-x, -y, 0), (x, y, 0.012), fabric(key), prim.FLOOR)


def ceiling_lamp(key: jax.Array, lit: jax.Array) -> Primitives:
    """A round shade below the ceiling, its origin at the shade's top."""
    tint, wide, tall, shape = split(key, 4)
    r, h = uniform(wide, 0.14, 0.28), uniform(tall, 0.1, 0.24)
    shade = material(
        textures.PLAIN, random_colour(tint, (0.08, 0.14), (0.02, 0.25), (0.7, 0.95)),
        glow=jnp.where(lit, 1.2, 0.1),
    )  # fmt: skip
    kind = pick(shape, prim.CYLINDER, prim.ELLIPSOID)
    return solid((-r, -r, -h), (r, r, 0), shade, prim.OBJECTS)._replace(shape=kind[None])
