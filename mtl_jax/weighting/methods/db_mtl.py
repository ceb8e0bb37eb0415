"""DB-MTL: dual balancing."""

import math

import jax.numpy as jnp

from mtl_jax.weighting import memory
from mtl_jax.weighting.check import check_option
from mtl_jax.weighting.contract import Present, PyTree, TaskWeights, Weighting
from mtl_jax.weighting.from_gradients import from_gradients_update
from mtl_jax.weighting.memory import Memory


def db_mtl(*, beta: float = 0.9, sigma: float = 0.0) -> Weighting:
    """DB-MTL: smoothed gradients of the log losses, all brought to the length of the longest.

        h_i = g_i / L_i
        y_i = h_i + (beta / t^sigma) (y_i - h_i)
        gradient = sum_i (max_k |y_k| / |y_i|) y_i

    A loss from 0 to 1e-6 counts as 1e-6, where LibMTL adds 1e-8; a task with a negative loss takes
    no part. Between two updates the last weights are applied to gradients that are not smoothed and
    therefore longer.

    Source: Lin et al., "Dual-Balancing for Multi-Task Learning", 2023.
    Heads: follow the logarithms of their losses, with weight 1 / L_i.

    Args:
      beta: share of the old y that is kept, 0 (none) to 1 (excluded).
      sigma: how fast that share fades with the step t, at least 0.

    Returns:
      A Weighting with a `Memory` of y as the method's own state.

    Raises:
      ValueError: for numbers out of their range.
    """
    check_option("db_mtl", "beta", beta, 0 <= beta < 1, "0 to 1 (excluded)")
    check_option("db_mtl", "sigma", sigma, 0 <= sigma < math.inf, "finite and not negative")

    def update(
        gradients: PyTree, signals: Present, state: Memory
    ) -> tuple[PyTree, TaskWeights, Memory]:
        takes_part = signals.takes_part
        inverse = 1.0 / signals.losses
        fade = beta / (state.count + 1).astype(jnp.float32) ** sigma
        state = memory.move(state, gradients, scale=inverse, step=1.0 - fade, takes_part=takes_part)
        norms = jnp.where(takes_part, memory.norms(state.gradients), 0.0)
        scale = jnp.where(norms > 0, jnp.max(norms) / jnp.where(norms > 0, norms, 1.0), 0.0)
        weights = TaskWeights(shared=scale * inverse, heads=inverse)
        return memory.weighted_sum(state.gradients, scale), weights, state

    return from_gradients_update(update, memory.start, needs_positive=True)
