"""Models of what is on walls, ceiling and floor: doors, windows, pictures, shelves, lamps, rugs.

As in `furniture`, the origin is the middle of the footprint and the wall is at +y; z is measured
from the lower edge.
"""

import jax
import jax.numpy as jnp
import numpy as np

from datasets.rooms import primitives as prim
from datasets.rooms import textures
from datasets.rooms.accessories import book_row
from datasets.rooms.dice import Dice
from datasets.rooms.materials import (
    cloth_colour,
    colour,
    fabric,
    lampshade,
    metal,
    wood,
    wood_colour,
)
from datasets.rooms.primitives import join, material, several, solid


def door(dice: Dice, size: jax.Array) -> jax.Array:
    """Makes a panelled leaf in its casing, with a knob; walls and doors are one class.

    `size` includes the space that the door needs to open; the leaf is at the back of it.
    """
    x, back, height = size[0] / 2, size[1] / 2, size[2]
    tone = wood_colour(dice)
    across, up = dice.integer(2, (2,)).astype(jnp.float32) + np.array([1, 2], np.float32)
    leaf = material(textures.PANELS, tone, scale=(across, up))
    casing = material(textures.PLAIN, jnp.clip(tone * 1.2, 0, 0.9))
    knob = (x - 0.2, back - 0.12, 0.95), (x - 0.13, back - 0.05, 1.02)
    return join(
        solid((-x, back - 0.05, 0), (x, back, height), casing, prim.WALL),
        solid((-x + 0.08, back - 0.06, 0), (x - 0.08, back, height - 0.08), leaf, prim.WALL),
        solid(*knob, metal(dice), prim.WALL, shape=prim.ELLIPSOID),
    )


def window(dice: Dice, size: jax.Array) -> jax.Array:
    """Makes panes with a view, frame and sill, with curtains at the sides or blinds at the top."""
    x, y, height = size[0] / 2, size[1] / 2, size[2]
    white = colour(dice, (0.05, 0.15), (0.0, 0.3), (0.3, 0.9))
    panes = dice.integer(2, (2,)).astype(jnp.float32) + np.array([1, 1], np.float32)
    glass = material(textures.PANES, white, scale=panes, glow=1.0)
    tone = cloth_colour(dice)
    cloth = material(textures.STRIPES, tone, tone * 0.8, (0.07, 0.07))
    slats = material(textures.BLINDS, white, scale=(0.05, 0.05))
    drop, wide = dice.uniform(0.1, 0.7) * height, dice.uniform(0.12, 0.3) * x
    dressing = dice.take()

    def curtain(side):
        middle = side * (x + 0.04 - wide / 2)
        low, high = (middle - wide / 2, -y, -0.1), (middle + wide / 2, y - 0.04, height + 0.08)
        return solid(low, high, cloth, prim.WINDOW, active=dressing < 0.5)

    sill = (-x + 0.06, -y + 0.02, -0.04), (x - 0.06, y, 0)
    blinds = (-x + 0.1, -y + 0.04, height - drop), (x - 0.1, y - 0.05, height)
    return join(
        solid((-x + 0.1, y - 0.04, 0), (x - 0.1, y, height), glass, prim.WINDOW),
        solid(*sill, material(textures.PLAIN, white), prim.WINDOW),
        solid(*blinds, slats, prim.WINDOW, active=dressing > 0.75),
        several(curtain, np.array([-1, 1], np.float32)),
    )


def picture(dice: Dice, size: jax.Array) -> jax.Array:
    """Makes a framed landscape or abstract picture."""
    x, y = size[0] / 2, size[1] / 2
    look = material(textures.PICTURE, wood_colour(dice), cloth_colour(dice))
    return solid((-x, -y, 0), (x, y, size[2]), look, prim.PICTURE)


def wall_shelf(dice: Dice, size: jax.Array) -> jax.Array:
    """Makes a board on the wall with a row of books on it."""
    x, y = size[0] / 2, size[1] / 2
    board = solid((-x, -y, 0), (x, y, 0.03), wood(dice), prim.FURNITURE)
    return join(board, book_row(dice, size[0], size[1], 0.03, size[2] - 0.03))


def rug(dice: Dice, size: jax.Array) -> jax.Array:
    """Makes a flat rug, which is floor, as in NYU-Depth V2."""
    x, y = size[0] / 2, size[1] / 2
    return solid((-x, -y, 0), (x, y, 0.012), fabric(dice), prim.FLOOR)


def ceiling_lamp(dice: Dice, lit: jax.Array) -> jax.Array:
    """Makes a round shade below the ceiling, with the origin at its top."""
    r, h = dice.uniform(0.14, 0.28), dice.uniform(0.1, 0.24)
    shape = dice.pick(prim.CYLINDER, prim.ELLIPSOID)
    shade = lampshade(dice, jnp.where(lit, 1.2, 0.1))
    return solid((-r, -r, -h), (r, r, 0), shade, prim.OBJECTS, shape=shape)
