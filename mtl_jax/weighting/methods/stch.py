"""Smooth Tchebycheff scalarisation: the worst task counts most, smoothly.

Lin et al., "Smooth Tchebycheff Scalarization for Multi-Objective Optimization", ICML 2024:

    total = mu log sum_i exp(log(L_i / N_i) / mu)
    weight_i = softmax_i(log(L_i / N_i) / mu) / L_i

N_i the nadir, a typical loss of task i. As published with it (LibMTL), the total is multiplied by
K, a warm-up of four epochs follows sum_i log L_i, and the nadir is the mean loss of a fifth such
epoch.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from mtl_jax.weighting.contract import Signals, Weighting
from mtl_jax.weighting.from_losses import SMALLEST_LOSS, by_losses, masked_softmax, number


class StchState(NamedTuple):
    """Losses of the last epoch of the warm-up.

    Attributes:
      total: f32[K], their sum.
      count: f32[K], number of steps with labels of the task.
    """

    total: jax.Array
    count: jax.Array


def stch(steps_per_epoch: int = 100, *, warmup_epochs: int = 4, mu: float = 1.0) -> Weighting:
    """Smooth Tchebycheff scalarisation of the losses over their nadir.

    Args:
      steps_per_epoch: an epoch is so many steps.
      warmup_epochs: epochs before the one that measures the nadir; both follow sum_i log L_i.
      mu: smoothness; towards 0 only the worst task counts.

    Returns:
      A Weighting with a `StchState`. A task without labels in the epoch of the nadir has nadir 1.
      A loss from 0 to 1e-8 counts as 1e-8; a task with a negative loss takes no part in that step.

    Raises:
      ValueError: for an epoch without steps, a negative warm-up, or a mu that is not positive.
    """
    if steps_per_epoch < 1 or warmup_epochs < 0:
        raise ValueError(
            "stch needs steps_per_epoch of at least 1 and warmup_epochs of at least 0, "
            f"got {steps_per_epoch} and {warmup_epochs}"
        )
    if not 0 < mu < math.inf:
        raise ValueError(f"stch's mu must be positive and finite, got {mu}")
    first, last = warmup_epochs * steps_per_epoch, (warmup_epochs + 1) * steps_per_epoch

    def init(num_tasks: int) -> StchState:
        return StchState(jnp.zeros(num_tasks, jnp.float32), jnp.zeros(num_tasks, jnp.float32))

    def weigh(
        losses: jax.Array, takes_part: jax.Array, signals: Signals, state: StchState
    ) -> tuple[jax.Array, StchState, dict[str, jax.Array]]:
        losses = jnp.maximum(losses, SMALLEST_LOSS)
        nadir = jnp.where(state.count > 0, state.total / jnp.maximum(state.count, 1.0), 1.0)
        share = masked_softmax(jnp.log(losses / nadir) / mu, takes_part)
        share = jnp.where(signals.step < last, 1.0, number(takes_part) * share)
        measures = takes_part & (signals.step >= first) & (signals.step < last)
        state = StchState(
            total=state.total + jnp.where(measures, losses, 0.0),
            count=state.count + measures.astype(jnp.float32),
        )
        return share / losses, state, {}

    return by_losses(init, weigh, needs_positive=True)
