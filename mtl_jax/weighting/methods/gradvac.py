"""GradVac: gradient vaccine."""

import jax
import jax.numpy as jnp

from mtl_jax.weighting.check import check_option
from mtl_jax.weighting.contract import Diagnostics, Present, Weighting
from mtl_jax.weighting.from_gram import from_gram_update
from mtl_jax.weighting.methods.pcgrad import identity, ratio, walk
from mtl_jax.weighting.numerics.matrix import product


def gradvac(*, beta: float = 0.5) -> Weighting:
    """GradVac: gradients turn towards each other until their cosine reaches its moving average.

        if r < t:  g_i += |g_i| (t sqrt(1 - r^2) - r sqrt(1 - t^2)) / (|g_j| sqrt(1 - t^2)) g_j
        t += beta (r - t)

    r is the cosine of g_i and g_j, and t = t_ij its moving average; after the change it equals t.
    As in `pcgrad`, tasks meet in random order and the update follows the sum; with t = 0 this is
    `pcgrad`. All shared parameters form one group.

    Source: Wang et al., "Gradient Vaccine: Investigating and Improving Multi-task Optimization in
    Massively Multilingual Models", ICLR 2021.
    Heads: follow their own losses, with weight one.

    Args:
      beta: how far t moves per step, 0 to 1; LibMTL and TorchJD use 0.5.

    Returns:
      A Weighting with the averages t f32[K, K], kept within ±0.999, as the method's own state.

    Raises:
      ValueError: for a beta outside 0..1.
    """
    check_option("gradvac", "beta", beta, 0 <= beta <= 1, "0 to 1")

    def init(num_tasks: int) -> jax.Array:
        return jnp.zeros((num_tasks, num_tasks), jnp.float32)

    def update(signals: Present, state: jax.Array) -> tuple[jax.Array, jax.Array, Diagnostics]:
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

        rows, targets = walk(meet, signals.key, signals.takes_part, (identity(gram), state))
        return jnp.sum(rows, axis=0), targets, {}

    return from_gram_update(update, init, plain_heads=True, needs_key=True)
