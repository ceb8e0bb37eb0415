"""Procedural textures: the colour of a surface point from its place on the solid.

All arrays are f32[R] or i32[R], one entry per ray. The renderer keeps the components of vectors
apart, which compiles to plain vector code.
"""

import jax
import jax.numpy as jnp

(
    PLAIN, STRIPES, PLANKS, TILES, BRICK, WOOD, FABRIC, DRAWERS,
    PICTURE, PANES, SCREEN, SPINES, DOTS, BLINDS, PLAID, FOLIAGE, PANELS,
) = range(17)  # fmt: skip

# Only the front of a solid shows these; its other sides are plain.
FRONT_ONLY = (DRAWERS, PANELS, PICTURE, PANES, SCREEN, SPINES)


def hash01(x: jax.Array, y: jax.Array, seed: jax.Array) -> jax.Array:
    """Returns numbers in 0..1 that look random, from three integers i32[R]."""
    mixed = (
        x.astype(jnp.uint32) * jnp.uint32(0x9E3779B1)
        ^ y.astype(jnp.uint32) * jnp.uint32(0x85EBCA77)
        ^ seed.astype(jnp.uint32) * jnp.uint32(0xC2B2AE3D)
    )
    mixed = (mixed ^ (mixed >> 15)) * jnp.uint32(0x2C1B3C6D)
    mixed = (mixed ^ (mixed >> 12)) * jnp.uint32(0x297A2D39)
    return ((mixed ^ (mixed >> 15)) >> 8).astype(jnp.float32) * (2.0**-24)


