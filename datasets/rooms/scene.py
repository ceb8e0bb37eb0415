"""A random room with its light and a camera, made from a key."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from datasets.rooms import fixtures, layout, materials
from datasets.rooms import primitives as prim
from datasets.rooms.dice import Dice
from datasets.rooms.layout import ITEMS, Placed
from datasets.rooms.materials import colour
from datasets.rooms.primitives import Primitives, join, place, vector

# How many solids of each shape an image can show. 98 % of the rooms have fewer in view; in the
# others the smallest are left out, of the image and of the labels.
BOXES, ELLIPSOIDS, CYLINDERS = 66, 12, 12
CAMERA_CANDIDATES = 96
# Random numbers available for one room.
DRAWS = 10000


class Camera(NamedTuple):
    """A pinhole camera.

    Attributes:
      position: f32[3] in the world.
      rotation: f32[3, 3], whose rows are the camera's right, down and forward in the world.
      focal: f32[], focal length as a multiple of the image's width.
      baseline: f32[], metres to the right-hand camera.
    """

    position: jax.Array
    rotation: jax.Array
    focal: jax.Array
    baseline: jax.Array


class Light(NamedTuple):
    """A flat lamp or window and the light that comes from everywhere.

    Attributes:
      corners: f32[4, 3], points spread over the lamp that casts shadows.
      colour: f32[3] of that lamp.
      ambient: f32[3], light from everywhere.
      outside: f32[], brightness of what is seen through the windows.
      exposure: f32[], mean brightness that the image gets.
      noise: f32[], standard deviation of the sensor's noise at mean brightness.
    """

    corners: jax.Array
    colour: jax.Array
    ambient: jax.Array
    outside: jax.Array
    exposure: jax.Array
    noise: jax.Array


class Scene(NamedTuple):
    """Everything that an image is made of.

    Attributes:
      room: f32[3], width, depth and height in metres.
      surfaces: f32[3, 10], packed materials of walls, floor and ceiling.
      seed: i32[], of the textures of the room itself.
      boxes, ellipsoids, cylinders: the solids that can be seen.
      light, camera: as above.
    """

    room: jax.Array
    surfaces: jax.Array
    seed: jax.Array
    boxes: Primitives
    ellipsoids: Primitives
    cylinders: Primitives
    light: Light
    camera: Camera


def make(key: jax.Array) -> Scene:
    """Makes a random room with furniture, light and camera."""
    dice = Dice(jax.random.uniform(key, (DRAWS,), jnp.float32))
    room = layout.room_size(dice)
    placed = layout.furnish(dice, room)
    daylight = dice.chance(0.5) & placed.active[_FIRST_WINDOW]
    lamp = place(
        fixtures.ceiling_lamp(dice, ~daylight), room * vector(0.5, 0.5, 1) - vector(0, 0, 0.05), 0.0
    )
    solids = prim.unpack(join(layout.build(dice, placed), layout.put_rug(dice, room), lamp))
    solids = solids._replace(seed=dice.integer(1 << 20, solids.seed.shape))
    camera = take_position(dice, room, placed)
    priority = _priority(solids, camera)
    walls = (materials.wallpaper(dice), materials.flooring(dice), materials.ceiling(dice))
    return Scene(
        room=room,
        surfaces=jnp.stack(walls),
        seed=dice.integer(1 << 20),
        boxes=prim.keep(solids, prim.BOX, BOXES, priority),
        ellipsoids=prim.keep(solids, prim.ELLIPSOID, ELLIPSOIDS, priority),
        cylinders=prim.keep(solids, prim.CYLINDER, CYLINDERS, priority),
        light=_light(dice, room, placed, daylight),
        camera=camera,
    )


_FIRST_WINDOW = next(i for i, item in enumerate(ITEMS) if item.model is fixtures.window)


def _light(dice: Dice, room: jax.Array, placed: Placed, daylight: jax.Array) -> Light:
    warm = colour(dice, (0.07, 0.14), (0.0, 0.35), (1.0, 1.0))
    cool = colour(dice, (0.5, 0.65), (0.0, 0.15), (1.0, 1.0))
    signs = np.array([(-1, -1), (1, -1), (-1, 1), (1, 1)], np.float32)
    flat = np.concatenate([signs, np.zeros((4, 1), np.float32)], axis=1)
    middle = room * vector(0.5, 0.5, 1) - vector(0, 0, 0.32)
    lamp = middle + 0.16 * flat
    # Points in the window's plane, a hand's breadth inside the room.
    yaw, size = placed.yaw[_FIRST_WINDOW], placed.size[_FIRST_WINDOW]
    along = vector(jnp.cos(yaw), jnp.sin(yaw), 0)
    inward = vector(jnp.sin(yaw), -jnp.cos(yaw), 0)
    up = vector(0, 0, 1)
    centre = placed.position[_FIRST_WINDOW] + 0.2 * inward + 0.5 * size[2] * up
    pane = centre + 0.3 * size[0] * signs[:, :1] * along + 0.3 * size[2] * signs[:, 1:] * up
    return Light(
        corners=jnp.where(daylight, pane, lamp),
        colour=jnp.where(daylight, cool, warm) * jnp.where(daylight, 1.4, 1.0),
        ambient=(0.5 * (warm + cool)) * dice.uniform(0.25, 0.5),
        outside=jnp.where(daylight, dice.uniform(1.2, 2.2), dice.uniform(0.05, 1.2)),
        exposure=dice.uniform(0.19, 0.33),
        noise=dice.uniform(0.004, 0.018),
    )


def take_position(dice: Dice, room: jax.Array, placed: Placed) -> Camera:
    """Returns a camera at eye height, in free space, that looks at something of interest."""
    n = CAMERA_CANDIDATES
    plan = 0.3 + dice.take(n, 2) * (room[:2] - 0.6)
    height = jnp.clip(1.35 + dice.normal(0.2, (n, 1)), 0.9, 1.8)
    position = jnp.concatenate([plan, height], axis=-1)
    heading = dice.uniform(0.0, 2 * np.pi, (n,))
    best = jnp.argmax(_interest(position, heading, room, placed) + 0.4 * dice.gumbel((n,)))
    return Camera(
        position=position[best],
        rotation=_rotation(heading[best], -0.2 + dice.normal(0.15), dice.normal(0.035)),
        focal=dice.uniform(0.75, 1.0),
        baseline=dice.uniform(0.06, 0.12),
    )


def _interest(position, angle, room, placed):
    """Returns how good each place f32[C, 3] and heading f32[C] is; very low inside an item."""
    forward = jnp.stack([jnp.cos(angle), jnp.sin(angle)], axis=-1)  # [C, 2]
    middle = (placed.low + placed.high)[:, :2] / 2  # [N, 2]
    offset = middle - position[:, None, :2]  # [C, N, 2]
    distance = jnp.sqrt(jnp.sum(offset**2, axis=-1))
    cosine = jnp.einsum("cnk,ck->cn", offset, forward) / (distance + 1e-3)
    seen = (cosine > 0.9) & placed.active & (distance > 1.1)
    weight = np.array([item.interest for item in ITEMS], np.float32)
    value = jnp.sum(jnp.where(seen, weight / (0.6 + 0.2 * distance), 0.0), axis=-1)
    # Metres to the wall straight ahead.
    wall = jnp.where(forward > 0, room[:2] - position[:, :2], position[:, :2])
    ahead = jnp.min(wall / jnp.maximum(jnp.abs(forward), 1e-3), axis=-1)

    def inside(margin):
        low, high = placed.low[:, :2] - margin, placed.high[:, :2] + margin
        plan = position[:, None, :2]
        near = jnp.all((plan > low) & (plan < high), axis=-1)
        return jnp.any(
            near & placed.active & (placed.low[:, 2] < position[:, None, 2] + 0.1), axis=-1
        )

    blocked = jnp.where(inside(0.1), -1e6, jnp.where(inside(0.35), -1e3, 0.0))
    return 1.2 * value - 2.0 * jnp.maximum(0.0, 2.7 - ahead) + blocked


def _rotation(heading, pitch, roll):
    """Returns the rotation of a camera, rows right, down, forward; positive pitch looks up."""
    cos, sin = jnp.cos(heading), jnp.sin(heading)
    zero = jnp.zeros_like(cos)
    level = jnp.stack([
        jnp.stack([sin, -cos, zero]), jnp.stack([zero, zero, zero - 1]), jnp.stack([cos, sin, zero])
    ])  # fmt: skip
    c, s = jnp.cos(pitch), jnp.sin(pitch)
    one = jnp.ones_like(c)
    tilt = jnp.stack([
        jnp.stack([one, zero, zero]), jnp.stack([zero, c, s]), jnp.stack([zero, -s, c])
    ])  # fmt: skip
    c, s = jnp.cos(roll), jnp.sin(roll)
    turn = jnp.stack([
        jnp.stack([c, s, zero]), jnp.stack([-s, c, zero]), jnp.stack([zero, zero, one])
    ])  # fmt: skip
    highest = jax.lax.Precision.HIGHEST
    return jnp.matmul(turn, jnp.matmul(tilt, level, precision=highest), precision=highest)


def _priority(solids: Primitives, camera: Camera) -> jax.Array:
    """Returns the apparent size of each solid, f32[N] > 0, plus 1 for solids in view."""
    offset = solids.centre - camera.position
    right, down, forward = jnp.sum(camera.rotation[:, None] * offset, axis=-1)
    radius = jnp.sqrt(jnp.sum(solids.half**2, axis=-1))
    reach = 0.5 / camera.focal * jnp.maximum(forward, 0.0)
    margin = 1.3 * radius + 0.15
    seen = (
        (forward > -radius) & (jnp.abs(right) < reach + margin) & (jnp.abs(down) < reach + margin)
    )
    size = radius / (radius + jnp.sqrt(jnp.sum(offset**2, axis=-1)))
    return size + seen.astype(jnp.float32)
