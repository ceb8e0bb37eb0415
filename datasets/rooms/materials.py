"""Random materials: woods, fabrics, paints and the like, whose palettes overlap on purpose."""

import jax
import jax.numpy as jnp
import numpy as np

from datasets.rooms import textures
from datasets.rooms.draw import chance, pick, split, uniform
from datasets.rooms.primitives import Material


def hsv(hue: jax.Array, saturation: jax.Array, value: jax.Array) -> jax.Array:
    """Linear RGB f32[..., 3] of a colour; hue wraps around at 1."""
    offset = jnp.array([0.0, 2 / 3, 1 / 3], jnp.float32)
    wheel = jnp.abs(((hue[..., None] + offset) % 1.0) * 6 - 3) - 1
    return value[..., None] * (1 + saturation[..., None] * (jnp.clip(wheel, 0, 1) - 1))


def random_colour(key: jax.Array, hue, saturation, value) -> jax.Array:
    """A colour with hue, saturation and value drawn from these (low, high)."""
    low, high = np.array([hue, saturation, value], np.float32).T
    return hsv(*uniform(key, low, high, (3,)))


def material(texture, colour, accent=None, scale=(0.1, 0.1), glow=0.0) -> Material:
    """A material from plain numbers and arrays; the accent is the colour itself if not given."""
    return Material(
        texture=jnp.int32(texture),
        colour=colour,
        accent=colour if accent is None else accent,
        scale=jnp.stack([jnp.float32(value) for value in scale]),
        glow=jnp.float32(glow),
    )


def wood_colour(key: jax.Array) -> jax.Array:
    """Brown from pale birch to dark walnut, or white paint, or nearly black."""
    kind, brown, paint = split(key, 3)
    natural = random_colour(brown, (0.04, 0.105), (0.35, 0.75), (0.12, 0.6))
    painted = random_colour(paint, (0.0, 1.0), (0.0, 0.08), (0.02, 0.85))
    return jnp.where(chance(kind, 0.75), natural, painted)


def wood(key: jax.Array) -> Material:
    """Wood with its grain."""
    return material(textures.WOOD, wood_colour(key))


def fabric(key: jax.Array) -> Material:
    """Cloth: plain mostly, at times striped, dotted or plaid."""
    kinds, first, second, size = split(key, 4)
    kind = pick(kinds, *[textures.FABRIC] * 5, textures.STRIPES, textures.DOTS, textures.PLAID)
    cell = uniform(size, 0.06, 0.22)
    return material(kind, cloth_colour(first), cloth_colour(second), (cell, cell))


def cloth_colour(key: jax.Array) -> jax.Array:
    """Any hue, dull to lively, dark to white."""
    return random_colour(key, (0.0, 1.0), (0.05, 0.7), (0.06, 0.75))


def plastic(key: jax.Array) -> Material:
    """A smooth thing of any colour."""
    return material(textures.PLAIN, random_colour(key, (0.0, 1.0), (0.0, 0.9), (0.03, 0.85)))


def fronts(key: jax.Array) -> Material:
    """Drawers or cabinet doors with knobs."""
    tint, knob, columns, rows = split(key, 4)
    across, up = pick(columns, 1, 2, 3), pick(rows, 1, 2, 3, 4)
    return material(
        textures.DRAWERS,
        wood_colour(tint),
        wood_colour(knob),
        (across.astype(jnp.float32), up.astype(jnp.float32)),
    )


def wallpaper(key: jax.Array) -> Material:
    """A wall: paint mostly, or stripes, panels of wood, brick or a pattern."""
    kinds, tint, other, size, brick = split(key, 5)
    kind = pick(kinds, *[textures.PLAIN] * 5, textures.STRIPES, textures.BRICK, textures.DOTS,
                textures.FABRIC, textures.PLANKS)  # fmt: skip
    pale = random_colour(tint, (0.0, 1.0), (0.02, 0.35), (0.35, 0.85))
    red = random_colour(brick, (0.01, 0.08), (0.1, 0.7), (0.25, 0.7))
    wide = uniform(size, 0.1, 0.35)
    is_brick, is_planks = kind == textures.BRICK, kind == textures.PLANKS
    colour = jnp.where(is_brick, red, jnp.where(is_planks, wood_colour(brick), pale))
    accent = jnp.clip(colour * uniform(other, 0.75, 1.25), 0, 0.9)
    accent = jnp.where(is_brick, jnp.float32(0.6), accent)
    scale_u = jnp.where(is_brick, 0.24, jnp.where(is_planks, 2.5, wide))
    scale_v = jnp.where(is_brick, 0.08, wide)
    return material(kind, colour, accent, (scale_u, scale_v))


def flooring(key: jax.Array) -> Material:
    """A floor: planks, tiles or carpet."""
    kinds, boards, stone, carpet, size = split(key, 5)
    kind = pick(kinds, textures.PLANKS, textures.PLANKS, textures.TILES, textures.FABRIC)
    tile = random_colour(stone, (0.0, 0.15), (0.0, 0.3), (0.25, 0.8))
    colour = jnp.where(kind == textures.PLANKS, wood_colour(boards), tile)
    colour = jnp.where(kind == textures.FABRIC, cloth_colour(carpet) * 0.8, colour)
    wide = uniform(size, 0.08, 0.2)
    is_tiles = kind == textures.TILES
    return material(
        kind, colour, colour * 0.55,
        (jnp.where(is_tiles, wide + 0.22, 1.4), jnp.where(is_tiles, wide + 0.22, wide)),
    )  # fmt: skip


def ceiling(key: jax.Array) -> Material:
    """White or nearly so, smooth or of large tiles."""
    kinds, tint = split(key)
    colour = random_colour(tint, (0.08, 0.16), (0.0, 0.12), (0.65, 0.9))
    kind = pick(kinds, *[textures.PLAIN] * 3, textures.TILES)
    return material(kind, colour, colour * 0.9, (0.6, 0.6))
