"""From (seed, index) to an image of a room with its exact labels: a pure, jittable function."""

import functools
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from datasets.rooms import primitives as prim
from datasets.rooms import raycast, scene, textures
from datasets.rooms.raycast import Vector
from datasets.rooms.scene import Scene
from mtl_jax import parallel

# Rays of a pixel, as (x, y) in pixels from its centre; labels come from the first.
SAMPLES = np.array([(0.0, 0.0), (0.36, 0.13), (-0.3, 0.3), (-0.1, -0.4)], np.float32)


class Surface(NamedTuple):
    """What rays hit: f32[R] each, or tuples of three, except `label` i32[R]."""

    distance: jax.Array
    point: Vector
    normal: Vector
    colour: Vector
    glow: jax.Array
    window: jax.Array
    label: jax.Array


def render(
    seed: jax.Array,
    index: jax.Array,
    *,
    height: int,
    width: int,
    textures: bool = True,
    light: bool = True,
) -> dict[str, jax.Array]:
    """Renders view number `index` of the endless series that belongs to `seed`.

    Args:
      seed: i32[] or a plain number.
      index: i32[] or a plain number; each gives another room.
      height, width: of the image in pixels.
      textures: whether surfaces have patterns; otherwise each has a single colour.
      light: whether the room is lit, with shading and shadows; otherwise a surface looks the same
        wherever it is.

    Returns:
      image u8[H, W, 3], image_right u8[H, W, 3] of a camera `baseline` metres to the right,
      segmentation i8[H, W] in 0..12, depth f32[H, W] in metres along the optical axis,
      normals f32[H, W, 3] in the camera's frame (x right, y down, z forward), unit, facing it,
      intrinsics f32[4] (fx, fy, cx, cy in pixels, pixel centres at whole numbers), baseline f32[].
    """
    room, noise_key = _scene(_key(seed, index))
    surface = _look(room, height, width, textured=textures)
    radiance = (_radiance if light else _unlit)(room, surface)
    return _develop(noise_key, room, surface, radiance, height, width)


def render_batch(
    seed, indices, *, height: int, width: int, textures: bool = True, light: bool = True
) -> dict[str, jax.Array]:
    """Renders the views of indices i32[B] at once; each array gets a leading axis B."""
    devices = tuple(jax.local_devices()[:1])
    renderer = make_renderer(devices, height=height, width=width, textures=textures, light=light)
    views = renderer(_keys(seed, indices)[None])
    return {name: array[0] for name, array in views.items()}


@functools.cache
def make_renderer(
    devices: tuple[jax.Device, ...],
    *,
    height: int,
    width: int,
    cameras: int = 2,
    textures: bool = True,
    light: bool = True,
) -> Callable[[jax.Array], dict[str, jax.Array]]:
    """Makes the function that renders the rooms of keys [D, B / D], spread over the devices.

    It is compiled in stages. As one program, XLA takes twice as long to compile it and shades each
    surface again for everything that depends on it.

    Args:
      devices: D devices.
      height, width: of the images in pixels.
      cameras: 2, or 1 for views without `image_right`, which cost half as much.
      textures, light: as in `render`.
    """
    look = partial(_look, height=height, width=width, cameras=cameras, textured=textures)
    scenes = _on_devices(_scene, devices)
    looks = _on_devices(look, devices)
    radiances = _on_devices(_radiance if light else _unlit, devices)
    developed = _on_devices(partial(_develop, height=height, width=width), devices)

    def renderer(keys: jax.Array) -> dict[str, jax.Array]:
        rooms, noise_keys = scenes(keys)
        surfaces = looks(rooms)
        return developed(noise_keys, rooms, surfaces, radiances(rooms, surfaces))

    return renderer


# What needs no size is compiled once for all sizes.
@functools.cache
def _on_devices(function: Callable, devices: tuple[jax.Device, ...]) -> Callable:
    """Maps a function of one view over arrays [D, B / D, ...] of D devices and compiles it."""

    def each(_, views):
        return jax.vmap(function)(*views)

    mapped = parallel.data_parallel(each, devices, out_axes=0)
    return lambda *views: mapped((), views)


def stored(views: dict[str, jax.Array]) -> dict[str, jax.Array]:
    """Returns views in the types in which a prepared set has them."""
    halved = {name: views[name].astype(jnp.float16) for name in ("depth", "normals")}
    return {**views, **halved}


