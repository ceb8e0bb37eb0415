"""Models of furniture: from a key and a size f32[3] (width, depth, height) to solids.

A model stands on the floor around its own origin with its back at +y and its front at -y.
"""

import jax
import jax.numpy as jnp
import numpy as np

from datasets.rooms import primitives as prim
from datasets.rooms import textures
from datasets.rooms.draw import chance, pick, split, uniform
from datasets.rooms.materials import fabric, fronts, material, plastic, random_colour, wood
from datasets.rooms.primitives import Primitives, flatten, join, legs, place, solid


def bed(key: jax.Array, size: jax.Array) -> Primitives:
    """A frame with headboard, mattress, blanket, two pillows and a nightstand on each side."""
    keys = split(key, 8)
    full, depth, _ = size
    x, y = full / 2 - 0.5, depth / 2  # the nightstands take half a metre on each side
    frame, blanket = wood(keys[0]), fabric(keys[1])
    sheet = material(textures.PLAIN, random_colour(keys[2], (0, 1), (0, 0.2), (0.5, 0.85)))
    top = uniform(keys[3], 0.42, 0.6)
    fold = uniform(keys[4], 0.0, 0.5)
    head = uniform(keys[5], top + 0.1, top + 0.7)
    pillow = fabric(keys[6])

    def stand(side, key):
        lamp_key, body_key, on_key = split(key, 3)
        here = jnp.array([side * (x + 0.27), y - 0.22, 0.0], jnp.float32)
        wide = jnp.array([0.42, 0.4, 0.5], jnp.float32)
        lamp = table_lamp(lamp_key, wide[2])
        return place(join(chest(body_key, wide), lamp), here, 0.0, chance(on_key, 0.7))

    def cushion(side):
        centre = side * x * 0.5
        low = (centre - 0.42 * x, y - 0.6, top - 0.02)
        high = (centre + 0.42 * x, y - 0.16, top + 0.16)
        return solid(low, high, pillow, prim.OBJECTS, shape=prim.ELLIPSOID)

    sides = np.array([-1, 1], np.float32)
    return join(
        solid((-x, -y, 0.06), (x, y, top - 0.22), frame, prim.BED),
        solid((-x + 0.02, -y + 0.02, top - 0.22), (x - 0.02, y - 0.05, top), sheet, prim.BED),
        solid((-x - 0.02, -y - 0.02, top - 0.3), (x + 0.02, y - 0.55 - fold, top + 0.03),
              blanket, prim.BED),
        solid((-x, y - 0.06, 0), (x, y, head), frame, prim.BED),
        flatten(jax.vmap(cushion)(sides)),
        flatten(jax.vmap(stand)(sides, split(keys[7]))),
    )  # fmt: skip


def sofa(key: jax.Array, size: jax.Array, label: int, seats: int) -> Primitives:
    """A sofa or armchair: base, back, arms, `seats` cushions and a throw pillow."""
    keys = split(key, 5)
    width, depth, height = size
    x, y = width / 2, depth / 2
    cloth, throw = fabric(keys[0]), fabric(keys[1])
    arm = uniform(keys[2], 0.1, 0.22)
    seat = uniform(keys[3], 0.36, 0.46)
    pitch = (width - 2 * arm) / seats
    at = uniform(keys[4], -0.6, 0.6) * (x - arm)

    def side(sign):
        inner, outer = sign * (x - arm), sign * x
        low = (jnp.minimum(inner, outer), -y, 0.05)
        return solid(low, (jnp.maximum(inner, outer), y, seat + 0.2), cloth, label)

    def cushion(number):
        left = -x + arm + number * pitch
        return join(
            solid((left + 0.01, -y - 0.01, seat - 0.12), (left + pitch - 0.01, y - 0.2, seat + 0.02),
                  cloth, label),
            solid((left + 0.01, y - 0.34, seat), (left + pitch - 0.01, y - 0.18, height - 0.04),
                  cloth, label),
        )  # fmt: skip

    return join(
        solid((-x + arm, -y + 0.02, 0.08), (x - arm, y, seat - 0.12), cloth, label),
        solid((-x, y - 0.2, 0.08), (x, y, height), cloth, label),
        flatten(jax.vmap(side)(np.array([-1, 1], np.float32))),
        flatten(jax.vmap(cushion)(np.arange(seats, dtype=np.float32))),
        solid((at - 0.2, y - 0.5, seat), (at + 0.2, y - 0.3, seat + 0.38), throw,
              prim.OBJECTS, shape=prim.ELLIPSOID),
    )  # fmt: skip


