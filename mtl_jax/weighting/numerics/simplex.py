"""The simplex: weights that are not negative and sum to one."""

import jax
import jax.numpy as jnp
import optax


def uniform(num_tasks: int) -> jax.Array:
    """Returns the middle of the simplex, f32[K]."""
    return jnp.full(num_tasks, 1.0 / num_tasks, jnp.float32)


def project(weights: jax.Array, takes_part: jax.Array) -> jax.Array:
    """Returns the nearest point of the simplex of the tasks that take part, f32[K]."""
    # So far below all others, an absent task's weight is 0 there.
    spread = jnp.max(jnp.abs(jnp.where(takes_part, weights, 0.0)))
    weights = jnp.where(takes_part, weights, -2.0 * spread - 2.0)
    with jax.numpy_dtype_promotion("standard"):
        return optax.projections.projection_simplex(weights).astype(jnp.float32)
