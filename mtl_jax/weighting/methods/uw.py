"""Uncertainty weighting."""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import optax

from mtl_jax.weighting import learnable
from mtl_jax.weighting.check import check_option
from mtl_jax.weighting.contract import Diagnostics, Present, Weighting
from mtl_jax.weighting.from_losses import from_losses_update
from mtl_jax.weighting.learnable import Learnable

FORMS = ("common", "likelihood")


def uw(
    *,
    form: str = "common",
    classification: Sequence[bool] | None = None,
    learning_rate: float = 0.025,
    initial: float = 0.0,
) -> Weighting:
    """Uncertainty weighting: each task learns the variance of its own noise.

        common:      total = sum_i  exp(-s_i) L_i / 2 + s_i / 2,  s_i = log sigma_i^2
        likelihood:  the same for regression,  exp(-s_i) L_i + s_i / 2  for classification

    `likelihood` is the paper's equation 10, and `common` is what most implementations compute for
    all tasks. The minimum over s is at s = log L (common, regression) or s = log 2L
    (classification). The weights of a step are the derivatives of the total by the losses,
    exp(-s) / 2 or exp(-s), with the s before its update, as if s were one more parameter of the
    model. A task without labels, or whose loss is negative (for which there is no optimal s) or not
    finite, has weight 0 and keeps its s and the Adam state of s. For the update of s a loss from 0
    to 1e-6 counts as 1e-6, so that s and the weight stay bounded.

    Source: Kendall, Gal and Cipolla, "Multi-Task Learning Using Uncertainty to Weigh Losses for
    Scene Geometry and Semantics", CVPR 2018.
    Heads: use the same weights.

    Args:
      form: "common" or "likelihood".
      classification: for "likelihood", one bool per task, True for classification; "common"
        ignores it.
      learning_rate: step size of Adam for s, positive.
      initial: the first s of every task.

    Returns:
      A Weighting whose state is a `Learnable`, s, with the diagnostic `log_variance` f32[K], the s
      that made the weights.

    Raises:
      ValueError: for an unknown form, no `classification` for "likelihood", numbers out of their
        range; by `init`, if `classification` does not have one entry per task.
    """
    check_option("uw", "form", form, form in FORMS, f"one of {', '.join(FORMS)}")
    if form == "likelihood" and classification is None:
        raise ValueError(
            "uw's form 'likelihood' needs `classification`, one bool for each task: "
            "True for classification, False for regression"
        )
    positive = 0 < learning_rate < math.inf
    check_option("uw", "learning_rate", learning_rate, positive, "positive and finite")
    check_option("uw", "initial", initial, math.isfinite(initial), "finite")
    adam = optax.adam(learning_rate)
    kinds = classification if form == "likelihood" else None

    def init(num_tasks: int) -> Learnable:
        if kinds is not None and len(kinds) != num_tasks:
            raise ValueError(
                f"uw's classification must have one entry for each of the {num_tasks} tasks, "
                f"got {list(kinds)}"
            )
        return learnable.start(adam, jnp.full(num_tasks, initial, jnp.float32))

    def update(signals: Present, state: Learnable) -> tuple[jax.Array, Learnable, Diagnostics]:
        factor = jnp.full(signals.losses.shape, 0.5, jnp.float32)
        if kinds is not None:
            factor = jnp.where(jnp.array(kinds), 1.0, factor)
        weights = factor * jnp.exp(-state.value)
        gradient = 0.5 - weights * signals.losses  # of the total by s
        new = learnable.step(adam, state, gradient, signals.takes_part)
        return weights, new, {"log_variance": state.value}

    return from_losses_update(update, init, needs_positive=True)
