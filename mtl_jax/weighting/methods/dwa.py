"""Dynamic weight average by epoch."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from mtl_jax.weighting.check import check_option
from mtl_jax.weighting.contract import Diagnostics, Present, Weighting
from mtl_jax.weighting.from_losses import from_losses_update
from mtl_jax.weighting.numerics.losses import count, masked_softmax


class DwaState(NamedTuple):
    """Means of the losses over epochs.

    Attributes:
      older: f32[K], mean over the last epoch but one; 0 before there is one.
      newer: f32[K], mean over the last epoch; 0 before there is one.
      total: f32[K], sum over the present epoch.
      count: f32[K], steps of the present epoch with labels of the task.
      epoch: i32[K], the present epoch.
    """

    older: jax.Array
    newer: jax.Array
    total: jax.Array
    count: jax.Array
    epoch: jax.Array


def dwa(steps_per_epoch: int = 100, *, temperature: float = 2.0) -> Weighting:
    """Dynamic weight average: tasks whose loss falls more slowly than the others' count more.

        r_i = L_i(t-1) / L_i(t-2)
        w_i = K exp(r_i / T) / sum_k exp(r_k / T)

    L_i(t) is the mean loss of task i over epoch t. All weights are one during the first two epochs.
    A task with a negative loss takes no part in that step, and its loss does not enter the means.

    Source: Liu et al., "End-to-End Multi-Task Learning with Attention", CVPR 2019.
    Heads: use the same weights.

    Args:
      steps_per_epoch: length of an epoch, at least 1; the epoch of `Signals.step` counts from 0.
      temperature: T, positive; the larger, the more similar the weights.

    Returns:
      A Weighting with a `DwaState`.

    Raises:
      ValueError: for numbers out of their range.
    """
    check_option("dwa", "steps_per_epoch", steps_per_epoch, steps_per_epoch >= 1, "at least 1")
    check_option(
        "dwa", "temperature", temperature, 0 < temperature < math.inf, "positive and finite"
    )

    def init(num_tasks: int) -> DwaState:
        zeros = (jnp.zeros(num_tasks, jnp.float32) for _ in range(4))
        return DwaState(*zeros, epoch=jnp.zeros(num_tasks, jnp.int32))

    def update(signals: Present, state: DwaState) -> tuple[jax.Array, DwaState, Diagnostics]:
        takes_part = signals.takes_part
        losses = signals.losses
        # By its number, because the step that would begin an epoch may be skipped.
        epoch = jnp.full_like(state.epoch, signals.step // steps_per_epoch)
        starts = (epoch > state.epoch) & (state.count > 0)
        ended = DwaState(
            older=state.newer,
            newer=state.total / jnp.maximum(state.count, 1.0),
            total=jnp.zeros_like(losses),
            count=jnp.zeros_like(losses),
            epoch=epoch,
        )
        state = jax.tree.map(lambda new, old: jnp.where(starts, new, old), ended, state)
        weights = weights_of(state.newer, state.older, takes_part, temperature)
        state = state._replace(
            total=state.total + jnp.where(takes_part, losses, 0.0),
            count=state.count + takes_part.astype(jnp.float32),
            epoch=epoch,
        )
        return weights, state, {}

    return from_losses_update(update, init, needs_positive=True, warmup=2 * steps_per_epoch)


def weights_of(
    newer: jax.Array, older: jax.Array, takes_part: jax.Array, temperature: float
) -> jax.Array:
    """Returns the weights f32[K] from two means f32[K] of the losses, 0 where there is none yet."""
    known = (older > 0) & (newer > 0)
    ratio = jnp.where(known, newer / jnp.where(known, older, 1.0), 1.0)
    return count(takes_part) * masked_softmax(ratio / temperature, takes_part)
