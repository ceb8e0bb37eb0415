"""Improvable gap balancing."""

import jax
import jax.numpy as jnp

from mtl_jax.weighting.check import check_option
from mtl_jax.weighting.contract import Diagnostics, Present, Weighting
from mtl_jax.weighting.from_losses import from_losses_update
from mtl_jax.weighting.numerics.losses import (
    LossSums,
    add_losses,
    count,
    masked_softmax,
    mean_losses,
    no_losses,
)


def igb(steps_per_epoch: int = 100, *, base_epoch: int = 1) -> Weighting:
    """Improvable gap balancing: tasks that are far from done count more, on the log scale.

        total = sum_i v_i log L_i,  v = K softmax(L / B),  so that w_i = v_i / L_i

    B_i is the mean loss of task i over the epoch `base_epoch`, counted from 0, and v is held
    constant for the derivative. Until the end of that epoch v is one, which is `si`; a run of two
    epochs is therefore, by default, a run of `si`. A task without labels in the epoch has B = 1.
    This is the authors' first version. Their second learns v by deep reinforcement learning and is
    not included. A task with a negative loss takes no part.

    Source: Dai, Fei and Lu, "Improvable Gap Balancing for Multi-Task Learning", UAI 2023.
    Heads: use the same weights.

    Args:
      steps_per_epoch: length of an epoch, at least 1; the epoch of `Signals.step` counts from 0.
      base_epoch: the epoch that measures B, at least 0; the authors' code uses 1, the second.

    Returns:
      A Weighting with the `LossSums` of the epoch that measures B.

    Raises:
      ValueError: for numbers out of their range.
    """
    check_option("igb", "steps_per_epoch", steps_per_epoch, steps_per_epoch >= 1, "at least 1")
    check_option("igb", "base_epoch", base_epoch, base_epoch >= 0, "at least 0")

    def update(signals: Present, state: LossSums) -> tuple[jax.Array, LossSums, Diagnostics]:
        takes_part, losses = signals.takes_part, signals.losses
        base = mean_losses(state)
        gap = count(takes_part) * masked_softmax(losses / base, takes_part)
        epoch = signals.step // steps_per_epoch
        gap = jnp.where(epoch > base_epoch, gap, 1.0)
        measures = takes_part & (epoch == base_epoch)
        return gap / losses, add_losses(state, losses, measures), {}

    warmup = (base_epoch + 1) * steps_per_epoch
    return from_losses_update(update, no_losses, needs_positive=True, warmup=warmup)