def _key(seed, index) -> jax.Array:
    return jax.random.fold_in(jax.random.key(seed), index)


def _scene(key: jax.Array) -> tuple[Scene, jax.Array]:
    room_key, noise_key = jax.random.split(key)
    return scene.make(room_key), noise_key


def intrinsics(focal: jax.Array, height: int, width: int) -> jax.Array:
    """Returns fx, fy, cx, cy f32[4] in pixels; `focal` is a multiple of the width."""
    pixels = focal * width
    return jnp.stack([pixels, pixels, jnp.float32((width - 1) / 2), jnp.float32((height - 1) / 2)])


def _look(room: Scene, height: int, width: int, cameras: int = 2, textured: bool = True) -> Surface:
    """Returns what the rays of the left and right camera hit, arrays [C, SAMPLES * H * W]."""
    camera = room.camera
    fx, fy, cx, cy = intrinsics(camera.focal, height, width)
    columns = jnp.arange(width, dtype=jnp.float32) + SAMPLES[:, 0, None, None]
    rows = jnp.arange(height, dtype=jnp.float32)[:, None] + SAMPLES[:, 1, None, None]
    shape = (len(SAMPLES), height, width)
    x = jnp.broadcast_to((columns - cx) / fx, shape).reshape(-1)
    y = jnp.broadcast_to((rows - cy) / fy, shape).reshape(-1)
    # The z of a direction in the camera's frame is one, so the ray parameter is the depth.
    right, down, forward = camera.rotation
    direction = tuple(x * right[i] + y * down[i] + forward[i] for i in range(3))
    offsets = np.arange(cameras, dtype=np.float32)[:, None] * camera.baseline * right

    def seen_from(offset: jax.Array) -> Surface:
        return _surface(room, tuple(camera.position + offset), direction, textured)

    return jax.vmap(seen_from)(offsets)


def _surface(room: Scene, origin: Vector, direction: Vector, textured: bool) -> Surface:
    solid_at, index = raycast.nearest(room, origin, direction)
    wall_at, axis = raycast.walls(room, origin, direction)
    on_solid = solid_at < wall_at
    distance = jnp.minimum(solid_at, wall_at)
    point = tuple(o + distance * d for o, d in zip(origin, direction, strict=True))
    solid = _solid_surface(room, point, jnp.maximum(index, 0))
    wall = _wall_surface(room, point, direction, axis)
    chosen = jax.tree.map(lambda a, b: jnp.where(on_solid, a, b), solid, wall)
    normal, uv, colour, accent, scale, texture, seed, glow, label, front = chosen
    u, v, s, t = uv
    tint, glows = textures.surface_colour(texture, u, v, s, t, front, colour, accent, scale, seed)
    window = (texture == textures.PANES) & front
    tint = tint if textured else colour
    return Surface(distance, point, normal, tint, glow * glows, window, label)


def _wall_surface(room: Scene, point: Vector, direction: Vector, axis: jax.Array):
    """Returns the properties of walls, floor and ceiling at points; see `_solid_surface`."""
    x, y, z = point
    normal = tuple(jnp.where(axis == i, -jnp.sign(direction[i]), 0.0) for i in range(3))
    flat = axis == 2
    ceiling = flat & (direction[2] > 0)
    kind = jnp.where(flat, jnp.where(ceiling, 2, 1), 0)
    u = jnp.where(axis == 0, y, x)
    v = jnp.where(flat, y, z)

    look = [
        jnp.where(kind == 0, wall, jnp.where(kind == 1, floor, ceiling))
        for wall, floor, ceiling in room.surfaces.T
    ]
    # A skirting board runs along the walls.
    skirting = (kind == 0) & (z < 0.09)
    colour = tuple(jnp.where(skirting, jnp.minimum(1.3 * c, 0.85), c) for c in look[1:4])
    texture = jnp.where(skirting, textures.PLAIN, look[0].astype(jnp.int32))
    label = jnp.where(kind == 0, prim.WALL, jnp.where(kind == 1, prim.FLOOR, prim.CEILING))
    zero = jnp.zeros_like(u)
    uv, accent, scale = (u, v, zero, zero), tuple(look[4:7]), tuple(look[7:9])
    seed, front = room.seed + kind, jnp.zeros(u.shape, bool)
    return normal, uv, colour, accent, scale, texture, seed, zero, label, front


