"""PCGrad: gradient surgery."""

from collections.abc import Callable
from typing import TypeVar

import jax
import jax.numpy as jnp

from mtl_jax.weighting.contract import Diagnostics, Present, PyTree, Weighting
from mtl_jax.weighting.from_gram import from_gram_update

Carry = TypeVar("Carry", bound=PyTree)


def pcgrad() -> Weighting:
    """PCGrad: the part of each gradient that opposes another task's is removed.

        if g_i . g_j < 0:  g_i -= (g_i . g_j) / |g_j|^2 g_j

    This is done for every task i and, in random order, every other task j; g_i is the gradient
    after the projections so far, and g_j the original one. The update follows the sum of the
    results, which without conflict is that of `equal`. Every result is a combination of the
    gradients, so the Gram matrix is enough to compute it: row i of the coefficients C says that
    task i's gradient has become sum_j C_ij g_j.

    Source: Yu et al., "Gradient Surgery for Multi-Task Learning", NeurIPS 2020.
    Heads: follow their own losses, with weight one.
    """

    def update(signals: Present, state: PyTree) -> tuple[jax.Array, PyTree, Diagnostics]:
        gram = signals.gram

        def meet(i: jax.Array, row: jax.Array, j: jax.Array) -> jax.Array:
            opposed = jnp.minimum(jnp.sum(row * gram[:, j]), 0.0)
            return row.at[j].add(-ratio(opposed, gram[j, j]))

        rows = walk(meet, signals.key, signals.takes_part, identity(gram))
        return jnp.sum(rows, axis=0), state, {}

    return from_gram_update(update, plain_heads=True, needs_key=True)


def walk(
    meet: Callable[[jax.Array, Carry, jax.Array], Carry],
    key: jax.Array,
    takes_part: jax.Array,
    carry: Carry,
) -> Carry:
    """Lets each task that takes part meet every other such task once, in random order.

    Args:
      meet: (task i, its carry, task j) -> its carry.
      key: random key of the orders.
      takes_part: bool[K].
      carry: the carries of all tasks, a pytree of leaves [K, ...].
    """
    tasks = jnp.arange(len(takes_part))

    def walk_of(i: jax.Array, carry: Carry) -> Carry:
        order = jax.random.permutation(jax.random.fold_in(key, i), tasks)

        def visit(carry: Carry, j: jax.Array) -> tuple[Carry, None]:
            met = meet(i, carry, j)
            counts = takes_part[i] & takes_part[j] & (i != j)
            return jax.tree.map(lambda a, b: jnp.where(counts, a, b), met, carry), None

        return jax.lax.scan(visit, carry, order)[0]

    return jax.vmap(walk_of)(tasks, carry)


def identity(gram: jax.Array) -> jax.Array:
    """Returns the coefficients f32[K, K] of all gradients before any has met another."""
    return jnp.eye(len(gram), dtype=jnp.float32)


def ratio(numerator: jax.Array, denominator: jax.Array) -> jax.Array:
    """Returns the quotient, 0 where the denominator is 0."""
    zero = denominator == 0
    return jnp.where(zero, 0.0, numerator / jnp.where(zero, 1.0, denominator))
