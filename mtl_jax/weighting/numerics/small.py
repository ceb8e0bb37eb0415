"""Linear algebra of a few unknowns, written out number by number.

A library call for three unknowns takes a GPU several launches of kernels, each longer than the
arithmetic. Written out, XLA fuses the equations with what comes before and after them.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp

# Up to this number of unknowns, equations and sums are written out.
FEW = 8


def factorize(matrix: jax.Array) -> Callable[[jax.Array], jax.Array]:
    """Returns a function right f32[K] -> the x f32[K] with matrix @ x = right.

    Args:
      matrix: f32[K, K], symmetric and positive definite.
    """
    size = len(matrix)
    if size > FEW:
        return partial(jax.scipy.linalg.cho_solve, jax.scipy.linalg.cho_factor(matrix))
    # Gauss elimination: it needs no pivots, and what is left of the matrix stays symmetric.
    rows = [[matrix[i, j] for j in range(size)] for i in range(size)]
    factors = {}
    for k in range(size):
        for i in range(k + 1, size):
            factors[k, i] = rows[k][i] / rows[k][k]
            for j in range(i, size):
                rows[i][j] -= factors[k, i] * rows[k][j]

    def solve(right: jax.Array) -> jax.Array:
        x = [right[i] for i in range(size)]
        for k in range(size):
            for i in range(k + 1, size):
                x[i] -= factors[k, i] * x[k]
        for k in reversed(range(size)):
            for j in range(k + 1, size):
                x[k] -= rows[k][j] * x[j]
            x[k] /= rows[k][k]
        return jnp.stack(x)

    return solve
