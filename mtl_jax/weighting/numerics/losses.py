"""Functions of losses of which some are absent or zero."""

import jax
import jax.numpy as jnp

# Losses, which are then not negative, count as at least this where their logarithm or inverse is
# taken.
SMALLEST_LOSS = 1e-8


def logarithms(losses: jax.Array) -> jax.Array:
    """Returns log L f32[K] of losses of at least `SMALLEST_LOSS`.

    Below that its derivative is 1 / SMALLEST_LOSS: a loss of zero must not have an infinite weight.
    """
    floor = jnp.maximum(losses, SMALLEST_LOSS)
    # The derivative of the maximum would be 0 below the floor and leave the task without weight.
    return jnp.log(jax.lax.stop_gradient(floor)) + (losses - jax.lax.stop_gradient(losses)) / (
        jax.lax.stop_gradient(floor)
    )


def masked_softmax(logits: jax.Array, takes_part: jax.Array) -> jax.Array:
    """Returns the softmax f32[K] over the tasks that take part, 0 for the others."""
    # If no task takes part, all count: the weights are then ignored, but must be numbers.
    takes_part = takes_part | ~jnp.any(takes_part)
    return jax.nn.softmax(jnp.where(takes_part, logits, -jnp.inf))


def count(takes_part: jax.Array) -> jax.Array:
    """Returns how many tasks take part, f32[], at least 1."""
    return jnp.maximum(jnp.sum(takes_part, dtype=jnp.float32), 1.0)
