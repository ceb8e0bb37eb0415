"""Random materials, such as woods, fabrics and paints, whose palettes overlap on purpose.

A material is packed into f32[10]: see `primitives.material`.
"""

import jax
import jax.numpy as jnp
import numpy as np

from datasets.rooms import textures
from datasets.rooms.dice import Dice
from datasets.rooms.primitives import material


def hsv(hue: jax.Array, saturation: jax.Array, value: jax.Array) -> jax.Array:
    """Returns the linear RGB f32[3] of a colour; hue wraps around at 1."""
    wheel = jnp.abs(((hue + np.array([0, 2 / 3, 1 / 3], np.float32)) % 1.0) * 6 - 3) - 1
    return value * (1 + saturation * (jnp.clip(wheel, 0, 1) - 1))


def colour(dice: Dice, hue, saturation, value) -> jax.Array:
    """Draws a colour f32[3] with hue, saturation and value in these ranges (low, high)."""
    low, high = np.array([hue, saturation, value], np.float32).T
    return hsv(*dice.uniform(low, high, (3,)))


def either(first: jax.Array, one: jax.Array, other: jax.Array) -> jax.Array:
    """Returns `one` where `first` is true, else `other`."""
    return jnp.where(first, one, other)


def wood_colour(dice: Dice) -> jax.Array:
    """Draws a brown from pale birch to dark walnut, or a paint: white, grey or nearly black."""
    natural = colour(dice, (0.045, 0.1), (0.35, 0.75), (0.1, 0.6))
    painted = colour(dice, (0.0, 1.0), (0.0, 0.08), (0.02, 0.85))
    return jnp.where(dice.chance(0.72), natural, painted)


def wood(dice: Dice) -> jax.Array:
    """Makes wood with its grain."""
    return material(textures.WOOD, wood_colour(dice))


def cloth_colour(dice: Dice) -> jax.Array:
    """Draws any hue, dull more often than lively, from dark to white."""
    hue, saturation, value = dice.take(3)
    return hsv(hue, 0.04 + 0.66 * saturation**1.7, 0.05 + 0.7 * value)


def fabric(dice: Dice) -> jax.Array:
    """Makes cloth, mostly plain, sometimes striped, dotted or plaid."""
    kind = dice.pick(*[textures.FABRIC] * 5, textures.STRIPES, textures.DOTS, textures.PLAID)
    cell = dice.uniform(0.06, 0.22)
    return material(kind, cloth_colour(dice), cloth_colour(dice), (cell, cell))


def plastic(dice: Dice) -> jax.Array:
    """Makes a smooth material of any colour."""
    return material(textures.PLAIN, colour(dice, (0.0, 1.0), (0.0, 0.85), (0.03, 0.85)))


def metal(dice: Dice) -> jax.Array:
    """Makes metal: grey, brass or black."""
    return material(textures.PLAIN, colour(dice, (0.05, 0.15), (0.0, 0.5), (0.02, 0.6)))


def fronts(dice: Dice) -> jax.Array:
    """Makes drawers or cabinet doors with knobs."""
    across, up = dice.integer(3, (2,)).astype(jnp.float32) + np.array([1, 1], np.float32)
    return material(textures.DRAWERS, wood_colour(dice), wood_colour(dice), (across, up))


def lampshade(dice: Dice, glow: jax.Array | float) -> jax.Array:
    """Makes pale paper or cloth that glows."""
    return material(textures.PLAIN, colour(dice, (0.06, 0.14), (0.02, 0.4), (0.6, 0.95)), glow=glow)


def wallpaper(dice: Dice) -> jax.Array:
    """Makes a wall: mostly paint, or stripes, boards, brick, plaster or a pattern."""
    patterned = (textures.BRICK, textures.DOTS, textures.FABRIC, textures.PLANKS)
    kind = dice.pick(*[textures.PLAIN] * 6, *[textures.STRIPES] * 2, *patterned)
    hue, saturation, value, warm = dice.take(4)
    # Most walls are white, cream or beige.
    hue = jnp.where(warm < 0.6, 0.06 + 0.1 * hue, hue)
    paint = hsv(hue, 0.02 + 0.38 * saturation**2, 0.35 + 0.5 * jnp.sqrt(value))
    red = colour(dice, (0.01, 0.08), (0.1, 0.7), (0.25, 0.7))
    boards = wood_colour(dice)
    wide = dice.uniform(0.1, 0.35)
    is_brick, is_planks = kind == textures.BRICK, kind == textures.PLANKS
    base = jnp.where(is_brick, red, jnp.where(is_planks, boards, paint))
    accent = jnp.clip(base * dice.uniform(0.7, 1.25), 0, 0.9)
    accent = jnp.where(is_brick, jnp.float32(0.6), accent)
    scale_u = jnp.where(is_brick, 0.24, jnp.where(is_planks, 2.5, wide))
    scale_v = jnp.where(is_brick, 0.08, wide)
    return material(kind, base, accent, (scale_u, scale_v))


def flooring(dice: Dice) -> jax.Array:
    """Makes a floor: planks, tiles or carpet."""
    kind = dice.pick(textures.PLANKS, textures.PLANKS, textures.TILES, textures.FABRIC)
    is_tiles = kind == textures.TILES
    stone = colour(dice, (0.0, 0.15), (0.0, 0.3), (0.25, 0.8))
    base = jnp.where(is_tiles, stone, cloth_colour(dice) * 0.8)
    base = jnp.where(kind == textures.PLANKS, wood_colour(dice), base)
    wide = dice.uniform(0.08, 0.2)
    scale = (jnp.where(is_tiles, wide + 0.22, 1.4), jnp.where(is_tiles, wide + 0.22, wide))
    return material(kind, base, base * 0.55, scale)


def ceiling(dice: Dice) -> jax.Array:
    """Makes a ceiling: white or nearly white, smooth or of large tiles."""
    kind = dice.pick(*[textures.PLAIN] * 3, textures.TILES)
    base = colour(dice, (0.08, 0.16), (0.0, 0.12), (0.65, 0.9))
    return material(kind, base, base * 0.9, (0.6, 0.6))
