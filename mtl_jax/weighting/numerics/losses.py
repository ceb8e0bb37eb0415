"""Functions of losses of which some are absent."""

import jax
import jax.numpy as jnp

# Losses that are not negative, but for rounding, count as at least this where their logarithm,
# inverse or ratio is taken: a weight 1 / L is then at most a million.
SMALLEST_LOSS = 1e-6


def masked_softmax(logits: jax.Array, takes_part: jax.Array) -> jax.Array:
    """Returns the softmax f32[K] over the tasks that take part, 0 for the others."""
    # If no task takes part, all count: the weights are then ignored, but must be numbers.
    takes_part = takes_part | ~jnp.any(takes_part)
    return jax.nn.softmax(jnp.where(takes_part, logits, -jnp.inf))


def count(takes_part: jax.Array) -> jax.Array:
    """Returns how many tasks take part, f32[], at least 1."""
    return jnp.maximum(jnp.sum(takes_part, dtype=jnp.float32), 1.0)