def table(key: jax.Array, size: jax.Array) -> Primitives:
    """A top on four legs."""
    body, top_key, thick, leg = split(key, 4)
    width, depth, height = size
    x, y = width / 2, depth / 2
    slab = uniform(thick, 0.025, 0.06)
    top = solid((-x, -y, height - slab), (x, y, height), wood(top_key), prim.TABLE)
    return join(
        top,
        legs(width, depth, height - slab, uniform(leg, 0.03, 0.09), wood(body), prim.TABLE,
             inset=0.02),
    )  # fmt: skip


def chair(key: jax.Array) -> Primitives:
    """A seat on four legs with a back of a slab or two rails; 0.45 m wide, facing -y."""
    body, seat_key, cover, tall, solid_back = split(key, 5)
    frame = wood(body)
    seat = jax.tree.map(lambda a, b: jnp.where(chance(cover, 0.5), a, b), fabric(seat_key), frame)
    top = uniform(tall, 0.8, 1.05)
    lower = jnp.where(chance(solid_back, 0.5), 0.5, top - 0.2)
    return join(
        solid((-0.22, -0.22, 0.42), (0.22, 0.22, 0.47), seat, prim.CHAIR),
        legs(jnp.float32(0.43), jnp.float32(0.43), 0.43, 0.04, frame, prim.CHAIR),
        solid((-0.21, 0.19, lower), (0.21, 0.22, top), seat, prim.CHAIR),
        solid((-0.215, 0.18, 0.44), (-0.18, 0.215, top), frame, prim.CHAIR),
        solid((0.18, 0.18, 0.44), (0.215, 0.215, top), frame, prim.CHAIR),
    )


def chest(key: jax.Array, size: jax.Array) -> Primitives:
    """A closed body with drawers or doors: nightstand, dresser or wardrobe."""
    x, y = size[0] / 2, size[1] / 2
    return solid((-x, -y, 0.0), (x, y, size[2]), fronts(key), prim.FURNITURE)


def bookcase(key: jax.Array, size: jax.Array) -> Primitives:
    """Sides, back, a top and four boards with a row of books or boxes on each."""
    body_key, row_key = split(key)
    rows = 4
    width, depth, height = size
    x, y, pitch, t = width / 2, depth / 2, height / rows, 0.025
    body = wood(body_key)

    def row(key, floor):
        board = solid((-x, -y, floor - t), (x, y, floor), body, prim.FURNITURE)
        return join(board, book_row(key, width - 2 * t, depth - 0.04, floor, pitch - 2 * t))

    floors = t + np.arange(rows, dtype=np.float32) * pitch
    return join(
        solid((-x, -y, 0), (-x + t, y, height), body, prim.FURNITURE),
        solid((x - t, -y, 0), (x, y, height), body, prim.FURNITURE),
        solid((-x, y - 0.02, 0), (x, y, height), body, prim.FURNITURE),
        solid((-x, -y, height - t), (x, y, height), body, prim.FURNITURE),
        flatten(jax.vmap(row)(split(row_key, rows), floors)),
    )


def book_row(key: jax.Array, width, depth, floor, height) -> Primitives:
    """Three blocks of books, or boxes between them, side by side on a board at `floor`."""
    pitch = width / 3

    def block(key, slot):
        on, wide, tall, tint, kind, skin = split(key, 6)
        is_books = chance(kind, 0.8)
        w = pitch * uniform(wide, 0.55, 0.97)
        h = height * jnp.where(is_books, uniform(tall, 0.6, 0.92), uniform(tall, 0.3, 0.8))
        left = pitch * slot - width / 2
        colour = random_colour(tint, (0, 1), (0, 0.6), (0.1, 0.6))
        books = material(textures.SPINES, colour, scale=(w / 0.035, 1))
        look = jax.tree.map(lambda a, b: jnp.where(is_books, a, b), books, plastic(skin))
        label = jnp.where(is_books, prim.BOOKS, prim.OBJECTS)
        low, high = (left, -depth / 2, floor), (left + w, depth / 2, floor + h)
        return solid(low, high, look, label, active=chance(on, 0.75))

    return flatten(jax.vmap(block)(split(key, 3), np.arange(3, dtype=np.float32)))


def television(key: jax.Array, size: jax.Array) -> Primitives:
    """A low cabinet with a flat screen on it."""
    body, bezel, shown, wide = split(key, 4)
    low = size[2] - 0.72
    w = jnp.minimum(uniform(wide, 0.42, 0.66), size[0] / 2)
    h = w * 1.14
    screen = material(
        textures.SCREEN, random_colour(bezel, (0, 1), (0, 0.1), (0.01, 0.06)),
        random_colour(shown, (0, 1), (0.1, 0.7), (0.2, 0.8)), glow=0.7,
    )  # fmt: skip
    return join(
        chest(body, jnp.stack([size[0], size[1], low])),
        solid((-0.15, 0.0, low), (0.15, 0.15, low + 0.06), screen, prim.TV),
        solid((-w, 0.05, low + 0.05), (w, 0.1, low + 0.05 + h), screen, prim.TV),
    )


