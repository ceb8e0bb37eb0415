"""GradNorm: gradient normalisation."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from mtl_jax.weighting import learnable
from mtl_jax.weighting.check import check_option
from mtl_jax.weighting.contract import Diagnostics, Present, Weighting
from mtl_jax.weighting.from_gram import from_gram_update
from mtl_jax.weighting.learnable import Learnable
from mtl_jax.weighting.numerics.losses import count, masked_softmax


class GradNormState(NamedTuple):
    """State of GradNorm.

    Attributes:
      logits: z f32[K] and their optimizer.
      first: f32[K], the first loss seen of each task, L(0); 0 before there is one.
    """

    logits: Learnable
    first: jax.Array


def gradnorm(alpha: float = 1.5, *, learning_rate: float = 0.025) -> Weighting:
    """GradNorm: learned weights give the gradients norms at which all tasks train at the same rate.

        w = K softmax(z),  n_i = w_i |g_i|
        r_i = (L_i / L_i(0)) / mean_k (L_k / L_k(0))
        z minimises  sum_i |n_i - mean(n) r_i^alpha|,  the second term held constant

    z has its own Adam. The softmax is that of LibMTL; the paper rescales w to the sum K after each
    step. The norms are those of all shared parameters, where the paper takes the last shared layer
    only. A loss from 0 to 1e-6 counts as 1e-6; a task with a negative loss takes no part.

    Source: Chen et al., "GradNorm: Gradient Normalization for Adaptive Loss Balancing in Deep
    Multitask Networks", ICML 2018.
    Heads: use the same weights.

    Args:
      alpha: how strongly slow tasks are sped up, at least 0; the paper uses 1.5 on NYU-Depth V2.
      learning_rate: step size of Adam for z, positive; the paper uses 0.025.

    Returns:
      A Weighting with a `GradNormState` as the method's own state.

    Raises:
      ValueError: for numbers out of their range.
    """
    check_option("gradnorm", "alpha", alpha, 0 <= alpha < math.inf, "finite and not negative")
    positive = 0 < learning_rate < math.inf
    check_option("gradnorm", "learning_rate", learning_rate, positive, "positive and finite")
    adam = optax.adam(learning_rate)

    def init(num_tasks: int) -> GradNormState:
        zeros = jnp.zeros(num_tasks, jnp.float32)
        return GradNormState(learnable.start(adam, zeros), zeros)

    def update(
        signals: Present, state: GradNormState
    ) -> tuple[jax.Array, GradNormState, Diagnostics]:
        takes_part, losses = signals.takes_part, signals.losses
        unseen = takes_part & (state.first == 0)
        first = jnp.where(unseen, losses, state.first)
        norms = jnp.sqrt(jnp.diagonal(signals.gram))

        def mean(x: jax.Array) -> jax.Array:
            return jnp.sum(jnp.where(takes_part, x, 0.0)) / count(takes_part)

        rates = losses / jnp.where(first > 0, first, 1.0)
        rates = rates / mean(rates)

        def weights_of(logits: jax.Array) -> jax.Array:
            return count(takes_part) * masked_softmax(logits, takes_part)

        def imbalance(logits: jax.Array) -> jax.Array:
            reached = weights_of(logits) * norms
            wanted = jax.lax.stop_gradient(mean(reached) * rates**alpha)
            return jnp.sum(jnp.where(takes_part, jnp.abs(reached - wanted), 0.0))

        gradient = jax.grad(imbalance)(state.logits.value)
        logits = learnable.step(adam, state.logits, gradient, takes_part)
        return weights_of(state.logits.value), GradNormState(logits, first), {}

    return from_gram_update(update, init, needs_positive=True)
