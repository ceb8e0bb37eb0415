"""Dynamic weight average: tasks whose loss falls slower than before count more.

Liu et al., "End-to-End Multi-Task Learning with Attention", CVPR 2019:

    r_i = L_i(t-1) / L_i(t-2),   weight_i = K exp(r_i / T) / sum_k exp(r_k / T),

L_i(t) the mean loss of task i over epoch t. The code of Nash-MTL and FAMO compares the last 25
steps with the 25 before instead, and divides by K: that is `dwa_window` here, with the factor K of
the paper, and the window is empty at the start where theirs is full of ones.
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from mtl_jax.weighting.contract import Signals, Weighting
from mtl_jax.weighting.from_losses import SMALLEST_LOSS, by_losses, masked_softmax, number


class DwaState(NamedTuple):
    """Means of the losses over stretches of steps.

    Attributes:
      older: f32[K], mean over the last stretch but one; 0 before there is one.
      newer: f32[K], mean over the last stretch; 0 before there is one.
      total: f32[K], sum over the present stretch.
      count: f32[K], steps of the present stretch with labels of the task.
      epoch: i32[K], the present stretch.
    """

    older: jax.Array
    newer: jax.Array
    total: jax.Array
    count: jax.Array
    epoch: jax.Array


def dwa(steps_per_epoch: int = 100, *, temperature: float = 2.0) -> Weighting:
    """Dynamic weight average by epoch; all weights are one during the first two epochs.

    A task with a negative loss takes no part in that step, and its loss no part in the means.

    Args:
      steps_per_epoch: an epoch is so many steps; the epoch of `Signals.step` counts from 0.
      temperature: T, the larger the more alike the weights.

    Returns:
      A Weighting with a `DwaState`.

    Raises:
      ValueError: for an epoch without steps, or a temperature that is not positive.
    """
    if steps_per_epoch < 1:
        raise ValueError(f"dwa's steps_per_epoch must be at least 1, got {steps_per_epoch}")
    _check_temperature(temperature)

    def init(num_tasks: int) -> DwaState:
        zeros = (jnp.zeros(num_tasks, jnp.float32) for _ in range(4))
        return DwaState(*zeros, epoch=jnp.zeros(num_tasks, jnp.int32))

    def weigh(
        losses: jax.Array, takes_part: jax.Array, signals: Signals, state: DwaState
    ) -> tuple[jax.Array, DwaState, dict[str, jax.Array]]:
        # By its number, for the step that would begin an epoch may be one that is skipped.
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
        weights = _weights(state.newer, state.older, takes_part, temperature)
        state = state._replace(
            total=state.total + jnp.where(takes_part, losses, 0.0),
            count=state.count + takes_part.astype(jnp.float32),
            epoch=epoch,
        )
        return weights, state, {}

    return by_losses(init, weigh, needs_positive=True)


def dwa_window(window: int = 25, *, temperature: float = 2.0) -> Weighting:
    """Dynamic weight average over a sliding window; all weights are one until it is full.

    A task with a negative loss takes no part in that step, and its loss no part in the means.

    Args:
      window: steps in each of the two means that are compared.
      temperature: T, the larger the more alike the weights.

    Returns:
      A Weighting whose state is the last losses f32[K, 2 * window], the newest last, 0 where there
      was none yet.

    Raises:
      ValueError: for a window without steps, or a temperature that is not positive.
    """
    if window < 1:
        raise ValueError(f"dwa_window's window must be at least 1, got {window}")
    _check_temperature(temperature)

    def weigh(
        losses: jax.Array, takes_part: jax.Array, signals: Signals, state: jax.Array
    ) -> tuple[jax.Array, Any, dict[str, jax.Array]]:
        full = state[:, :1] > 0
        means = jnp.where(full, state, 0.0).reshape(-1, 2, window).mean(2)  # [K, 2]
        weights = _weights(means[:, 1], means[:, 0], takes_part, temperature)
        newest = jnp.maximum(losses, SMALLEST_LOSS)[:, None]
        shifted = jnp.concatenate([state[:, 1:], newest], axis=1)
        return weights, jnp.where(takes_part[:, None], shifted, state), {}

    def init(num_tasks: int) -> jax.Array:
        return jnp.zeros((num_tasks, 2 * window), jnp.float32)

    return by_losses(init, weigh, needs_positive=True)


def _weights(
    newer: jax.Array, older: jax.Array, takes_part: jax.Array, temperature: float
) -> jax.Array:
    known = (older > 0) & (newer > 0)
    ratio = jnp.where(known, newer / jnp.where(known, older, 1.0), 1.0)
    return number(takes_part) * masked_softmax(ratio / temperature, takes_part)


def _check_temperature(temperature: float) -> None:
    if not 0 < temperature < math.inf:
        raise ValueError(f"dwa's temperature must be positive and finite, got {temperature}")
