"""IMTL: IMTL-L and IMTL-G together."""

import math

import jax
import jax.numpy as jnp
import optax

from mtl_jax.weighting import learnable
from mtl_jax.weighting.check import check_option
from mtl_jax.weighting.contract import Diagnostics, Present, Weighting
from mtl_jax.weighting.from_gram import from_gram_update
from mtl_jax.weighting.learnable import Learnable
from mtl_jax.weighting.methods.imtl_g import equal_projections


def imtl(*, learning_rate: float = 0.025) -> Weighting:
    """IMTL: losses scaled as in `imtl_l`, their gradients combined as in `imtl_g`.

        w_i = exp(s_i) v_i,  v the weights of imtl_g for the gradients exp(s_i) g_i

    A loss from 0 to 1e-6 counts as 1e-6; a task with a negative loss takes no part.

    Source: Liu et al., "Towards Impartial Multi-task Learning", ICLR 2021.
    Heads: follow their own losses, with weight one; in LibMTL these are the scaled losses.

    Args:
      learning_rate: step size of Adam for s, positive.

    Returns:
      A Weighting with a `Learnable`, s, as the method's own state, and the diagnostic `log_scale`
      f32[K], the s that made the weights.

    Raises:
      ValueError: for a learning rate out of its range.
    """
    positive = 0 < learning_rate < math.inf
    check_option("imtl", "learning_rate", learning_rate, positive, "positive and finite")
    adam = optax.adam(learning_rate)

    def init(num_tasks: int) -> Learnable:
        return learnable.start(adam, jnp.zeros(num_tasks, jnp.float32))

    def update(signals: Present, state: Learnable) -> tuple[jax.Array, Learnable, Diagnostics]:
        scale = jnp.exp(state.value)
        weights = scale * equal_projections(signals.gram * scale[:, None] * scale)
        gradient = scale * signals.losses - 1.0
        new = learnable.step(adam, state, gradient, signals.takes_part)
        return weights, new, {"log_scale": state.value}

    return from_gram_update(update, init, plain_heads=True, needs_positive=True)
