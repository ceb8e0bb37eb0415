"""Models of furniture: from dice and a size f32[3] (width, depth, height) to solids f32[N, 21].

A model stands on the floor around its own origin with its back at +y and its front at -y.
"""

import jax
import jax.numpy as jnp
import numpy as np

from datasets.rooms import primitives as prim
from datasets.rooms import textures
from datasets.rooms.accessories import book_row, book_stack, clutter, table_lamp
from datasets.rooms.dice import Dice
from datasets.rooms.materials import colour, either, fabric, fronts, wood
from datasets.rooms.primitives import join, legs, material, place, several, solid, vector

SIDES = np.array([-1, 1], np.float32)


def bed(dice: Dice, size: jax.Array) -> jax.Array:
    """Makes a bed with headboard, mattress, blanket, two pillows and a nightstand on each side."""
    x, y = size[0] / 2 - 0.5, size[1] / 2  # the nightstands take half a metre on each side
    frame, blanket, pillow = wood(dice), fabric(dice), fabric(dice)
    sheet = material(textures.PLAIN, colour(dice, (0, 1), (0, 0.2), (0.5, 0.85)))
    top = dice.uniform(0.42, 0.6)
    fold = y - 0.55 - dice.uniform(0.0, 0.5)
    head = top + dice.uniform(0.1, 0.7)

    def one_side(side, numbers):
        dice, centre = Dice(numbers), side * x * 0.5
        low, high = (
            (centre - 0.42 * x, y - 0.6, top - 0.02),
            (centre + 0.42 * x, y - 0.16, top + 0.16),
        )
        size, position = vector(0.42, 0.4, 0.5), vector(side * (x + 0.27), y - 0.22, 0)
        nightstand = join(chest(dice, size), table_lamp(dice, size[2]))
        return join(
            solid(low, high, pillow, prim.OBJECTS, shape=prim.ELLIPSOID),
            place(nightstand, position, 0.0, dice.chance(0.7)),
        )

    return join(
        solid((-x, -y, 0.06), (x, y, top - 0.22), frame, prim.BED),
        solid((-x + 0.02, -y + 0.02, top - 0.22), (x - 0.02, y - 0.05, top), sheet, prim.BED),
        solid((-x - 0.02, -y - 0.02, top - 0.3), (x + 0.02, fold, top + 0.03), blanket, prim.BED),
        solid((-x, y - 0.06, 0), (x, y, head), frame, prim.BED),
        several(one_side, SIDES, dice.take(2, 32)),
    )


def seating(dice: Dice, size: jax.Array, *, label: int, seats: int) -> jax.Array:
    """Makes a sofa or armchair: base, back, arms, `seats` cushions and a throw pillow."""
    width, depth, height = size
    x, y = width / 2, depth / 2
    cloth, throw = fabric(dice), fabric(dice)
    arm, seat = dice.uniform(0.1, 0.22), dice.uniform(0.36, 0.46)
    rise = dice.uniform(0.12, 0.24)
    pitch = (width - 2 * arm) / seats
    at = dice.uniform(-0.6, 0.6) * (x - arm)

    def side(sign):
        middle = sign * (x - arm / 2)
        low, high = (middle - arm / 2, -y, 0.05), (middle + arm / 2, y, seat + rise)
        return solid(low, high, cloth, label)

    def cushion(number):
        left = -x + arm + number * pitch + 0.01
        right = left + pitch - 0.02
        return join(
            solid((left, -y - 0.01, seat - 0.12), (right, y - 0.2, seat + 0.02), cloth, label),
            solid((left, y - 0.34, seat), (right, y - 0.18, height - 0.04), cloth, label),
        )

    spot = (at - 0.2, y - 0.5, seat), (at + 0.2, y - 0.3, seat + 0.38)
    return join(
        solid((-x + arm, -y + 0.02, 0.08), (x - arm, y, seat - 0.12), cloth, label),
        solid((-x, y - 0.2, 0.08), (x, y, height), cloth, label),
        several(side, SIDES),
        several(cushion, np.arange(seats, dtype=np.float32)),
        solid(*spot, throw, prim.OBJECTS, shape=prim.ELLIPSOID, active=dice.chance(0.7)),
    )


def lounge(dice: Dice, size: jax.Array) -> jax.Array:
    """Makes a sofa with a coffee table, which takes the front 0.95 m of the depth."""
    width, depth, height = size
    deep = depth - 0.95
    low = vector(width * 0.55, 0.55, 0.42)
    before = vector(dice.uniform(-0.2, 0.2), -depth / 2 + 0.28, 0)
    on = dice.chance(0.75)
    sofa = seating(dice, vector(width, deep, height), label=prim.SOFA, seats=3)
    coffee = join(table(dice, low), book_stack(dice, low[2]), clutter(dice, low, 2))
    return join(
        place(sofa, vector(0, depth / 2 - deep / 2, 0), 0.0), place(coffee, before, 0.0, on)
    )


def table(dice: Dice, size: jax.Array) -> jax.Array:
    """Makes a top on four legs."""
    width, depth, height = size
    x, y = width / 2, depth / 2
    slab, leg = dice.uniform(0.025, 0.06), dice.uniform(0.03, 0.09)
    top, body = wood(dice), wood(dice)
    return join(
        solid((-x, -y, height - slab), (x, y, height), top, prim.TABLE),
        legs(width - 0.04, depth - 0.04, height - slab, leg, body, prim.TABLE),
    )


