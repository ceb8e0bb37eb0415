"""Methods that take the conflict out of pairs of gradients, one pair after another.

Both walk over the other tasks in a random order of their own for each task. They only ever add
multiples of gradients to gradients, so that the Gram matrix knows the result: row i of the
coefficients C says that task i's gradient has become sum_j C_ij g_j. The heads follow their own
losses.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from mtl_jax.weighting.contract import Signals, Weighting
from mtl_jax.weighting.from_gram import by_gram
from mtl_jax.weighting.numerics.quadratic import product


def pcgrad() -> Weighting:
    """PCGrad: from each gradient the part that opposes another task's is taken out.

    Yu et al., "Gradient Surgery for Multi-Task Learning", NeurIPS 2020: if g_i . g_j < 0, then
    g_i -= (g_i . g_j) / |g_j|^2 g_j, g_i being what the tasks before have left of it and g_j as it
    was. Stateless. The sum of the gradients is followed, like `equal` without conflict.
    """

    def solve(
        signals: Signals, takes_part: jax.Array, state: Any
    ) -> tuple[jax.Array, Any, dict[str, jax.Array]]:
        gram = signals.gram

        def meet(i: jax.Array, row: jax.Array, j: jax.Array) -> jax.Array:
            opposed = jnp.minimum(jnp.sum(row * gram[:, j]), 0.0)
            return row.at[j].add(-ratio(opposed, gram[j, j]))

        rows = walk(meet, signals.key, takes_part, identity(gram))
        return jnp.sum(rows, axis=0), state, {}

    return by_gram(lambda num_tasks: (), solve, plain_heads=True, needs_key=True)


def gradvac(*, beta: float = 0.5) -> Weighting:
    """GradVac: gradients are turned towards each other until as similar as they usually are.

    Wang et al., "Gradient Vaccine", ICLR 2021. Where the cosine r of g_i and g_j lies below its
    moving average t, g_i += |g_i| (t sqrt(1 - r^2) - r sqrt(1 - t^2)) / (|g_j| sqrt(1 - t^2)) g_j,
    which gives them the cosine t; then t moves towards r. At t = 0 this is `pcgrad`. All shared
    parameters make one group; the sum of the gradients is followed.

    Args:
      beta: how far t moves in a step, 0..1; LibMTL and TorchJD have 0.5.

    Returns:
      A Weighting with the averages t f32[K, K], kept below 0.999, as the method's own state.

    Raises:
      ValueError: for a beta outside 0..1.
    """
    if not 0 <= beta <= 1:
        raise ValueError(f"gradvac's beta must be 0 to 1, got {beta}")

    def solve(
        signals: Signals, takes_part: jax.Array, state: jax.Array
    ) -> tuple[jax.Array, jax.Array, dict[str, jax.Array]]:
        gram = signals.gram
        norms = jnp.sqrt(jnp.diagonal(gram))

        def meet(
            i: jax.Array, carry: tuple[jax.Array, jax.Array], j: jax.Array
        ) -> tuple[jax.Array, jax.Array]:
            row, targets = carry
            length = jnp.sqrt(jnp.maximum(jnp.sum(row * product(gram, row)), 0.0))
            cosine = jnp.clip(ratio(jnp.sum(row * gram[:, j]), length * norms[j]), -1.0, 1.0)
            target = targets[j]
            turn = target * jnp.sqrt((1.0 - cosine**2) / (1.0 - target**2)) - cosine
            row = row.at[j].add(jnp.where(cosine < target, ratio(length * turn, norms[j]), 0.0))
            moved = jnp.clip((1.0 - beta) * target + beta * cosine, -0.999, 0.999)
            return row, targets.at[j].set(moved)

        rows, targets = walk(meet, signals.key, takes_part, (identity(gram), state))
        return jnp.sum(rows, axis=0), targets, {}

    def init(num_tasks: int) -> jax.Array:
        return jnp.zeros((num_tasks, num_tasks), jnp.float32)

    return by_gram(init, solve, plain_heads=True, needs_key=True)


def walk(
    meet: Callable[[jax.Array, Any, jax.Array], Any],
    key: jax.Array,
    takes_part: jax.Array,
    carry: Any,
) -> Any:
    """Each task that takes part meets every other such task once, in random order.

    Args:
      meet: (task i, its carry, task j) -> its carry.
      key: of the orders.
      takes_part: bool[K].
      carry: of all tasks, a pytree of leaves [K, ...].
    """
    tasks = jnp.arange(len(takes_part))

    def walk_of(i: jax.Array, carry: Any) -> Any:
        order = jax.random.permutation(jax.random.fold_in(key, i), tasks)

        def visit(carry: Any, j: jax.Array) -> tuple[Any, None]:
            met = meet(i, carry, j)
            counts = takes_part[i] & takes_part[j] & (i != j)
            return jax.tree.map(lambda a, b: jnp.where(counts, a, b), met, carry), None

        return jax.lax.scan(visit, carry, order)[0]

    return jax.vmap(walk_of)(tasks, carry)


def identity(gram: jax.Array) -> jax.Array:
    """Each gradient as a combination of all, before it meets any."""
    return jnp.eye(len(gram), dtype=jnp.float32)


def ratio(numerator: jax.Array, denominator: jax.Array) -> jax.Array:
    """The quotient, 0 where the denominator is 0."""
    zero = denominator == 0
    return jnp.where(zero, 0.0, numerator / jnp.where(zero, 1.0, denominator))