def dining(key: jax.Array, size: jax.Array) -> Primitives:
    """A table with a chair on each of its sides, pushed in more or less, and things on it."""
    table_key, chair_key, push, turn, on, thing = split(key, 6)
    width, depth, height = size[0] - 0.8, size[1] - 0.8, size[2]
    normals = np.array([(0, -1), (0, 1), (-1, 0), (1, 0)], np.float32)
    turns = np.array([np.pi, 0, np.pi / 2, -np.pi / 2], np.float32)

    def seat(normal, angle, push, turn, on):
        reach = jnp.stack([width, depth]) / 2 + push
        position = jnp.concatenate([normal * reach, jnp.zeros(1, jnp.float32)])
        # All chairs of a table are alike, so they share one key.
        return place(chair(chair_key), position, angle + turn, chance(on, 0.8))

    chairs = jax.vmap(seat)(
        normals, turns, uniform(push, -0.05, 0.18, (4,)), uniform(turn, -0.3, 0.3, (4,)),
        split(on, 4),
    )  # fmt: skip
    top = jnp.stack([width, depth, height])
    return join(table(table_key, top), flatten(chairs), clutter(thing, top, 3))


def desk(key: jax.Array, size: jax.Array) -> Primitives:
    """A table at the wall with drawers below, a lamp, a stack of books, and a chair before it."""
    keys = split(key, 7)
    depth = size[1] - 0.6
    top = jnp.stack([size[0], depth, size[2]])
    here = jnp.array([0.0, 0.3, 0.0], jnp.float32)
    front = jnp.stack([uniform(keys[0], -0.2, 0.2), 0.3 - depth / 2, jnp.float32(0)])
    drawers = chest(keys[1], jnp.stack([jnp.float32(0.38), depth - 0.08, size[2] - 0.06]))
    side = jnp.stack([size[0] / 2 - 0.24, jnp.float32(0.0), jnp.float32(0)])
    lamp = place(table_lamp(keys[2], size[2]), side * jnp.float32(-1), 0.0, chance(keys[3], 0.7))
    upper = join(
        table(keys[3], top), place(drawers, side, 0.0), lamp, clutter(keys[4], top, 3),
        book_stack(keys[5], size[2]),
    )  # fmt: skip
    turned = jnp.float32(np.pi) + uniform(keys[6], -0.6, 0.6)
    return join(place(upper, here, 0.0), place(chair(keys[6]), front, turned))


def coffee_table(key: jax.Array, size: jax.Array) -> Primitives:
    """A low table with books and things on it."""
    table_key, books, things = split(key, 3)
    return join(table(table_key, size), book_stack(books, size[2]), clutter(things, size, 2))


def lounge(key: jax.Array, size: jax.Array) -> Primitives:
    """A sofa with a coffee table before it; the table takes the front 0.95 m of the depth."""
    sofa_key, table_key, on, shift = split(key, 4)
    deep = size[1] - 0.95
    body = sofa(sofa_key, jnp.stack([size[0], deep, size[2]]), prim.SOFA, 3)
    low = jnp.stack([size[0] * 0.55, jnp.float32(0.55), jnp.float32(0.42)])
    before = jnp.stack([uniform(shift, -0.2, 0.2), -size[1] / 2 + 0.28, jnp.float32(0)])
    behind = jnp.stack([jnp.float32(0), size[1] / 2 - deep / 2, jnp.float32(0)])
    return join(
        place(body, behind, 0.0),
        place(coffee_table(table_key, low), before, 0.0, chance(on, 0.75)),
    )


def dresser(key: jax.Array, size: jax.Array) -> Primitives:
    """A chest with things on it, among them at times books."""
    body, things, books, on = split(key, 4)
    stack = place(book_stack(books, size[2]), jnp.zeros(3, jnp.float32), 0.0, chance(on, 0.5))
    return join(chest(body, size), clutter(things, size, 3), stack)


def book_stack(key: jax.Array, height: jax.Array) -> Primitives:
    """Four books that lie on each other at `height`, each turned a little."""
    x, turn, seeds = split(key, 3)
    at = uniform(x, -0.15, 0.15)

    def book(number, angle, key):
        cover = material(textures.SPINES, random_colour(key, (0, 1), (0.1, 0.8), (0.08, 0.7)),
                         scale=(1, 1))  # fmt: skip
        low = (-0.13, -0.1, height + number * 0.035)
        one = solid(low, (0.13, 0.1, height + number * 0.035 + 0.032), cover, prim.BOOKS)
        return place(one, jnp.stack([at, 0 * at, 0 * at]), angle)

    stack = jax.vmap(book)(
        np.arange(4, dtype=np.float32), uniform(turn, -0.5, 0.5, (4,)), split(seeds, 4)
    )
    return flatten(stack)


