"""FAMO: fast adaptive multitask optimisation."""

import math

import jax
import jax.numpy as jnp
import optax

from mtl_jax.weighting import learnable
from mtl_jax.weighting.check import check_option
from mtl_jax.weighting.contract import Diagnostics, Present, Weighting
from mtl_jax.weighting.from_losses import from_losses_update
from mtl_jax.weighting.learnable import Learnable
from mtl_jax.weighting.numerics.losses import masked_softmax


def famo(*, gamma: float = 1e-3, learning_rate: float = 0.025) -> Weighting:
    """FAMO: makes all losses fall at the same relative rate, at the cost of one backward pass.

        w_i = c z_i / L_i,  z = softmax(x),  c such that the weights sum to one
        delta_i = log L_i(before) - log L_i(after)
        dx = (diag(z) - z z') delta + gamma x

    The losses of the same batch after the step show how fast each one fell; dx is the gradient that
    Adam gets for x, as in the authors' code. In one of its three variants that code also clips the
    model's gradient to length one, which does not change Adam's steps. A loss from 0 to 1e-6 counts
    as 1e-6, and a task with a negative loss takes no part. Tasks without labels keep their x, and
    so do those whose loss is negative before or after the step.

    Source: Liu et al., "FAMO: Fast Adaptive Multitask Optimization", NeurIPS 2023.
    Heads: use the same weights.

    Args:
      gamma: decay of x, at least 0; the paper uses 1e-3 on NYU-Depth V2.
      learning_rate: step size of Adam for x, positive.

    Returns:
      A Weighting whose state is a `Learnable`, x, with a `follow_up`.

    Raises:
      ValueError: for numbers out of their range.
    """
    check_option("famo", "gamma", gamma, 0 <= gamma < math.inf, "finite and not negative")
    positive = 0 < learning_rate < math.inf
    check_option("famo", "learning_rate", learning_rate, positive, "positive and finite")
    # The decay comes first, as PyTorch's weight decay does.
    adam = optax.chain(optax.add_decayed_weights(gamma), optax.adam(learning_rate))

    def init(num_tasks: int) -> Learnable:
        return learnable.start(adam, jnp.zeros(num_tasks, jnp.float32))

    def update(signals: Present, state: Learnable) -> tuple[jax.Array, Learnable, Diagnostics]:
        weights = masked_softmax(state.value, signals.takes_part) / signals.losses
        total = jnp.sum(jnp.where(signals.takes_part, weights, 0.0))
        return weights / jnp.where(total > 0, total, 1.0), state, {}

    def follow_up(losses: jax.Array, signals: Present, state: Learnable) -> Learnable:
        takes_part = signals.takes_part
        fall = jnp.log(signals.losses) - jnp.log(jnp.where(takes_part, losses, 1.0))
        share = masked_softmax(state.value, takes_part)
        gradient = share * (fall - jnp.sum(share * fall))
        return learnable.step(adam, state, gradient, takes_part)

    return from_losses_update(update, init, follow_up=follow_up, needs_positive=True)
