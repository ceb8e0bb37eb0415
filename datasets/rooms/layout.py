"""The plan of a room: which items stand where, so that none overlaps another."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from datasets.rooms import accessories, fixtures, furniture, primitives
from datasets.rooms.dice import Dice
from datasets.rooms.primitives import join, place, several, vector

AT_WALL, ANYWHERE = range(2)
CANDIDATES = 32
# Random numbers available for the look of one item.
DRAWS = 256
# Space in metres that is left between two items.
GAP = 0.04


class Item(NamedTuple):
    """One object that a room may hold.

    Attributes:
      model: (dice, size f32[3]) -> solids.
      low, high: limits of width, depth and height in metres.
      raised: limits of the height of its lower edge above the floor.
      where: AT_WALL or ANYWHERE.
      chances: probability that it is in a bedroom, living room, study and dining room.
      interest: how much it attracts the camera.
    """

    model: Callable[[Dice, jax.Array], jax.Array]
    low: tuple[float, float, float]
    high: tuple[float, float, float]
    raised: tuple[float, float]
    where: int
    chances: tuple[float, float, float, float]
    interest: float


def _armchair(dice: Dice, size: jax.Array) -> jax.Array:
    return furniture.seating(dice, size, label=primitives.CHAIR, seats=1)


def _chair(dice: Dice, size: jax.Array) -> jax.Array:
    del size
    return furniture.chair(dice)


_FLOOR = (0.0, 0.0)
# In the order in which they are placed.
ITEMS = (
    Item(fixtures.door, (0.85, 0.7, 2.0), (1.0, 0.7, 2.15), _FLOOR, AT_WALL, (0.9,) * 4, 0.4),
    Item(furniture.bed, (2.2, 1.95, 1.3), (2.8, 2.15, 1.3), _FLOOR, AT_WALL,
         (1, 0, 0.15, 0), 1.8),
    Item(furniture.lounge, (1.7, 1.8, 0.75), (2.4, 1.9, 0.95), _FLOOR, AT_WALL,
         (0.1, 1, 0.25, 0.2), 1.5),
    Item(furniture.desk, (1.1, 1.25, 0.7), (1.6, 1.35, 0.78), _FLOOR, AT_WALL,
         (0.4, 0.1, 1, 0.15), 1.3),
    Item(furniture.dining, (1.8, 1.55, 0.72), (2.5, 1.8, 0.78), _FLOOR, ANYWHERE,
         (0, 0.2, 0.15, 1), 1.6),
    Item(furniture.television, (1.1, 0.42, 1.15), (1.7, 0.5, 1.35), _FLOOR, AT_WALL,
         (0.5, 0.8, 0.3, 0.35), 1.3),
    Item(fixtures.window, (1.0, 0.16, 1.0), (2.0, 0.2, 1.5), (0.75, 1.0), AT_WALL, (0.9,) * 4, 0.8),
    Item(furniture.bookcase, (0.7, 0.28, 1.3), (1.3, 0.36, 2.1), _FLOOR, AT_WALL,
         (0.35, 0.5, 0.8, 0.35), 1.2),
    Item(furniture.chest, (0.9, 0.5, 1.6), (1.9, 0.62, 2.2), _FLOOR, AT_WALL,
         (0.8, 0.5, 0.6, 0.8), 1.1),
    Item(furniture.dresser, (0.8, 0.4, 0.7), (1.6, 0.5, 1.0), _FLOOR, AT_WALL,
         (0.8, 0.7, 0.6, 0.8), 1.1),
    Item(_armchair, (0.8, 0.8, 0.75), (0.95, 0.9, 1.0), _FLOOR, AT_WALL,
         (0.3, 0.6, 0.4, 0.2), 0.9),
    Item(fixtures.window, (0.8, 0.16, 0.9), (1.6, 0.2, 1.4), (0.8, 1.1), AT_WALL, (0.6,) * 4, 0.6),
    Item(furniture.dresser, (0.6, 0.35, 0.6), (1.1, 0.45, 1.2), _FLOOR, AT_WALL,
         (0.5, 0.5, 0.6, 0.7), 0.9),
    Item(_chair, (0.5, 0.5, 1.0), (0.5, 0.5, 1.0), _FLOOR, ANYWHERE, (0.4, 0.3, 0.4, 0.4), 0.6),
    Item(accessories.plant, (0.5, 0.5, 0.9), (0.5, 0.5, 1.4), _FLOOR, AT_WALL, (0.5,) * 4, 0.6),
    Item(accessories.floor_lamp, (0.45, 0.45, 1.4), (0.45, 0.45, 1.8), _FLOOR, AT_WALL,
         (0.3, 0.5, 0.4, 0.3), 0.5),
    Item(accessories.bin_or_box, (0.35, 0.3, 0.3), (0.6, 0.5, 0.6), _FLOOR, ANYWHERE,
         (0.6,) * 4, 0.5),
    Item(accessories.bin_or_box, (0.3, 0.3, 0.25), (0.6, 0.5, 0.7), _FLOOR, AT_WALL,
         (0.7,) * 4, 0.5),
    Item(accessories.bin_or_box, (0.3, 0.3, 0.25), (0.5, 0.5, 0.6), _FLOOR, AT_WALL,
         (0.6,) * 4, 0.5),
    Item(fixtures.wall_shelf, (0.6, 0.22, 0.3), (1.2, 0.26, 0.36), (1.3, 1.6), AT_WALL,
         (0.3, 0.3, 0.6, 0.2), 0.8),
    *[Item(fixtures.picture, (0.35, 0.03, 0.35), (1.0, 0.05, 0.8), (1.2, 1.5), AT_WALL,
           (0.75,) * 4, 0.4)] * 4,
)  # fmt: skip


class Placed(NamedTuple):
    """Where the items stand: f32[N, 3] position, size, low, high; f32[N] yaw; bool[N] active."""

    position: jax.Array
    size: jax.Array
    yaw: jax.Array
    low: jax.Array
    high: jax.Array
    active: jax.Array


def _candidates(numbers, room, size, raised, where):
    """Draws C places for one item.

    Returns:
      position f32[C, 3], yaw f32[C], extent f32[C, 3] along the room's axes, and bool[C],
      whether the item fits between the walls there.
    """
    dice = Dice(numbers)
    wall = dice.integer(4, (CANDIDATES,))
    u, v = dice.take(2, CANDIDATES)
    # Walls: 0 at y = depth, 1 at x = 0, 2 at y = 0, 3 at x = width.
    sideways = wall % 2 == 1
    extent = jnp.where(sideways[:, None], size[jnp.array([1, 0, 2])], size)  # [C, 3]
    slack = room[:2] - extent[:, :2]  # [C, 2]
    anywhere = extent[:, :2] / 2 + jnp.stack([u, v], axis=-1) * slack
    far = jnp.stack([wall == 3, wall == 0], axis=-1)
    flush = jnp.where(far, room[:2] - extent[:, :2] / 2, extent[:, :2] / 2)
    across = jnp.stack([sideways, ~sideways], axis=-1)
    at_wall = jnp.where(across, flush, anywhere)
    plan = jnp.where(where == AT_WALL, at_wall, anywhere)
    position = jnp.concatenate([plan, jnp.broadcast_to(raised, (CANDIDATES, 1))], axis=-1)
    fits = jnp.all(slack >= 0, axis=-1) & (raised + size[2] < room[2])
    return position, wall.astype(jnp.float32) * (np.pi / 2), extent, fits


def furnish(dice: Dice, room: jax.Array) -> Placed:
    """Puts each item that the room holds at the first of its random places that is free.

    Args:
      room: f32[3], width, depth and height in metres.
    """
    count = len(ITEMS)
    table = {
        name: np.array([getattr(item, name) for item in ITEMS], np.float32)
        for name in ("low", "high", "raised", "chances")
    }
    where = np.array([item.where for item in ITEMS], np.int32)
    size = dice.uniform(table["low"], table["high"], (count, 3))
    lowest, highest = table["raised"].T
    raised = dice.uniform(lowest, highest, (count,))
    kind = dice.integer(table["chances"].shape[1])
    wanted = dice.take(count) < jnp.asarray(table["chances"])[:, kind]

    def settle(bounds, item):
        index, numbers, size, raised, where, wanted = item
        low, high = bounds
        position, yaw, extent, fits = _candidates(numbers, room, size, raised, where)
        half = extent / 2 * jnp.array([1, 1, 0], jnp.float32)
        lows = position - half
        highs = position + half + extent * jnp.array([0, 0, 1], jnp.float32)
        apart = (lows[:, None] > high + GAP) | (highs[:, None] + GAP < low)  # [C, N, 3]
        free = fits & jnp.all(jnp.any(apart, axis=-1), axis=-1)
        best = jnp.argmax(free)
        active = wanted & free[best]
        nowhere = jnp.float32(-100)
        bounds = (
            low.at[index].set(jnp.where(active, lows[best], nowhere)),
            high.at[index].set(jnp.where(active, highs[best], nowhere)),
        )
        return bounds, (position[best], yaw[best], active)

    empty = jnp.full((count, 3), -100.0, jnp.float32)
    numbers = dice.take(count, 3 * CANDIDATES)
    items = (jnp.arange(count), numbers, size, raised, where, wanted)
    (low, high), (position, yaw, active) = jax.lax.scan(settle, (empty, empty), items)
    return Placed(position, size, yaw, low, high, active)


def build(dice: Dice, placed: Placed) -> jax.Array:
    """Returns the solids of all items."""
    numbers = dice.take(len(ITEMS), DRAWS)
    rows = {}
    for row, item in enumerate(ITEMS):
        rows.setdefault(item.model, []).append(row)

    def one(model, numbers, size, position, yaw, active):
        return place(model(Dice(numbers), size), position, yaw, active)

    # Items of one model are made together, so that it is compiled once.
    items = (numbers, placed.size, placed.position, placed.yaw, placed.active)
    return join(
        *(
            several(partial(one, model), *(leaf[np.array(same)] for leaf in items))
            for model, same in rows.items()
        )
    )


def room_size(dice: Dice) -> jax.Array:
    """Draws width, depth and height f32[3] of a room in metres."""
    return dice.uniform(vector(3.0, 3.0, 2.35), vector(5.6, 6.2, 2.9), (3,))


def put_rug(dice: Dice, room: jax.Array) -> jax.Array:
    """Makes a rug near the middle of the room, or none."""
    flat = vector(1, 1, 0)
    size = room * dice.uniform(0.3, 0.6, (3,)) * flat
    middle = room * dice.uniform(0.42, 0.58, (3,)) * flat
    return place(fixtures.rug(dice, size), middle, 0.0, dice.chance(0.5))
