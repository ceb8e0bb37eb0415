"""The simplex: weights that are not negative and sum to one."""

import jax
import jax.numpy as jnp
import optax

from mtl_jax.weighting.numerics.losses import count


def uniform(num_tasks: int) -> jax.Array:
    """Returns the middle of the simplex, f32[K]."""
    return jnp.full(num_tasks, 1.0 / num_tasks, jnp.float32)


def among(weights: jax.Array, takes_part: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns the point of the simplex of the tasks that take part, and the sum of their weights.

    A method that multiplies their new weights by that sum, or divides the weights of the others by
    it, leaves the balance between those tasks and the absent ones as it was.

    Args:
      weights: f32[K], not negative.
      takes_part: bool[K].

    Returns:
      f32[K], the weights of those tasks divided by their sum, equal ones if that is zero; and the
      sum f32[], at least 1e-6, since from zero no weight could come back.
    """
    kept = jnp.where(takes_part, weights, 0.0)
    total = jnp.sum(kept)
    equal = takes_part.astype(jnp.float32) / count(takes_part)
    point = jnp.where(total > 0, kept / jnp.where(total > 0, total, 1.0), equal)
    return point, jnp.maximum(total, 1e-6)


def project(weights: jax.Array, takes_part: jax.Array) -> jax.Array:
    """Returns the nearest point of the simplex of the tasks that take part, f32[K]."""
    # An absent task is placed so far below all others that its projection is 0.
    spread = jnp.max(jnp.abs(jnp.where(takes_part, weights, 0.0)))
    weights = jnp.where(takes_part, weights, -2.0 * spread - 2.0)
    with jax.numpy_dtype_promotion("standard"):
        return optax.projections.projection_simplex(weights).astype(jnp.float32)
