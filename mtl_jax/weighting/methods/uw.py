"""Uncertainty weighting: each task learns the variance of its own noise.

Kendall, Gal and Cipolla, "Multi-task learning using uncertainty to weigh losses for scene geometry
and semantics", CVPR 2018. With s_i = log sigma_i^2 the total loss is

    common:      sum_i  1/2 exp(-s_i) L_i + s_i / 2
    likelihood:  the same for regression tasks, and  exp(-s_i) L_i + s_i / 2  for classification

`likelihood` is the paper's equation 10, `common` what most implementations compute for all tasks.
For a constant loss the minimum is at s = log L (common, regression) or s = log 2L (classification).
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from mtl_jax.weighting.contract import Signals, Weighting
from mtl_jax.weighting.from_losses import SMALLEST_LOSS, by_losses

FORMS = ("common", "likelihood")


class UncertaintyState(NamedTuple):
    """State of uncertainty weighting.

    Attributes:
      log_variance: f32[K], s.
      optimizer: Adam's state of each task: counts i32[K], moments f32[K].
    """

    log_variance: jax.Array
    optimizer: optax.OptState


def uw(
    *,
    form: str = "common",
    classification: Sequence[bool] | None = None,
    learning_rate: float = 0.025,
    initial: float = 0.0,
) -> Weighting:
    """Uncertainty weighting; the log-variances learn by an Adam of their own.

    The weights of a step are the derivatives of the total by the losses, exp(-s) / 2 or exp(-s),
    with the s before its update, as if s were one more parameter of the model. A task without
    labels, or whose loss is negative (to which no s is the best) or not finite, has weight 0 and
    leaves its s and its Adam untouched. A loss from 0 to 1e-8 teaches s as 1e-8.

    Args:
      form: "common" or "likelihood".
      classification: for "likelihood", which of the tasks are classification; "common" treats all
        alike and ignores it.
      learning_rate: Adam's, of the log-variances.
      initial: the first s of every task.

    Returns:
      A Weighting with an `UncertaintyState` and the diagnostic `log_variance` f32[K], the s that
      made the weights.

    Raises:
      ValueError: for an unknown form, no `classification` for "likelihood", a learning rate that
        is not positive, an `initial` that is not finite; by `init`, if `classification` does not
        have one entry a task.
    """
    if form not in FORMS:
        raise ValueError(f"form must be one of {', '.join(FORMS)}, got {form!r}")
    if form == "likelihood" and classification is None:
        raise ValueError(
            "form='likelihood' needs `classification`, one bool for each task: "
            "True for classification, False for regression"
        )
    if not 0 < learning_rate < math.inf:
        raise ValueError(f"uw's learning_rate must be positive and finite, got {learning_rate}")
    if not math.isfinite(initial):
        raise ValueError(f"initial must be finite, got {initial}")
    adam = optax.adam(learning_rate)

    def init(num_tasks: int) -> UncertaintyState:
        if form == "likelihood" and len(classification) != num_tasks:
            raise ValueError(
                f"classification must have one entry for each of the {num_tasks} tasks, "
                f"got {list(classification)}"
            )
        log_variance = jnp.full(num_tasks, initial, jnp.float32)
        # An Adam for each task: the bias correction counts only the steps that had its labels.
        return UncertaintyState(log_variance, jax.vmap(adam.init)(log_variance))

    def weigh(
        losses: jax.Array, takes_part: jax.Array, signals: Signals, state: UncertaintyState
    ) -> tuple[jax.Array, UncertaintyState, dict[str, jax.Array]]:
        # A loss of zero would drive its s, and the weight with it, out of float32.
        taught = jnp.maximum(losses, SMALLEST_LOSS)
        if form == "likelihood":
            factor = jnp.where(jnp.array(classification), 1.0, 0.5).astype(jnp.float32)
        else:
            factor = jnp.full(losses.shape, 0.5, jnp.float32)
        weights = factor * jnp.exp(-state.log_variance)

        gradient = 0.5 - weights * taught  # of the total by s
        # Adam's bias correction raises a float to an integer array, which fails where a program
        # has set strict promotion.
        with jax.numpy_dtype_promotion("standard"):
            steps, optimizer = jax.vmap(adam.update)(gradient, state.optimizer)
        new = UncertaintyState(state.log_variance + steps, optimizer)
        kept = jax.tree.map(lambda after, before: jnp.where(takes_part, after, before), new, state)
        return weights, kept, {"log_variance": state.log_variance}

    return by_losses(init, weigh, needs_positive=True)
