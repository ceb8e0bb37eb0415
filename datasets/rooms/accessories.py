"""Models of the small things: books, lamps, plants, boxes and clutter.

As in `furniture`, a model takes dice and a size and returns solids around its own origin.
"""

import jax
import jax.numpy as jnp
import numpy as np

from datasets.rooms import primitives as prim
from datasets.rooms import textures
from datasets.rooms.dice import Dice
from datasets.rooms.materials import colour, either, lampshade, metal, plastic
from datasets.rooms.primitives import join, material, place, several, solid, vector


def book_row(dice: Dice, width, depth, floor, height) -> jax.Array:
    """Makes three blocks of books, some of them boxes, side by side on a board at `floor`."""
    pitch = width / 3

    def block(slot, numbers):
        dice = Dice(numbers)
        is_books = dice.chance(0.8)
        w = pitch * dice.uniform(0.55, 0.97)
        h = height * jnp.where(is_books, dice.uniform(0.6, 0.92), dice.uniform(0.3, 0.8))
        left = pitch * slot - width / 2
        tone = colour(dice, (0, 1), (0, 0.6), (0.1, 0.6))
        look = either(
            is_books, material(textures.SPINES, tone, scale=(w / 0.035, 1)), plastic(dice)
        )
        label = jnp.where(is_books, prim.BOOKS, prim.OBJECTS)
        low, high = (left, -depth / 2, floor), (left + w, depth / 2, floor + h)
        return solid(low, high, look, label, active=dice.chance(0.75))

    return several(block, np.arange(3, dtype=np.float32), dice.take(3, 12))


def book_stack(dice: Dice, height: jax.Array) -> jax.Array:
    """Makes a stack of four books at `height`, each turned a little."""
    at = dice.uniform(-0.15, 0.15)

    def book(number, numbers):
        dice = Dice(numbers)
        tone = colour(dice, (0, 1), (0.1, 0.8), (0.08, 0.7))
        cover = material(textures.SPINES, tone, scale=(1, 1))
        bottom = height + number * 0.035
        one = solid((-0.13, -0.1, bottom), (0.13, 0.1, bottom + 0.032), cover, prim.BOOKS)
        return place(one, vector(at, 0, 0), dice.uniform(-0.5, 0.5))

    return several(book, np.arange(4, dtype=np.float32), dice.take(4, 4))


def clutter(dice: Dice, size: jax.Array, count: int) -> jax.Array:
    """Makes small things of every shape on a top of this size: boxes, balls, cups."""

    def thing(slot, numbers):
        dice = Dice(numbers)
        shape = dice.pick(prim.BOX, prim.BOX, prim.ELLIPSOID, prim.CYLINDER)
        w, h = dice.uniform(0.04, 0.15), dice.uniform(0.08, 0.4)
        h = jnp.where(shape == prim.ELLIPSOID, 2 * w, h)
        spot = (slot + dice.uniform(0.25, 0.75)) / count - 0.5
        at = vector(spot * (size[0] - 0.2), dice.uniform(-0.3, 0.3) * size[1], size[2])
        low, high = (-w, -w, 0), (w, w, h)
        body = solid(low, high, plastic(dice), prim.OBJECTS, shape=shape, active=dice.chance(0.8))
        return place(body, at, dice.uniform(0.0, 3.0))

    return several(thing, np.arange(count, dtype=np.float32), dice.take(count, 12))


def table_lamp(dice: Dice, height: jax.Array) -> jax.Array:
    """Makes a foot and a shade that glows, at `height`."""
    r = dice.uniform(0.09, 0.15)
    shade = lampshade(dice, jnp.where(dice.chance(0.6), 1.0, 0.0))
    return join(
        _tube(0.035, height, height + 0.25, metal(dice)),
        _tube(r, height + 0.22, height + 0.42, shade),
    )


def floor_lamp(dice: Dice, size: jax.Array) -> jax.Array:
    """Makes a pole with a shade, as tall as `size[2]`."""
    pole, shade, top = metal(dice), lampshade(dice, 0.9), size[2]
    return join(
        _tube(0.14, 0.0, 0.03, pole),
        _tube(0.02, 0.0, top - 0.2, pole),
        _tube(0.2, top - 0.3, top, shade),
    )


def plant(dice: Dice, size: jax.Array) -> jax.Array:
    """Makes a pot with four clumps of leaves."""
    green = material(textures.FOLIAGE, colour(dice, (0.22, 0.4), (0.4, 0.9), (0.12, 0.5)))

    def clump(level, numbers):
        dice = Dice(numbers)
        x, y, z = dice.uniform(-0.1, 0.1, (3,))
        middle = 0.35 + level * (size[2] - 0.5) + z
        low, high = (x - 0.16, y - 0.16, middle - 0.2), (x + 0.16, y + 0.16, middle + 0.2)
        return solid(low, high, green, prim.OBJECTS, shape=prim.ELLIPSOID)

    levels = np.array([0.2, 0.45, 0.7, 1.0], np.float32)
    return join(_tube(0.15, 0.0, 0.3, plastic(dice)), several(clump, levels, dice.take(4, 3)))


def bin_or_box(dice: Dice, size: jax.Array) -> jax.Array:
    """Makes a cardboard box, basket or bin on the floor."""
    x, y = size[0] / 2, size[1] / 2
    shape = dice.pick(prim.BOX, prim.BOX, prim.CYLINDER)
    card = material(textures.WOOD, colour(dice, (0.06, 0.1), (0.3, 0.6), (0.3, 0.6)))
    skin = either((shape == prim.BOX) & dice.chance(0.6), card, plastic(dice))
    return solid((-x, -y, 0), (x, y, size[2]), skin, prim.OBJECTS, shape=shape)


def _tube(radius, bottom, top, look) -> jax.Array:
    low, high = (-radius, -radius, bottom), (radius, radius, top)
    return solid(low, high, look, prim.OBJECTS, shape=prim.CYLINDER)
