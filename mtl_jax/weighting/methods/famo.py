"""FAMO: all tasks' losses are to fall at the same relative rate, at the price of one backward pass.

Liu et al., "FAMO: Fast Adaptive Multitask Optimization", NeurIPS 2023. With z = softmax(w), the
step has the weights c z_i / L_i, c such that they sum to one. The losses of the same batch after
the step tell how fast each fell, and w follows the gradient of that:

    delta_i = log L_i(before) - log L_i(after),   dw = (diag(z) - z z') delta + gamma w.

Adam moves w, with gamma as PyTorch's weight decay, as in the authors' code. That code also clips
the model's gradient to length one in one of its three variants; Adam is indifferent to it.
"""

import math

import jax
import jax.numpy as jnp
import optax

from mtl_jax.weighting import learnable
from mtl_jax.weighting.contract import Signals, Weighting
from mtl_jax.weighting.from_losses import SMALLEST_LOSS, by_losses, masked_softmax
from mtl_jax.weighting.learnable import Learnable


def famo(*, gamma: float = 1e-3, learning_rate: float = 0.025) -> Weighting:
    """Fast adaptive multitask optimisation.

    The losses' lower bound is 0: a loss from 0 to 1e-8 counts as 1e-8, and a task with a negative
    loss takes no part. Tasks without labels keep their w, and so do those whose loss is negative
    before or after the step. The paper's runs on NYU-Depth V2 have gamma 1e-3.

    Args:
      gamma: decay of w.
      learning_rate: of Adam on w.

    Returns:
      A Weighting whose state is a `Learnable`, w, with a `follow_up`.

    Raises:
      ValueError: for a negative gamma or a learning rate that is not positive.
    """
    if not 0 <= gamma < math.inf:
        raise ValueError(f"famo's gamma must be finite and not negative, got {gamma}")
    if not 0 < learning_rate < math.inf:
        raise ValueError(f"famo's learning_rate must be positive and finite, got {learning_rate}")
    adam = optax.chain(optax.add_decayed_weights(gamma), optax.adam(learning_rate))

    def init(num_tasks: int) -> Learnable:
        return learnable.start(adam, jnp.zeros(num_tasks, jnp.float32))

    def weigh(
        losses: jax.Array, takes_part: jax.Array, signals: Signals, state: Learnable
    ) -> tuple[jax.Array, Learnable, dict[str, jax.Array]]:
        weights = masked_softmax(state.value, takes_part) / jnp.maximum(losses, SMALLEST_LOSS)
        total = jnp.sum(jnp.where(takes_part, weights, 0.0))
        return weights / jnp.where(total > 0, total, 1.0), state, {}

    def follow_up(losses: jax.Array, signals: Signals, state: Learnable) -> Learnable:
        takes_part = signals.labelled
        before, after = (
            jnp.maximum(jnp.where(takes_part, x, 1.0), SMALLEST_LOSS)
            for x in (signals.losses, losses)
        )
        fall = jnp.log(before) - jnp.log(after)
        share = masked_softmax(state.value, takes_part)
        gradient = share * (fall - jnp.sum(share * fall))
        return learnable.step(adam, state, gradient, takes_part)

    return by_losses(init, weigh, follow_up=follow_up, needs_positive=True)
