"""Dynamic weight average over a sliding window."""

import math

import jax
import jax.numpy as jnp

from mtl_jax.weighting.check import check_option
from mtl_jax.weighting.contract import Diagnostics, Present, Weighting
from mtl_jax.weighting.from_losses import from_losses_update
from mtl_jax.weighting.methods.dwa import weights_of


def dwa_window(window: int = 25, *, temperature: float = 2.0) -> Weighting:
    """Dynamic weight average over a sliding window: `dwa` with steps in place of epochs.

        r_i = mean of the last N losses L_i / mean of the N losses before
        w_i = K exp(r_i / T) / sum_k exp(r_k / T)

    The losses are those before the present step, and all weights are one until there are 2 N of
    them. The published code of Nash-MTL and of FAMO leaves out the factor K, begins with a window
    full of ones, and counts the present loss as one of the last N. A task with a negative loss
    takes no part in that step, and its loss does not enter the means.

    Source: Navon et al., "Multi-Task Learning as a Bargaining Game", ICML 2022, in its code; after
    Liu et al., "End-to-End Multi-Task Learning with Attention", CVPR 2019.
    Heads: use the same weights.

    Args:
      window: N, steps in each of the two means, at least 1.
      temperature: T, positive; the larger, the more similar the weights.

    Returns:
      A Weighting whose state is the last losses f32[K, 2 N], the newest last, 0 where there is none
      yet.

    Raises:
      ValueError: for numbers out of their range.
    """
    check_option("dwa_window", "window", window, window >= 1, "at least 1")
    check_option(
        "dwa_window", "temperature", temperature, 0 < temperature < math.inf, "positive and finite"
    )

    def init(num_tasks: int) -> jax.Array:
        return jnp.zeros((num_tasks, 2 * window), jnp.float32)

    def update(signals: Present, state: jax.Array) -> tuple[jax.Array, jax.Array, Diagnostics]:
        full = state[:, :1] > 0
        means = jnp.where(full, state, 0.0).reshape(-1, 2, window).mean(2)  # [K, 2]
        weights = weights_of(means[:, 1], means[:, 0], signals.takes_part, temperature)
        shifted = jnp.concatenate([state[:, 1:], signals.losses[:, None]], axis=1)
        return weights, jnp.where(signals.takes_part[:, None], shifted, state), {}

    return from_losses_update(update, init, needs_positive=True)
