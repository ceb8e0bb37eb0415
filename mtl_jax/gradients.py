"""Per-task gradients by `jax.vmap` over the tasks, their Gram matrix, combining them."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp


def task_gradients(pullback: Callable[[jax.Array], tuple[Any]], cotangents: jax.Array) -> Any:
    """Gradients of K losses of which one function's output is all they share.

    One forward pass (the caller's `jax.vjp`), then K backward passes as one vmapped one.

    Args:
      pullback: what `jax.vjp` returned for a function of one argument, parameters -> features.
      cotangents: [K, *features], the gradients of the K losses at the features.

    Returns:
      A pytree like the parameters, its leaves [K, ...].
    """
    return jax.vmap(pullback)(cotangents)[0]


def gram(gradients: Any) -> jax.Array:
    """Inner products f32[K, K] of K gradients.

    Args:
      gradients: pytree of leaves [K, ...].
    """

    def leaf(x: jax.Array) -> jax.Array:
        x = x.reshape(x.shape[0], -1).astype(jnp.float32)  # [K, n]
        return jnp.matmul(x, x.T, precision=jax.lax.Precision.HIGHEST)

    return sum(leaf(x) for x in jax.tree.leaves(gradients))


def combine(gradients: Any, weights: jax.Array) -> Any:
    """The sum of K gradients, each times its weight.

    Args:
      gradients: pytree of leaves [K, ...].
      weights: f32[K].

    Returns:
      A pytree of leaves [...].
    """

    def leaf(x: jax.Array) -> jax.Array:
        # Full precision: GPUs would else round the gradients to ten bits.
        combined = jnp.tensordot(
            weights, x.astype(jnp.float32), axes=1, precision=jax.lax.Precision.HIGHEST
        )
        return combined.astype(x.dtype)

    return jax.tree.map(leaf, gradients)


def all_finite(tree: Any) -> jax.Array:
    """Whether every entry of every leaf is finite, bool[]."""
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(x)) for x in jax.tree.leaves(tree)]))