def _solid_surface(room: Scene, point: Vector, index: jax.Array):
    """Returns normal, (u, v, s, t), colour, accent, scale, texture, seed, glow, label, front."""
    shapes, parts = zip(*raycast.groups(room), strict=True)
    solids = jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *parts)
    look = solids.material
    turn = jnp.stack([jnp.cos(solids.yaw), jnp.sin(solids.yaw)], axis=1)
    looks = (look.colour, look.accent, look.scale, look.glow[:, None])
    reals = jnp.concatenate([solids.centre, solids.half, turn, *looks], axis=1)[index]
    whole = jnp.stack([solids.shape, solids.label, solids.seed, look.texture], axis=1)[index]
    cx, cy, cz, hx, hy, hz, cos, sin, *rest = reals.T
    shape, label, seed, texture = whole.T
    dx, dy, z = point[0] - cx, point[1] - cy, point[2] - cz
    x, y = cos * dx + sin * dy, cos * dy - sin * dx
    s = (x / hx, y / hy, z / hz)
    local = _local_normal(shape, s, (hx, hy, hz))
    normal = (cos * local[0] - sin * local[1], sin * local[0] + cos * local[1], local[2])
    a = tuple(jnp.abs(c) for c in local)
    along_z = (a[2] > a[0]) & (a[2] > a[1])
    along_x = (a[0] > a[1]) & ~along_z
    around = jnp.arctan2(y, x) * hx
    curved = (shape != prim.BOX) & ~along_z
    u = jnp.where(curved, around, jnp.where(along_x, y, x))
    v = jnp.where(along_z, y, z)
    uv = (u, v, jnp.where(along_x, s[1], s[0]), jnp.where(along_z, s[1], s[2]))
    front = (local[1] < -0.5) & (shape == prim.BOX)
    colour, accent, scale, glow = tuple(rest[0:3]), tuple(rest[3:6]), tuple(rest[6:8]), rest[8]
    return normal, uv, colour, accent, scale, texture, seed, glow, label, front


def _local_normal(shape: jax.Array, s: Vector, half: Vector) -> Vector:
    """Returns the outward unit normal at point s of a solid that spans -1..1, in its own frame."""
    size = tuple(jnp.abs(c) for c in s)
    on_z = (size[2] >= size[0]) & (size[2] >= size[1])
    on_x = (size[0] > size[1]) & ~on_z
    faces = (on_x, ~on_x & ~on_z, on_z)
    box = tuple(jnp.where(f, jnp.sign(c), 0.0) for f, c in zip(faces, s, strict=True))
    ball = tuple(c / h for c, h in zip(s, half, strict=True))
    cap = size[2] > jnp.sqrt(s[0] ** 2 + s[1] ** 2)
    side = (ball[0], ball[1], jnp.zeros_like(s[2]))
    top = (jnp.zeros_like(s[0]), jnp.zeros_like(s[0]), jnp.sign(s[2]))
    tube = tuple(jnp.where(cap, a, b) for a, b in zip(top, side, strict=True))
    chosen = tuple(
        jnp.where(shape == prim.BOX, a, jnp.where(shape == prim.ELLIPSOID, b, c))
        for a, b, c in zip(box, ball, tube, strict=True)
    )
    length = jnp.sqrt(sum(c * c for c in chosen))
    return tuple(c / length for c in chosen)


def _radiance(room: Scene, surface: Surface) -> jax.Array:
    """Returns the light that surfaces [C, R] send to the cameras, linear RGB f32[C, 3, R]."""
    return jax.vmap(partial(_shade, room))(surface)


def _unlit(room: Scene, surface: Surface) -> jax.Array:
    """Returns the colours of surfaces [C, R] in place of the light that they send."""
    del room
    return jnp.stack(surface.colour, axis=1)