def chair(dice: Dice) -> jax.Array:
    """Makes a seat on four legs, 0.45 m wide and facing -y, with a slab or a rail as its back."""
    frame = wood(dice)
    seat = either(dice.chance(0.5), fabric(dice), frame)
    top = dice.uniform(0.8, 1.05)
    lower = jnp.where(dice.chance(0.5), 0.5, top - 0.2)

    def post(side):
        low, high = (0.2 * side - 0.02, 0.18, 0.44), (0.2 * side + 0.02, 0.215, top)
        return solid(low, high, frame, prim.CHAIR)

    return join(
        solid((-0.22, -0.22, 0.42), (0.22, 0.22, 0.47), seat, prim.CHAIR),
        solid((-0.21, 0.19, lower), (0.21, 0.22, top - 0.01), seat, prim.CHAIR),
        legs(0.43, 0.43, 0.43, 0.04, frame, prim.CHAIR),
        several(post, SIDES),
    )


def chest(dice: Dice, size: jax.Array) -> jax.Array:
    """Makes a closed body with drawers or doors: nightstand, dresser or wardrobe."""
    x, y = size[0] / 2, size[1] / 2
    return solid((-x, -y, 0.0), (x, y, size[2]), fronts(dice), prim.FURNITURE)


def dresser(dice: Dice, size: jax.Array) -> jax.Array:
    """Makes a chest with things on it, sometimes with books."""
    on = dice.chance(0.5)
    stack = place(book_stack(dice, size[2]), vector(0, 0, 0), 0.0, on)
    return join(chest(dice, size), clutter(dice, size, 4), stack)


def bookcase(dice: Dice, size: jax.Array) -> jax.Array:
    """Makes sides, back, a top and four boards with a row of books or boxes on each."""
    rows = 4
    width, depth, height = size
    x, y, pitch, t = width / 2, depth / 2, height / rows, 0.025
    body = wood(dice)

    def row(numbers, floor):
        board = solid((-x, -y, floor - t), (x, y, floor), body, prim.FURNITURE)
        books = book_row(Dice(numbers), width - 2 * t, depth - 0.04, floor, pitch - 2 * t)
        return join(board, books)

    def side(sign):
        middle = sign * (x - t / 2)
        return solid((middle - t / 2, -y, 0), (middle + t / 2, y, height), body, prim.FURNITURE)

    floors = t + np.arange(rows, dtype=np.float32) * pitch
    return join(
        solid((-x, y - 0.02, 0), (x, y, height), body, prim.FURNITURE),
        solid((-x, -y, height - t), (x, y, height), body, prim.FURNITURE),
        several(side, SIDES),
        several(row, dice.take(rows, 36), floors),
    )


def television(dice: Dice, size: jax.Array) -> jax.Array:
    """Makes a low cabinet with a flat screen on it."""
    low = size[2] - 0.72
    w = jnp.minimum(dice.uniform(0.42, 0.66), size[0] / 2)
    bezel = colour(dice, (0, 1), (0, 0.1), (0.01, 0.06))
    shown = colour(dice, (0, 1), (0.1, 0.7), (0.2, 0.8))
    screen = material(textures.SCREEN, bezel, shown, glow=0.7)
    return join(
        chest(dice, vector(size[0], size[1], low)),
        solid((-0.15, 0.0, low), (0.15, 0.15, low + 0.06), screen, prim.TV),
        solid((-w, 0.05, low + 0.05), (w, 0.1, low + 0.05 + 1.14 * w), screen, prim.TV),
    )


def dining(dice: Dice, size: jax.Array) -> jax.Array:
    """Makes a table with things on it and a chair on each side, more or less pushed in."""
    top = size - vector(0.8, 0.8, 0)
    alike = dice.take(32)
    normals = np.array([(0, -1), (0, 1), (-1, 0), (1, 0)], np.float32)
    turns = np.array([np.pi, 0, np.pi / 2, -np.pi / 2], np.float32)

    def seat(normal, angle, numbers):
        dice = Dice(numbers)
        reach = normal * (top[:2] / 2 + dice.uniform(-0.05, 0.18))
        turned = angle + dice.uniform(-0.3, 0.3)
        one = chair(Dice(alike))
        return place(one, vector(reach[0], reach[1], 0), turned, dice.chance(0.8))

    chairs = several(seat, normals, turns, dice.take(4, 3))
    return join(table(dice, top), chairs, clutter(dice, top, 3))


def desk(dice: Dice, size: jax.Array) -> jax.Array:
    """Makes a table at the wall with drawers, lamp and books, and a chair in front of it."""
    deep = size[1] - 0.6
    top = vector(size[0], deep, size[2])
    side = size[0] / 2 - 0.24
    lamp_on = dice.chance(0.7)
    front = vector(dice.uniform(-0.2, 0.2), 0.3 - deep / 2, 0)
    turned = np.float32(np.pi) + dice.uniform(-0.6, 0.6)
    upper = join(
        table(dice, top),
        place(chest(dice, vector(0.38, deep - 0.08, size[2] - 0.06)), vector(side, 0, 0), 0.0),
        place(table_lamp(dice, size[2]), vector(-side, 0, 0), 0.0, lamp_on),
        clutter(dice, top, 4),
        book_stack(dice, size[2]),
    )
    return join(place(upper, vector(0, 0.3, 0), 0.0), place(chair(dice), front, turned))
