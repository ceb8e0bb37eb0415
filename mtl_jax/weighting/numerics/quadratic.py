"""Small convex quadratic programs, solved to the vertex on the device.

    minimise  x'Qx / 2 + q'x   over x >= 0,    Q a Gram matrix,

is the common core of the min-norm point of a simplex, the projection on the dual cone of the
gradients and CAGrad's direction. The solution is the lowest minimum over the 2^K faces, on each of
which some variables are 0 and the others solve linear equations. For a few variables all faces are
solved at once, without a loop. For more, the active set method of Lawson and Hanson ("Solving Least
Squares Problems", 1974) is exact after finitely many steps, each the solution of one face.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mtl_jax.weighting.numerics.matrix import normalize, product
from mtl_jax.weighting.numerics.small import FEW, factorize

# Added to a unit diagonal: gradients that oppose or repeat each other make Q singular.
RIDGE = 1e-6
# A variable is freed if that lowers the scaled objective at more than this rate.
TOLERANCE = 1e-5


class _Search(NamedTuple):
    x: jax.Array  # f32[K], feasible
    free: jax.Array  # bool[K], variables that may be positive
    steps: jax.Array  # i32[]
    done: jax.Array  # bool[]


def nonnegative(matrix: jax.Array, linear: jax.Array) -> jax.Array:
    """Returns the x >= 0 that minimises x'Qx / 2 + q'x.

    Args:
      matrix: Q, f32[K, K], positive semidefinite; it gets a ridge of 1e-6 of its diagonal. A
        variable whose diagonal entry is 0 stays 0.
      linear: q, f32[K].

    Returns:
      f32[K], large where only the ridge bounds the minimum.
    """
    scaled, scales = normalize(matrix)
    present = jnp.diagonal(matrix) > 0
    scaled = scaled + jnp.diag(jnp.where(present, RIDGE, 1.0))
    q = jnp.where(present, linear / scales, 0.0)
    size = jnp.max(jnp.abs(q))
    size = jnp.where(size > 0, size, 1.0)  # the solution is as long as q: both are scaled to one
    q = q / size
    search = _best_face if len(q) <= FEW else _active_set
    return jnp.where(present, size * search(scaled, q, present) / scales, 0.0)


def _best_face(matrix: jax.Array, linear: jax.Array, present: jax.Array) -> jax.Array:
    """Returns the lowest minimum over the faces on which some variables are 0."""
    size = len(linear)
    free = jnp.asarray((np.arange(2**size)[:, None] >> np.arange(size)) % 2 == 1)  # [2^K, K]
    x = jax.vmap(_solve, (None, None, 0))(matrix, -linear, free)
    values = 0.5 * jnp.sum(linear * x, axis=1)
    values = jnp.where(jnp.all(x >= 0, axis=1), values, jnp.inf)
    lowest = jnp.min(values)
    rates = -(jax.vmap(product, (None, 0))(matrix, x) + linear)
    rate = jnp.max(jnp.where(free | ~present, -jnp.inf, rates), axis=1)
    # Where rounding hides which value is the lowest, the rates decide.
    near = values <= lowest + 1e-6 * jnp.abs(lowest)
    return x[jnp.argmin(jnp.where(near, rate, jnp.inf))]


def _active_set(matrix: jax.Array, linear: jax.Array, present: jax.Array) -> jax.Array:
    """Returns the minimum, reached by freeing one variable at a time."""
    limit = 5 * len(linear) + 5

    def advance(search: _Search) -> _Search:
        target = _solve(matrix, -linear, search.free)
        blocked = search.free & (target <= 0)
        # As far towards the target as no variable becomes negative.
        ratio = jnp.where(blocked, search.x / (search.x - target), jnp.inf)
        reach = jnp.minimum(1.0, jnp.min(ratio))
        x = jnp.maximum(search.x + reach * (target - search.x), 0.0)
        bound = jnp.any(blocked)
        x = jnp.where(bound, jnp.where(blocked & (ratio <= reach), 0.0, x), target)
        kept = search.free & (x > 0)
        rate = jnp.where(kept | ~present, -jnp.inf, -(product(matrix, x) + linear))
        best = jnp.argmax(rate)
        freed = kept.at[best].set(True)
        done = ~bound & (rate[best] <= TOLERANCE)
        free = jnp.where(bound | done, kept, freed)
        return _Search(x, free, search.steps + 1, done)

    zero = jnp.zeros_like(linear)
    start = _Search(zero, zero > 0, jnp.zeros((), jnp.int32), jnp.zeros((), bool))
    found = jax.lax.while_loop(lambda search: ~search.done & (search.steps < limit), advance, start)
    return found.x


def _solve(matrix: jax.Array, right: jax.Array, free: jax.Array) -> jax.Array:
    """Solves the equations of the free variables; the others are 0."""
    both = free[:, None] & free
    identity = jnp.eye(len(right), dtype=matrix.dtype)
    solve = factorize(jnp.where(both, matrix, identity))
    right = jnp.where(free, right, 0.0)
    x = solve(right)
    # One step of refinement: with strong conflict half the digits are lost.
    rest = right - jnp.where(free, product(matrix, x), 0.0)
    return x + solve(rest)


def project_on_dual_cone(gram: jax.Array, wanted: jax.Array) -> jax.Array:
    """Returns the v >= u f32[K] with the smallest v'Gv.

    Of the directions that conflict with no gradient, sum_i v_i g_i is the nearest to sum_i u_i g_i.

    Args:
      gram: G, f32[K, K].
      wanted: u, f32[K].
    """
    return wanted + nonnegative(gram, product(gram, wanted))
