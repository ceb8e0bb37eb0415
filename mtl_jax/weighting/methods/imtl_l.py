"""IMTL-L: scales that bring all losses to one."""

import math

import jax
import jax.numpy as jnp
import optax

from mtl_jax.weighting import learnable
from mtl_jax.weighting.check import check_option
from mtl_jax.weighting.contract import Diagnostics, Present, Weighting
from mtl_jax.weighting.from_losses import from_losses_update
from mtl_jax.weighting.learnable import Learnable


def imtl_l(*, learning_rate: float = 0.025) -> Weighting:
    """IMTL-L: learned scales bring all losses to one.

        total = sum_i exp(s_i) L_i - s_i,  w_i = exp(s_i)

    At the minimum over s, exp(s_i) L_i = 1. The total is twice that of the common form of `uw` with
    s negated. LibMTL lets the model's optimizer learn s; here s has its own Adam, as in `uw`. A
    loss from 0 to 1e-6 counts as 1e-6; a task with a negative loss, for which there is no optimal
    scale, takes no part.

    Source: Liu et al., "Towards Impartial Multi-task Learning", ICLR 2021.
    Heads: use the same weights.

    Args:
      learning_rate: step size of Adam for s, positive.

    Returns:
      A Weighting whose state is a `Learnable`, s, with the diagnostic `log_scale` f32[K], the s
      that made the weights.

    Raises:
      ValueError: for a learning rate out of its range.
    """
    positive = 0 < learning_rate < math.inf
    check_option("imtl_l", "learning_rate", learning_rate, positive, "positive and finite")
    adam = optax.adam(learning_rate)

    def init(num_tasks: int) -> Learnable:
        return learnable.start(adam, jnp.zeros(num_tasks, jnp.float32))

    def update(signals: Present, state: Learnable) -> tuple[jax.Array, Learnable, Diagnostics]:
        weights = jnp.exp(state.value)
        gradient = weights * signals.losses - 1.0  # of the total by s
        new = learnable.step(adam, state, gradient, signals.takes_part)
        return weights, new, {"log_scale": state.value}

    return from_losses_update(update, init, needs_positive=True)
