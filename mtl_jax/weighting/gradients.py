"""Per-task gradients by `jax.vmap` over the tasks, their Gram matrix, combining them."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from mtl_jax.weighting.check import check_gradients, check_losses, check_params

# What `jax.vjp` returns for a function of one argument: cotangent -> (gradient,).
Pullback = Callable[[jax.Array], tuple[Any]]
# Up to so many tasks, inner products are faster as sums of one fused pass over the gradients than
# as products of long and thin matrices: for three tasks, four times on CPU.
FEW_TASKS = 6


def task_gradients(losses_of: Callable[[Any], jax.Array], params: Any) -> tuple[jax.Array, Any]:
    """Losses and gradients of any function that returns K losses.

    One forward pass, then K backward passes as one vmapped one.

    Args:
      losses_of: parameters -> f32[K], or a list or tuple of K scalars; it may close over a batch.
      params: any pytree of floating-point arrays: of Flax, Equinox, Haiku, or plain dicts.

    Returns:
      f32[K], and a pytree like the parameters, its leaves [K, ...].

    Raises:
      ValueError: while it is traced, for losses or parameters of another kind.
    """
    check_params(params)
    losses, pullback = jax.vjp(
        lambda params: check_losses(losses_of(params), name="losses_of(params)"), params
    )
    return losses, jax.vmap(pullback)(jnp.eye(len(losses), dtype=losses.dtype))[0]


def pull_back(pullback: Pullback, cotangents: Any) -> Any:
    """Gradients of K losses of which one function's output is all they share.

    One forward pass (the caller's `jax.vjp`), then K backward passes as one vmapped one; on CPU one
    after another, where XLA's convolution gradients are slower for a batch K times as large (of a
    ResNet-18 U-Net and three tasks the whole step by an eighth).

    Args:
      pullback: of a function of one argument, parameters -> features.
      cotangents: the gradients of the K losses at the features, leaves [K, ...].

    Returns:
      A pytree like the parameters, its leaves [K, ...].
    """
    if jax.default_backend() != "cpu":
        return jax.vmap(pullback)(cotangents)[0]
    count = len(jax.tree.leaves(cotangents)[0])
    each = [pullback(jax.tree.map(lambda x, k=k: x[k], cotangents))[0] for k in range(count)]
    return jax.tree.map(lambda *parts: jnp.stack(parts), *each)


def gram(gradients: Any) -> jax.Array:
    """Inner products f32[K, K] of K gradients.

    Args:
      gradients: pytree of leaves [K, ...].

    Raises:
      ValueError: while it is traced, for gradients that are not stacked, or not of floating-point
        numbers.
    """
    check_gradients(gradients)
    return inner_products(gradients, gradients)


def inner_products(first: Any, second: Any) -> jax.Array:
    """Inner products f32[K, K] of K gradients with K others.

    Args:
      first: pytree of leaves [K, ...], by which the rows count.
      second: the same, by which the columns count.
    """

    def leaf(x: jax.Array, y: jax.Array) -> jax.Array:
        count = x.shape[0]
        if count > FEW_TASKS:
            x, y = (z.reshape(count, -1).astype(jnp.float32) for z in (x, y))  # [K, n]
            return jnp.matmul(x, y.T, precision=jax.lax.Precision.HIGHEST)
        width = x.shape[-1] if x.ndim > 1 and x.size else 1
        x, y = (z.reshape(count, -1, width).astype(jnp.float32) for z in (x, y))  # [K, n, width]
        return jnp.sum(jnp.sum(x[:, None] * y, axis=2), axis=2)

    return sum(jax.tree.leaves(jax.tree.map(leaf, first, second)))


def combine(gradients: Any, weights: jax.Array) -> Any:
    """The sum of K gradients, each times its weight.

    Args:
      gradients: pytree of leaves [K, ...].
      weights: f32[K].

    Returns:
      A pytree of leaves [...]. A weight of 0 does not hide an entry that is not finite: `select`
      does.

    Raises:
      ValueError: while it is traced, for leaves that are not the gradients of as many tasks.
    """
    check_gradients(gradients, num_tasks=len(weights))

    def leaf(x: jax.Array) -> jax.Array:
        # Term by term, which XLA fuses: as a product of a vector and a matrix it takes twice as
        # long, and GPUs would round the gradients to ten bits.
        terms = [weight * each.astype(jnp.float32) for weight, each in zip(weights, x, strict=True)]
        return sum(terms).astype(x.dtype)

    return jax.tree.map(leaf, gradients)


def select(gradients: Any, present: jax.Array) -> Any:
    """K gradients, those of absent tasks replaced by zeros.

    Args:
      gradients: pytree of leaves [K, ...].
      present: bool[K].
    """

    def leaf(x: jax.Array) -> jax.Array:
        return jnp.where(present.reshape(-1, *[1] * (x.ndim - 1)), x, jnp.zeros_like(x))

    return jax.tree.map(leaf, gradients)


def scale(gradient: Any, weight: jax.Array) -> Any:
    """One gradient times a weight f32[]."""
    return jax.tree.map(lambda x: weight.astype(x.dtype) * x, gradient)


def all_finite(tree: Any) -> jax.Array:
    """Whether every entry of every leaf is finite, bool[]."""
    # One reduction a leaf: XLA compiles this many times faster than a test of every entry.
    leaves = [x for x in jax.tree.leaves(tree) if x.size]
    if not leaves:
        return jnp.array(True)
    largest = [jnp.max(jnp.abs(x)).astype(jnp.float32) for x in leaves]
    return jnp.all(jnp.isfinite(jnp.stack(largest)))
