"""Linear algebra of a few unknowns, written out number by number.

A library call for three unknowns takes a GPU several launches of kernels, each longer than the
arithmetic. Written out, XLA fuses the equations with what comes before and after them.
"""

import jax
import jax.numpy as jnp

# Up to this number of unknowns, equations and sums are written out.
FEW = 8


def solve(matrix: jax.Array, right: jax.Array) -> jax.Array:
    """Returns the x f32[K] with matrix @ x = right.

    Args:
      matrix: f32[K, K], symmetric and positive definite.
      right: f32[K].
    """
    size = len(right)
    if size > FEW:
        return jax.scipy.linalg.solve(matrix, right, assume_a="pos")
    # Gauss elimination. It needs no pivots, and what is left of the matrix stays symmetric.
    rows = [[matrix[i, j] for j in range(size)] for i in range(size)]
    x = [right[i] for i in range(size)]
    for k in range(size):
        for i in range(k + 1, size):
            factor = rows[k][i] / rows[k][k]
            for j in range(i, size):
                rows[i][j] -= factor * rows[k][j]
            x[i] -= factor * x[k]
    for k in reversed(range(size)):
        for j in range(k + 1, size):
            x[k] -= rows[k][j] * x[j]
        x[k] /= rows[k][k]
    return jnp.stack(x)
