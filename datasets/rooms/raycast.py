"""Intersection of rays and the solids of a room: nearest hits, shadows, distances.

A bundle of rays is three arrays f32[R] for the origins (or three numbers, one origin for all) and
three for the directions. The components are kept apart, so that every step is plain vector
arithmetic.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from datasets.rooms import primitives as prim
from datasets.rooms.primitives import Primitives
from datasets.rooms.scene import Scene

# x, y, z.
Vector = tuple[jax.Array, ...]

FAR = 1e4
NEAR = 1e-3
# Solids tested in one pass over the rays: more of them take fewer passes through memory, but longer
# to compile. The numbers of solids are multiples of it, at least twice as large: XLA would inline
# the remainder of the loop into everything that uses the result, and compute it there repeatedly.
UNROLL = 6


class Frame(NamedTuple):
    """The local frames of N solids: f32[N] each."""

    centre: Vector
    inverse_half: Vector
    smallest: jax.Array
    cos: jax.Array
    sin: jax.Array


def frames(solids: Primitives) -> Frame:
    """Returns what the rays need to know about the solids."""
    return Frame(
        centre=tuple(solids.centre.T),
        inverse_half=tuple(1 / solids.half.T),
        smallest=jnp.min(solids.half, axis=-1),
        cos=jnp.cos(solids.yaw),
        sin=jnp.sin(solids.yaw),
    )


def to_local(frame: Frame, vector: Vector, point: bool) -> Vector:
    """Returns a point or direction in the frame in which the solid spans -1..1 along each axis."""
    x, y, z = vector
    if point:
        x, y, z = (value - c for value, c in zip(vector, frame.centre, strict=True))
    turned = (frame.cos * x + frame.sin * y, frame.cos * y - frame.sin * x, z)
    return tuple(value * s for value, s in zip(turned, frame.inverse_half, strict=True))


def _box_span(o: Vector, d: Vector):
    """Returns where a ray enters and leaves the cube -1..1."""
    inverse = [1 / jnp.where(jnp.abs(c) < 1e-9, 1e-9, c) for c in d]
    middle = [-a * i for a, i in zip(o, inverse, strict=True)]
    reach = [jnp.abs(i) for i in inverse]
    near = [m - r for m, r in zip(middle, reach, strict=True)]
    far = [m + r for m, r in zip(middle, reach, strict=True)]
    return (
        jnp.maximum(jnp.maximum(near[0], near[1]), near[2]),
        jnp.minimum(jnp.minimum(far[0], far[1]), far[2]),
    )


def _round_span(o, d):
    """Returns where a ray enters and leaves a unit circle or ball around the origin."""
    squared = jnp.maximum(sum(c * c for c in d), 1e-12)
    closest = -sum(a * b for a, b in zip(o, d, strict=True)) / squared
    gap = 1 - sum((a + closest * b) ** 2 for a, b in zip(o, d, strict=True))
    reach = jnp.sqrt(jnp.maximum(gap, 0.0) / squared)
    miss = jnp.where(gap > 0, 0.0, FAR)
    return closest - reach + miss, closest + reach - miss


def _cylinder_span(o: Vector, d: Vector):
    near, far = _round_span(o[:2], d[:2])
    inverse = 1 / jnp.where(jnp.abs(d[2]) < 1e-9, 1e-9, d[2])
    middle, reach = -o[2] * inverse, jnp.abs(inverse)
    return jnp.maximum(near, middle - reach), jnp.minimum(far, middle + reach)


_SPANS = {prim.BOX: _box_span, prim.ELLIPSOID: _round_span, prim.CYLINDER: _cylinder_span}


def groups(scene: Scene) -> tuple[tuple[int, Primitives], ...]:
    """Returns the scene's solids by shape, in the order in which hits number them."""
    return (
        (prim.BOX, scene.boxes),
        (prim.ELLIPSOID, scene.ellipsoids),
        (prim.CYLINDER, scene.cylinders),
    )


def _fold(scene: Scene, step, state):
    """Runs step(state, frame, number, shape) over all solids and returns the last state."""
    first = 0
    for shape, solids in groups(scene):
        count = solids.yaw.shape[0]
        numbers = jnp.arange(first, first + count, dtype=jnp.int32)

        def body(state, item, shape=shape):
            return step(state, *item, shape), None

        state, _ = jax.lax.scan(body, state, (frames(solids), numbers), unroll=UNROLL)
        first += count
    return state


def nearest(scene: Scene, origin: Vector, direction: Vector) -> tuple[jax.Array, jax.Array]:
    """Finds the first solid that each ray meets.

    Returns:
      Ray parameter f32[R] (FAR if none) and number of the solid i32[R] (-1 if none).
    """

    def step(state, frame, number, shape):
        best, index = state
        near, far = _SPANS[shape](to_local(frame, origin, True), to_local(frame, direction, False))
        hit = (near < far) & (near > NEAR) & (near < best)
        return jnp.where(hit, near, best), jnp.where(hit, number, index)

    state = jnp.full_like(direction[0], FAR), jnp.full(direction[0].shape, -1, jnp.int32)
    return _fold(scene, step, state)


def shadowed(scene: Scene, origin: Vector, direction: Vector) -> jax.Array:
    """Returns whether a solid lies between origin and origin + direction, bool[R]."""

    def step(state, frame, number, shape):
        near, far = _SPANS[shape](to_local(frame, origin, True), to_local(frame, direction, False))
        return state | ((near < far) & (near < 1) & (far > NEAR))

    return _fold(scene, step, jnp.zeros(direction[0].shape, bool))


def clearance(scene: Scene, point: Vector) -> jax.Array:
    """Returns the approximate distance f32[R] of each point from the nearest solid, in metres."""

    def step(state, frame, number, shape):
        local = to_local(frame, point, True)
        half = [1 / s for s in frame.inverse_half]
        if shape == prim.ELLIPSOID:
            length = jnp.sqrt(sum(c * c for c in local))
            return jnp.minimum(state, ((length - 1) * frame.smallest) ** 2)
        outside = [jnp.maximum(jnp.abs(c) - 1, 0.0) * h for c, h in zip(local, half, strict=True)]
        return jnp.minimum(state, sum(c * c for c in outside))

    return jnp.sqrt(_fold(scene, step, jnp.full_like(point[0], FAR)))


def walls(scene: Scene, origin: Vector, direction: Vector) -> tuple[jax.Array, jax.Array]:
    """Returns where each ray leaves the room: ray parameter f32[R], axis i32[R] of the wall."""
    distances = []
    for o, d, extent in zip(origin, direction, scene.room, strict=True):
        safe = jnp.where(jnp.abs(d) < 1e-9, 1e-9, d)
        distances.append((jnp.where(safe > 0, extent, 0.0) - o) / safe)
    x, y, z = distances
    side = jnp.minimum(x, y)
    axis = jnp.where(z < side, 2, jnp.where(y < x, 1, 0))
    return jnp.minimum(side, z), axis.astype(jnp.int32)
