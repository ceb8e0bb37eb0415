"""Functions of losses, some of which may be absent."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

# Where the logarithm, inverse or ratio of losses is taken, those that are not negative (but for
# rounding) count as at least this: a weight 1 / L is then at most a million.
SMALLEST_LOSS = 1e-6


def masked_softmax(logits: jax.Array, takes_part: jax.Array) -> jax.Array:
    """Returns the softmax f32[K] over the tasks that take part, 0 for the others."""
    # If no task takes part, all count: the weights are then ignored, but must be finite.
    takes_part = takes_part | ~jnp.any(takes_part)
    return jax.nn.softmax(jnp.where(takes_part, logits, -jnp.inf))


def count(takes_part: jax.Array) -> jax.Array:
    """Returns how many tasks take part, f32[], at least 1."""
    return jnp.maximum(jnp.sum(takes_part, dtype=jnp.float32), 1.0)


class LossSums(NamedTuple):
    """Losses of the steps that a method measures.

    Attributes:
      total: f32[K], their sum.
      count: f32[K], number of these steps with labels of the task.
    """

    total: jax.Array
    count: jax.Array


def no_losses(num_tasks: int) -> LossSums:
    """Returns the sums before the first step."""
    return LossSums(jnp.zeros(num_tasks, jnp.float32), jnp.zeros(num_tasks, jnp.float32))


def add_losses(sums: LossSums, losses: jax.Array, measured: jax.Array) -> LossSums:
    """Adds the losses f32[K] of a step for the tasks that are measured in it, bool[K]."""
    total = sums.total + jnp.where(measured, losses, 0.0)
    return LossSums(total, sums.count + measured.astype(jnp.float32))


def mean_losses(sums: LossSums) -> jax.Array:
    """Returns the mean losses f32[K], 1 for a task that was never measured."""
    return jnp.where(sums.count > 0, sums.total / jnp.maximum(sums.count, 1.0), 1.0)
