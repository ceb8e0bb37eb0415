"""Eigenvalues of a Gram matrix, where rounding turns zeros into small numbers."""

import jax
import jax.numpy as jnp


def eigen(gram: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Returns eigenvalues f32[K], eigenvectors f32[K, K] in columns, and which are not zero."""
    values, vectors = jnp.linalg.eigh(gram)
    smallest = jnp.max(values) * len(values) * jnp.finfo(values.dtype).eps
    return values, vectors, values > smallest


def solve_least_squares(gram: jax.Array, right: jax.Array) -> jax.Array:
    """Returns the shortest x f32[K] of those with the least |G x - right|."""
    values, vectors, counts = eigen(gram)
    inverse = jnp.where(counts, 1.0 / jnp.where(counts, values, 1.0), 0.0)
    highest = jax.lax.Precision.HIGHEST
    along = jnp.matmul(right, vectors, precision=highest)
    return jnp.matmul(vectors, inverse * along, precision=highest)


def is_solvable(solution: jax.Array, right: jax.Array) -> jax.Array:
    """Returns whether a least-squares solution is more than rounding: G right is not zero, bool[].

    Args:
      solution: f32[K], of G x = right.
      right: f32[K].
    """
    return jnp.sum(solution * right) > 1e-10 * jnp.sum(right * right)
