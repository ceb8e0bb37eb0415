"""IMTL-L: all tasks' losses are brought to one, by scales that learn.

Liu et al., "Towards Impartial Multi-task Learning", ICLR 2021:  total = sum_i e^(s_i) L_i - s_i.
Its minimum over s has e^(s_i) L_i = 1. It is twice uncertainty weighting's common form with s
negated.
"""

import math

import jax
import jax.numpy as jnp
import optax

from mtl_jax.weighting import learnable
from mtl_jax.weighting.contract import Signals, Weighting
from mtl_jax.weighting.from_losses import SMALLEST_LOSS, by_losses
from mtl_jax.weighting.learnable import Learnable


def imtl_l(*, learning_rate: float = 0.025) -> Weighting:
    """Learned scales of the losses, by an Adam of their own.

    LibMTL lets the model's optimizer learn them; the rate here is that of `uw`. A loss from 0 to
    1e-8 counts as 1e-8; a task with a negative loss, to which no scale is the best, takes no part.

    Returns:
      A Weighting whose state is a `Learnable`, s, and the diagnostic `log_scale` f32[K], the s
      that made the weights.

    Raises:
      ValueError: for a learning rate that is not positive.
    """
    if not 0 < learning_rate < math.inf:
        raise ValueError(f"imtl_l's learning_rate must be positive and finite, got {learning_rate}")
    adam = optax.adam(learning_rate)

    def init(num_tasks: int) -> Learnable:
        return learnable.start(adam, jnp.zeros(num_tasks, jnp.float32))

    def weigh(
        losses: jax.Array, takes_part: jax.Array, signals: Signals, state: Learnable
    ) -> tuple[jax.Array, Learnable, dict[str, jax.Array]]:
        weights = jnp.exp(state.value)
        gradient = weights * jnp.maximum(losses, SMALLEST_LOSS) - 1.0  # of the total by s
        new = learnable.step(adam, state, gradient, takes_part)
        return weights, new, {"log_scale": state.value}

    return by_losses(init, weigh, needs_positive=True)