def _shade(room: Scene, surface: Surface) -> jax.Array:
    """Returns the light that surfaces [R] send to the camera, linear RGB f32[3, R]."""
    light = room.light
    lifted = tuple(p + 4e-3 * n for p, n in zip(surface.point, surface.normal, strict=True))
    # Each ray of a pixel looks at another quarter of the lamp, and each pixel at another spot in
    # it, which gives soft shadows without bands.
    rays = surface.distance.shape[0]
    corner = jnp.repeat(light.corners, rays // len(SAMPLES), axis=0).T
    middle = jnp.mean(light.corners, axis=0)
    number = jnp.arange(rays, dtype=jnp.int32)
    spread = jnp.sqrt(textures.hash01(number, number, number))
    corner = tuple(m + (c - m) * 1.3 * spread for m, c in zip(middle, corner, strict=True))
    towards = tuple(c - p for c, p in zip(corner, lifted, strict=True))
    squared = sum(c * c for c in towards)
    facing = sum(c * n for c, n in zip(towards, surface.normal, strict=True)) / jnp.sqrt(squared)
    visible = 1 - raycast.shadowed(room, lifted, towards).astype(jnp.float32)
    direct = visible * jnp.maximum(facing, 0.0) * 3.2 / (1.5 + squared)
    openness = _openness(room, surface)
    sky = 0.85 + 0.15 * surface.normal[2]
    glow = surface.glow * jnp.where(surface.window, light.outside, 1.0)
    return jnp.stack(
        [
            c
            * (
                light.colour[i] * direct * (0.6 + 0.4 * openness)
                + light.ambient[i] * openness * sky
                + glow
            )
            for i, c in enumerate(surface.colour)
        ]
    )


def _openness(room: Scene, surface: Surface) -> jax.Array:
    """Returns the share 0..1 of ambient light at each point: less where something is close."""
    reach = 0.25
    probe = tuple(p + reach * n for p, n in zip(surface.point, surface.normal, strict=True))
    near = raycast.clearance(room, probe)
    for value, extent in zip(probe, room.room, strict=True):
        near = jnp.minimum(near, jnp.minimum(value, extent - value))
    return 0.2 + 0.8 * jnp.clip(near / reach, 0.0, 1.0)


def _develop(noise_key, room: Scene, surface: Surface, radiance: jax.Array, height, width):
    """Makes the views: images from radiance f32[C, 3, R], labels from each pixel's first ray."""
    exposed = radiance * _exposure(room, radiance[0])
    averaged = jnp.mean(exposed.reshape(-1, 3, len(SAMPLES), height, width), axis=2)
    images = _encode(noise_key, jnp.moveaxis(averaged, 1, -1), room.light.noise)
    first = jax.tree.map(lambda leaf: leaf[0].reshape(len(SAMPLES), height, width)[0], surface)
    return {
        **dict(zip(("image", "image_right"), images, strict=False)),
        "segmentation": first.label.astype(jnp.int8),
        "depth": first.distance,
        "normals": _to_camera(room.camera.rotation, first.normal),
        "intrinsics": intrinsics(room.camera.focal, height, width),
        "baseline": room.camera.baseline,
    }


def _exposure(room: Scene, radiance: jax.Array) -> jax.Array:
    """Returns the gain for the desired mean brightness, in steps of an eighth of a stop.

    Without steps, the image would depend on the last bits of the mean, and these on the order of
    summation.
    """
    mean = jnp.mean(jnp.minimum(radiance, 1.0))
    stops = jnp.log2(room.light.exposure / jnp.maximum(mean, 1e-4))
    return jnp.exp2(jnp.round(stops * 8) / 8)


def _encode(key: jax.Array, light: jax.Array, noise: jax.Array) -> jax.Array:
    """Turns exposed linear RGB f32[C, H, W, 3] into sRGB u8[C, H, W, 3] with sensor noise."""
    shoulder = light * (1 + 0.1 * light) / (1 + 0.35 * light)
    encoded = jnp.clip(shoulder, 0.0, 1.0) ** (1 / 2.2)
    grain = jax.random.normal(key, encoded.shape, jnp.float32)
    noisy = encoded + noise * grain * (0.6 + 0.8 * jnp.sqrt(encoded))
    return jnp.round(jnp.clip(noisy, 0.0, 1.0) * 255).astype(jnp.uint8)


def _to_camera(rotation: jax.Array, normal: Vector) -> jax.Array:
    """Turns world normals, three f32[H, W], into f32[H, W, 3] in the camera's frame."""
    return jnp.stack([sum(r[i] * normal[i] for i in range(3)) for r in rotation], axis=-1)


_keys = jax.jit(jax.vmap(_key, (None, 0)))
