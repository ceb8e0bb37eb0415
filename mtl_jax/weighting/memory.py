"""A memory of the K gradients, for methods that smooth them over the steps."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from mtl_jax.weighting.contract import PyTree
from mtl_jax.weighting.gradients import per_task


class Memory(NamedTuple):
    """Smoothed gradients.

    Attributes:
      gradients: pytree of leaves f32[K, ...].
      count: i32[], steps so far.
    """

    gradients: PyTree
    count: jax.Array


def start(num_tasks: int, shared: PyTree) -> Memory:
    """Returns a memory of zeros for parameters of the given shapes."""
    zeros = jax.tree.map(lambda x: jnp.zeros((num_tasks, *x.shape), jnp.float32), shared)
    return Memory(zeros, jnp.zeros((), jnp.int32))


def move(
    memory: Memory, gradients: PyTree, *, scale: jax.Array, step: jax.Array, takes_part: jax.Array
) -> Memory:
    """Moves the remembered gradients of tasks that take part towards their scaled gradients.

    Args:
      gradients: pytree of leaves [K, ...].
      scale: f32[K], factors of the gradients.
      step: f32[], how far to move, 1 for all the way.
      takes_part: bool[K].
    """

    def leaf(y: jax.Array, g: jax.Array) -> jax.Array:
        moved = y + step * (per_task(scale, g) * g.astype(jnp.float32) - y)
        return jnp.where(per_task(takes_part, g), moved, y)

    return Memory(jax.tree.map(leaf, memory.gradients, gradients), memory.count + 1)


def norms(gradients: PyTree) -> jax.Array:
    """Returns the lengths f32[K] of gradients f32[K, ...]."""
    squares = (jnp.square(g.reshape(len(g), -1)) for g in jax.tree.leaves(gradients))
    return jnp.sqrt(sum(jnp.sum(x, axis=1) for x in squares))


def weighted_sum(gradients: PyTree, weights: jax.Array) -> PyTree:
    """Returns sum_i weight_i g_i of remembered gradients f32[K, ...], leaves f32[...].

    `gradients.combine` adds the same terms one after another, which can change the last digits.
    """
    return jax.tree.map(
        lambda g: jnp.sum(per_task(weights, g) * g.astype(jnp.float32), axis=0), gradients
    )
