"""GradNorm: all tasks are to train at the same rate, by weights on the norms of their gradients.

Chen et al., "GradNorm: Gradient Normalization for Adaptive Loss Balancing", ICML 2018. With
n_i = w_i |g_i| and the relative inverse rates r_i = (L_i / L_i(0)) / mean_k (L_k / L_k(0)), the
weights learn to lessen  sum_i |n_i - mean(n) r_i^a|,  the second term held constant. As in LibMTL
w = K softmax(z), where the paper rescales w to the sum K after each step; they have their own Adam.
The norms are those of all shared parameters; the paper takes the last shared layer only.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from mtl_jax.weighting import learnable
from mtl_jax.weighting.contract import Signals, Weighting
from mtl_jax.weighting.from_gram import by_gram
from mtl_jax.weighting.from_losses import SMALLEST_LOSS, masked_softmax, number
from mtl_jax.weighting.learnable import Learnable


class GradNormState(NamedTuple):
    """State of GradNorm.

    Attributes:
      logits: z f32[K] and their optimizer.
      first: f32[K], the first loss seen of each task, L(0); 0 before there is one.
    """

    logits: Learnable
    first: jax.Array


def gradnorm(alpha: float = 1.5, *, learning_rate: float = 0.025) -> Weighting:
    """Gradient normalisation.

    A loss from 0 to 1e-8 counts as 1e-8; a task with a negative loss takes no part.

    Args:
      alpha: how strongly slow tasks are pulled along; the paper's runs on NYU-Depth V2 have 1.5.
      learning_rate: of the Adam of z; the paper's is 0.025.

    Returns:
      A Weighting with a `GradNormState` as the method's own.

    Raises:
      ValueError: for a negative alpha or a learning rate that is not positive.
    """
    if not 0 <= alpha < math.inf:
        raise ValueError(f"gradnorm's alpha must be finite and not negative, got {alpha}")
    if not 0 < learning_rate < math.inf:
        raise ValueError(f"gradnorm's learning_rate must be positive, got {learning_rate}")
    adam = optax.adam(learning_rate)

    def init(num_tasks: int) -> GradNormState:
        zeros = jnp.zeros(num_tasks, jnp.float32)
        return GradNormState(learnable.start(adam, zeros), zeros)

    def solve(
        signals: Signals, takes_part: jax.Array, state: GradNormState
    ) -> tuple[jax.Array, GradNormState, dict[str, jax.Array]]:
        losses = jnp.where(takes_part, jnp.maximum(signals.losses, SMALLEST_LOSS), 1.0)
        unseen = takes_part & (state.first == 0)
        first = jnp.where(unseen, losses, state.first)
        norms = jnp.sqrt(jnp.diagonal(signals.gram))

        def mean(x: jax.Array) -> jax.Array:
            return jnp.sum(jnp.where(takes_part, x, 0.0)) / number(takes_part)

        rates = losses / jnp.where(first > 0, first, 1.0)
        rates = rates / mean(rates)

        def weights_of(logits: jax.Array) -> jax.Array:
            return number(takes_part) * masked_softmax(logits, takes_part)

        def imbalance(logits: jax.Array) -> jax.Array:
            reached = weights_of(logits) * norms
            wanted = jax.lax.stop_gradient(mean(reached) * rates**alpha)
            return jnp.sum(jnp.where(takes_part, jnp.abs(reached - wanted), 0.0))

        gradient = jax.grad(imbalance)(state.logits.value)
        logits = learnable.step(adam, state.logits, gradient, takes_part)
        return weights_of(state.logits.value), GradNormState(logits, first), {}

    return by_gram(init, solve, needs_positive=True)
