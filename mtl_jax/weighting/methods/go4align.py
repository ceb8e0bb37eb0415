"""GO4Align: group optimisation for alignment of the tasks."""

import math

import jax
import jax.numpy as jnp

from mtl_jax.weighting.check import check_option
from mtl_jax.weighting.contract import Diagnostics, Present, Weighting
from mtl_jax.weighting.from_losses import from_losses_update
from mtl_jax.weighting.numerics.clusters import cluster_means
from mtl_jax.weighting.numerics.losses import count, masked_softmax

# Fraction of the summed losses that a loss counts as at least: the weights stay below its inverse.
SMALLEST_SHARE = 1e-6


def go4align(*, groups: int = 2, eta: float = 1e-4) -> Weighting:
    """GO4Align: similar tasks form groups, and each group has one weight.

        p_i = p_i exp(-eta L_i),  then scaled to the sum 1
        v_i = p_i sum_k L_k / L_i
        w_i = mean of v over the group of task i

    The groups are the clusters of v by k-means. The published code looks for them by Lloyd's method
    from a random start; here, the best clusters on a line are found exactly. With one group all
    weights are the mean of v. A loss below a millionth of the sum counts as that, and a task with a
    negative loss takes no part. A task without labels keeps its p.

    Source: Shen et al., "GO4Align: Group Optimization for Multi-Task Alignment", NeurIPS 2024.
    Heads: use the same weights.

    Args:
      groups: the largest number of groups, at least 1. The authors' script for NYU-Depth V2 has 1
        as its default.
      eta: how fast p falls with the losses, positive.

    Returns:
      A Weighting whose state is log p f32[K], up to a constant.

    Raises:
      ValueError: for numbers out of their range.
    """
    check_option("go4align", "groups", groups, groups >= 1, "at least 1")
    check_option("go4align", "eta", eta, 0 < eta < math.inf, "positive and finite")

    def update(signals: Present, state: jax.Array) -> tuple[jax.Array, jax.Array, Diagnostics]:
        takes_part = signals.takes_part
        losses = jnp.where(takes_part, signals.losses, 0.0)
        total = jnp.sum(losses)
        # Less the mean, so that an absent task keeps its share of the whole.
        moved = state - eta * (losses - total / count(takes_part))
        state = jnp.where(takes_part, moved, state)
        scale = total / jnp.maximum(signals.losses, SMALLEST_SHARE * total)
        values = masked_softmax(state, takes_part) * scale
        return cluster_means(values, takes_part, groups), state, {}

    def init(num_tasks: int) -> jax.Array:
        return jnp.zeros(num_tasks, jnp.float32)

    return from_losses_update(update, init, needs_positive=True)
