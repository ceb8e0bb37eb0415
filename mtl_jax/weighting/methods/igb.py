"""Improvable gap balancing."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from mtl_jax.weighting.check import check_option
from mtl_jax.weighting.contract import Facts, Present, Weighting
from mtl_jax.weighting.from_losses import from_losses_update
from mtl_jax.weighting.numerics.losses import count, masked_softmax


class IgbState(NamedTuple):
    """Losses of the base epoch.

    Attributes:
      total: f32[K], their sum.
      count: f32[K], number of steps with labels of the task.
    """

    total: jax.Array
    count: jax.Array


def igb(steps_per_epoch: int = 100, *, base_epoch: int = 1) -> Weighting:
    """Improvable gap balancing: tasks that are far from done count more, on the log scale.

        total = sum_i v_i log L_i,  v = K softmax(L / B),  so that w_i = v_i / L_i

    B_i is the mean loss of task i over the epoch `base_epoch`, counted from 0, and v is held
    constant for the derivative. Until the end of that epoch v is one, which is `si`; a task without
    labels in that epoch has B = 1. This is the authors' first version. Their second learns v by
    deep reinforcement learning and is not included. A task with a negative loss takes no part.

    Source: Dai, Fei and Lu, "Improvable Gap Balancing for Multi-Task Learning", UAI 2023.
    Heads: use the same weights.

    Args:
      steps_per_epoch: length of an epoch, at least 1; the epoch of `Signals.step` counts from 0.
      base_epoch: the epoch that measures B, at least 0; the authors' code uses 1, the second.

    Returns:
      A Weighting with an `IgbState`.

    Raises:
      ValueError: for numbers out of their range.
    """
    check_option("igb", "steps_per_epoch", steps_per_epoch, steps_per_epoch >= 1, "at least 1")
    check_option("igb", "base_epoch", base_epoch, base_epoch >= 0, "at least 0")

    def init(num_tasks: int) -> IgbState:
        return IgbState(jnp.zeros(num_tasks, jnp.float32), jnp.zeros(num_tasks, jnp.float32))

    def update(signals: Present, state: IgbState) -> tuple[jax.Array, IgbState, Facts]:
        takes_part, losses = signals.takes_part, signals.losses
        base = jnp.where(state.count > 0, state.total / jnp.maximum(state.count, 1.0), 1.0)
        gap = count(takes_part) * masked_softmax(losses / base, takes_part)
        epoch = signals.step // steps_per_epoch
        gap = jnp.where(epoch > base_epoch, gap, 1.0)
        measures = takes_part & (epoch == base_epoch)
        state = IgbState(
            total=state.total + jnp.where(measures, losses, 0.0),
            count=state.count + measures.astype(jnp.float32),
        )
        return gap / losses, state, {}

    return from_losses_update(update, init, needs_positive=True)