def _cell(u: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns the number of the cell that u lies in, and the position 0..1 in it."""
    floor = jnp.floor(u)
    return floor.astype(jnp.int32), u - floor


def noise(u: jax.Array, v: jax.Array, seed: jax.Array) -> jax.Array:
    """Returns smooth value noise in 0..1 with cells of size one."""
    i, x = _cell(u)
    j, y = _cell(v)
    x, y = x * x * (3 - 2 * x), y * y * (3 - 2 * y)
    low = hash01(i, j, seed) * (1 - x) + hash01(i + 1, j, seed) * x
    high = hash01(i, j + 1, seed) * (1 - x) + hash01(i + 1, j + 1, seed) * x
    return low * (1 - y) + high * y


def _edge(t: jax.Array, width: jax.Array | float) -> jax.Array:
    """Returns 1 within `width` (a fraction) of the border of a cell, else 0."""
    return (jnp.minimum(t, 1 - t) < width).astype(jnp.float32)


def _blend(first, second, amount):
    return tuple(a + (b - a) * amount for a, b in zip(first, second, strict=True))


def _grey(value):
    return (value, value, value)


def _scaled(colour, factor):
    return tuple(c * factor for c in colour)


def surface_colour(texture, u, v, s, t, front, colour, accent, scale, seed):
    """Returns the colour of surface points and whether they glow.

    Args:
      texture: i32[R], one of the kinds above.
      u, v: f32[R], metres along and up the surface.
      s, t: f32[R], the same in -1..1 across the face.
      front: bool[R], whether the point lies on the solid's front.
      colour, accent: three f32[R] each.
      scale: two f32[R]: cell size in metres, or cells per face for DRAWERS, PANELS, PANES, SPINES.
      seed: i32[R].

    Returns:
      Three f32[R], linear RGB, and f32[R], 1 where the surface itself may glow.
    """
    front_only = jnp.any(jnp.stack([texture == kind for kind in FRONT_ONLY]), axis=0)
    kind = jnp.where(front_only & ~front, PLAIN, texture)
    grain = _grain(kind, u, v, seed)
    skyline = noise(s * 4, 0.0 * s, seed)
    candidates = {
        PLAIN: _scaled(colour, 0.92 + 0.16 * grain),
        STRIPES: _stripes(u, colour, accent, scale),
        PLANKS: _planks(u, v, colour, scale, seed, grain),
        TILES: _tiles(u, v, colour, accent, scale, seed),
        BRICK: _brick(u, v, colour, accent, scale, seed),
        WOOD: _scaled(colour, 0.75 + 0.5 * grain),
        FABRIC: _scaled(colour, 0.7 + 0.6 * grain),
        DRAWERS: _drawers(s, t, colour, accent, scale),
        PANELS: _panels(s, t, colour, scale),
        PICTURE: _picture(s, t, colour, accent, seed, grain, skyline),
        PANES: _panes(s, t, colour, scale, seed, grain, skyline),
        SCREEN: _screen(s, t, colour, accent, seed),
        SPINES: _spines(s, t, u, colour, scale, seed),
        DOTS: _dots(u, v, colour, accent, scale),
        BLINDS: _blinds(v, colour, scale),
        PLAID: _plaid(u, v, colour, accent, scale),
        FOLIAGE: _scaled(colour, 0.4 + 1.0 * grain),
    }
    result = candidates.pop(PLAIN)
    for number, candidate in candidates.items():
        result = tuple(
            jnp.where(kind == number, new, old) for new, old in zip(candidate, result, strict=True)
        )
    frame = (jnp.abs(s) > 0.9) | (jnp.abs(t) > 0.9)
    glows = ~front_only | (front & ~frame)
    return result, glows.astype(jnp.float32)


# Cells of noise per metre along and up the surface; 3 for the other kinds.
_FREQUENCY = {
    PLANKS: (4, 60),
    WOOD: (3, 45),
    FABRIC: (70, 70),
    FOLIAGE: (30, 30),
    PICTURE: (9, 14),
    PANES: (9, 9),
}


def _grain(kind, u, v, seed):
    """Returns the noise that all textures share: one for each would take most of the time."""
    along = across = jnp.full_like(u, 3.0)
    for number, (fu, fv) in _FREQUENCY.items():
        along = jnp.where(kind == number, jnp.float32(fu), along)
        across = jnp.where(kind == number, jnp.float32(fv), across)
    return noise(u * along, v * across, seed)


def _stripes(u, colour, accent, scale):
    _, x = _cell(u / scale[0])
    return _blend(colour, accent, (x < 0.5).astype(jnp.float32))


def _planks(u, v, colour, scale, seed, grain):
    row, y = _cell(v / scale[1])
    shift = hash01(row, row, seed)
    board, x = _cell(u / scale[0] + shift)
    tone = 0.7 + 0.5 * hash01(board, row, seed)
    gap = 1 - 0.5 * jnp.maximum(_edge(y, 0.04), _edge(x, 0.006))
    return _scaled(colour, tone * (0.85 + 0.3 * grain) * gap)


def _tiles(u, v, colour, accent, scale, seed):
    i, x = _cell(u / scale[0])
    j, y = _cell(v / scale[1])
    tone = 0.9 + 0.2 * hash01(i, j, seed)
    grout = jnp.maximum(_edge(x, 0.025), _edge(y, 0.025))
    checker = ((i + j) % 2).astype(jnp.float32) * (seed % 2).astype(jnp.float32)
    tile = _scaled(_blend(colour, accent, checker), tone)
    return _blend(tile, _scaled(_blend(colour, accent, 0.5 + 0 * tone), 0.6), grout)


def _brick(u, v, colour, accent, scale, seed):
    row, y = _cell(v / scale[1])
    i, x = _cell(u / scale[0] + 0.5 * (row % 2).astype(jnp.float32))
    mortar = jnp.maximum(_edge(x, 0.03), _edge(y, 0.07))
    return _blend(_scaled(colour, 0.7 + 0.6 * hash01(i, row, seed)), accent, mortar)


def _drawers(s, t, colour, accent, scale):
    _, x = _cell((s + 1) / 2 * scale[0])
    _, y = _cell((t + 1) / 2 * scale[1])
    line = jnp.maximum(_edge(x, 0.03), _edge(y, 0.04))
    knob = ((jnp.abs(x - 0.5) < 0.1) & (jnp.abs(y - 0.5) < 0.07)).astype(jnp.float32)
    return _blend(_scaled(colour, 1 - 0.6 * line), accent, knob)


def _panels(s, t, colour, scale):
    _, x = _cell((s + 1) / 2 * scale[0])
    _, y = _cell((t + 1) / 2 * scale[1])
    edge = jnp.minimum(jnp.minimum(x, 1 - x), jnp.minimum(y, 1 - y))
    groove = ((edge > 0.12) & (edge < 0.16)).astype(jnp.float32)
    return _scaled(colour, 1 - 0.5 * groove)


def _picture(s, t, colour, accent, seed, grain, skyline):
    """Returns a frame, sometimes a pale mount, and a landscape or abstract in tones of `accent`."""
    sky = _blend(_grey(0.75 + 0 * s), accent, 0.4 + 0.3 * t)
    land = _scaled((accent[2], accent[0], accent[1]), 0.2 + 0.6 * grain)
    landscape = _blend(sky, land, (t < 0.7 * skyline - 0.3).astype(jnp.float32))
    i, _ = _cell(s * 1.8 + 1.5 * skyline)
    j, _ = _cell(t * 1.8 + 1.1 * jnp.sin(2 * s + 3 * skyline))
    blobs = tuple(0.1 + 0.8 * hash01(i, j, seed + k) for k in range(3))
    abstract = _blend(blobs, accent, 0.4 + 0 * s)
    content = _blend(landscape, abstract, (seed % 3 == 0).astype(jnp.float32))
    edge = jnp.maximum(jnp.abs(s), jnp.abs(t))
    mounted = (edge > 0.62).astype(jnp.float32) * (seed % 2).astype(jnp.float32)
    content = _blend(content, _grey(0.85 + 0 * s), mounted)
    return _blend(content, colour, (edge > 0.86).astype(jnp.float32))


def _panes(s, t, colour, scale, seed, grain, skyline):
    """Returns a frame with panes, and behind it sky above trees or roofs."""
    _, x = _cell((s + 1) / 2 * scale[0])
    _, y = _cell((t + 1) / 2 * scale[1])
    frame = jnp.maximum(_edge(x, 0.035 * scale[0]), _edge(y, 0.03 * scale[1]))
    i, _ = _cell(s * 4)
    trees = (seed % 2).astype(jnp.float32)
    height = -0.5 + 0.9 * jnp.where(seed % 2 == 0, hash01(i, i, seed), skyline)
    sky = (0.62 + 0.1 * t, 0.78 + 0.05 * t, 0.97 + 0 * t)
    city = _grey(0.25 + 0.3 * hash01(i, i + 1, seed))
    leaves = (0.1 + 0.2 * grain, 0.2 + 0.3 * grain, 0.08 + 0.1 * grain)
    ground = _blend(city, leaves, trees)
    outside = _blend(sky, ground, (t < height).astype(jnp.float32))
    return _blend(outside, colour, frame)


def _screen(s, t, colour, accent, seed):
    """Returns a dark bezel around a screen that is black and glossy, or shows something."""
    i, _ = _cell(s * 3)
    j, _ = _cell(t * 2)
    shown = tuple(accent[k] * (0.3 + hash01(i, j, seed + k)) for k in range(3))
    off = _grey(0.015 + 0.05 * jnp.maximum(0.0, s * 0.5 + t * 0.5))
    content = _blend(off, shown, (seed % 3 == 0).astype(jnp.float32))
    bezel = (jnp.abs(s) > 0.94) | (jnp.abs(t) > 0.9)
    return _blend(content, colour, bezel.astype(jnp.float32))


def _spines(s, t, u, colour, scale, seed):
    """Returns spines of books of different widths and colours, some with a title."""
    warped = (s + 1) / 2 * scale[0] + 0.35 * jnp.sin(u * 40)
    i, x = _cell(warped)
    tone = tuple(0.04 + 0.7 * hash01(i, i, seed + k) ** 2 for k in range(3))
    spine = _blend(tone, colour, 0.35 * hash01(i, i, seed + 3))
    title = (jnp.abs(t - 0.3) < 0.25) & (jnp.abs(x - 0.5) < 0.2)
    spine = _blend(spine, _grey(0.8 + 0 * s), 0.7 * title.astype(jnp.float32))
    return _scaled(spine, 1 - 0.75 * _edge(x, 0.08))


def _dots(u, v, colour, accent, scale):
    j, y = _cell(v / scale[1])
    _, x = _cell(u / scale[0] + 0.5 * (j % 2).astype(jnp.float32))
    inside = (x - 0.5) ** 2 + (y - 0.5) ** 2 < 0.07
    return _blend(colour, accent, inside.astype(jnp.float32))


def _blinds(v, colour, scale):
    _, y = _cell(v / scale[1])
    return _scaled(colour, 0.55 + 0.5 * y)


def _plaid(u, v, colour, accent, scale):
    _, x = _cell(u / scale[0])
    _, y = _cell(v / scale[1])
    amount = 0.5 * (x < 0.35).astype(jnp.float32) + 0.5 * (y < 0.35).astype(jnp.float32)
    return _blend(colour, accent, amount)
