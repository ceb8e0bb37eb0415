"""Smooth Tchebycheff scalarisation."""

import math

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


def stch(steps_per_epoch: int = 100, *, warmup_epochs: int = 4, mu: float = 1.0) -> Weighting:
    """Smooth Tchebycheff scalarisation: the worst task counts most, in a smooth way.

        total = mu log sum_i exp(log(L_i / N_i) / mu)
        w_i = softmax_i(log(L_i / N_i) / mu) / L_i

    N_i is the nadir, a typical loss of task i. As in LibMTL, the total is multiplied by K. During
    `warmup_epochs` epochs and the one after them, the total is sum_i log L_i; the mean losses of
    that last epoch are the nadir. A task without labels in that epoch has nadir 1. A loss from 0 to
    1e-6 counts as 1e-6; a task with a negative loss takes no part in that step.

    Source: Lin et al., "Smooth Tchebycheff Scalarization for Multi-Objective Optimization", ICML
    2024.
    Heads: use the same weights.

    Args:
      steps_per_epoch: length of an epoch, at least 1.
      warmup_epochs: epochs before the one that measures the nadir.
      mu: smoothness, positive; towards 0 only the worst task counts.

    Returns:
      A Weighting with the `LossSums` of the epoch that measures the nadir.

    Raises:
      ValueError: for numbers out of their range.
    """
    check_option("stch", "steps_per_epoch", steps_per_epoch, steps_per_epoch >= 1, "at least 1")
    check_option("stch", "warmup_epochs", warmup_epochs, warmup_epochs >= 0, "at least 0")
    check_option("stch", "mu", mu, 0 < mu < math.inf, "positive and finite")
    first, last = warmup_epochs * steps_per_epoch, (warmup_epochs + 1) * steps_per_epoch

    def update(signals: Present, state: LossSums) -> tuple[jax.Array, LossSums, Diagnostics]:
        takes_part, losses = signals.takes_part, signals.losses
        nadir = mean_losses(state)
        share = masked_softmax(jnp.log(losses / nadir) / mu, takes_part)
        share = jnp.where(signals.step < last, 1.0, count(takes_part) * share)
        measures = takes_part & (signals.step >= first) & (signals.step < last)
        return share / losses, add_losses(state, losses, measures), {}

    return from_losses_update(update, no_losses, needs_positive=True, warmup=last)