def clutter(key: jax.Array, size: jax.Array, count: int) -> Primitives:
    """Small things of every shape on a top of this size: boxes, balls, cups."""

    def thing(key, slot):
        x, y, wide, tall, look, turn, on, shape = split(key, 8)
        w, h = uniform(wide, 0.03, 0.1), uniform(tall, 0.06, 0.3)
        kind = pick(shape, prim.BOX, prim.BOX, prim.ELLIPSOID, prim.CYLINDER)
        h = jnp.where(kind == prim.ELLIPSOID, 2 * w, h)
        spot = (slot + uniform(x, 0.25, 0.75)) / count - 0.5
        at = jnp.stack([spot * (size[0] - 0.2), uniform(y, -0.3, 0.3) * size[1], size[2]])
        body = solid((-w, -w, 0), (w, w, h), plastic(look), prim.OBJECTS, active=chance(on, 0.7))
        return place(body._replace(shape=kind[None]), at, uniform(turn, 0.0, 3.0))

    slots = np.arange(count, dtype=np.float32)
    return flatten(jax.vmap(thing)(split(key, count), slots))


def table_lamp(key: jax.Array, height: jax.Array) -> Primitives:
    """A foot and a shade that glows, at `height`."""
    tint, foot_key, wide, on = split(key, 4)
    r = uniform(wide, 0.09, 0.15)
    shade = material(
        textures.PLAIN, random_colour(tint, (0.06, 0.14), (0.1, 0.4), (0.6, 0.9)),
        glow=jnp.where(chance(on, 0.6), 1.0, 0.0),
    )  # fmt: skip
    foot = plastic(foot_key)
    return join(
        solid((-0.035, -0.035, height), (0.035, 0.035, height + 0.25), foot, prim.OBJECTS,
              shape=prim.CYLINDER),
        solid((-r, -r, height + 0.22), (r, r, height + 0.42), shade, prim.OBJECTS,
              shape=prim.CYLINDER),
    )  # fmt: skip


def floor_lamp(key: jax.Array, size: jax.Array) -> Primitives:
    """A pole with a shade, as tall as `size` says."""
    tint, pole_key = split(key)
    shade = material(
        textures.PLAIN, random_colour(tint, (0.06, 0.14), (0.1, 0.4), (0.6, 0.9)), glow=0.9
    )
    r, h = 0.2, size[2]
    pole = plastic(pole_key)
    return join(
        solid((-0.14, -0.14, 0), (0.14, 0.14, 0.03), pole, prim.OBJECTS, shape=prim.CYLINDER),
        solid((-0.02, -0.02, 0), (0.02, 0.02, h - 0.2), pole, prim.OBJECTS, shape=prim.CYLINDER),
        solid((-r, -r, h - 0.3), (r, r, h), shade, prim.OBJECTS, shape=prim.CYLINDER),
    )


def plant(key: jax.Array, size: jax.Array) -> Primitives:
    """A pot with four clumps of leaves."""
    pot_key, leaf_key, spread = split(key, 3)
    h = size[2]
    green = material(
        textures.FOLIAGE, random_colour(leaf_key, (0.22, 0.4), (0.4, 0.9), (0.12, 0.5))
    )
    offsets = uniform(spread, -0.1, 0.1, (4, 3))

    def clump(offset, level):
        centre = offset + jnp.array([0.0, 0.0, 1.0], jnp.float32) * (0.35 + level * (h - 0.5))
        radius = jnp.array([0.16, 0.16, 0.2], jnp.float32)
        return solid(centre - radius, centre + radius, green, prim.OBJECTS, shape=prim.ELLIPSOID)

    levels = np.array([0.2, 0.45, 0.7, 1.0], np.float32)
    pot = solid((-0.15, -0.15, 0), (0.15, 0.15, 0.3), plastic(pot_key), prim.OBJECTS,
                shape=prim.CYLINDER)  # fmt: skip
    return join(pot, flatten(jax.vmap(clump)(offsets, levels)))


def bin_or_box(key: jax.Array, size: jax.Array) -> Primitives:
    """A cardboard box, basket or bin on the floor."""
    look, shape, card = split(key, 3)
    x, y = size[0] / 2, size[1] / 2
    cardboard = material(textures.WOOD, random_colour(card, (0.06, 0.1), (0.3, 0.6), (0.3, 0.6)))
    kind = pick(shape, prim.BOX, prim.BOX, prim.CYLINDER)
    skin = jax.tree.map(lambda a, b: jnp.where(kind == prim.BOX, a, b), cardboard, plastic(look))
    return solid((-x, -y, 0), (x, y, size[2]), skin, prim.OBJECTS)._replace(shape=kind[None])
