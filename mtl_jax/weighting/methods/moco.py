"""MoCo: multi-objective gradient with correction."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from mtl_jax.weighting import memory
from mtl_jax.weighting.check import check_option
from mtl_jax.weighting.contract import Present, PyTree, TaskWeights, Weighting
from mtl_jax.weighting.from_gradients import from_gradients_update
from mtl_jax.weighting.memory import Memory
from mtl_jax.weighting.numerics.losses import masked_softmax
from mtl_jax.weighting.numerics.simplex import among, uniform


class MocoState(NamedTuple):
    """State of MoCo.

    Attributes:
      memory: the smoothed gradients y.
      weights: w f32[K].
    """

    memory: Memory
    weights: jax.Array


def moco(*, beta: float = 0.5, gamma: float = 0.1, rho: float = 0.0) -> Weighting:
    """MoCo: MGDA for noisy gradients, with weights learned on smoothed gradients.

        h_i = L_i g_i / |g_i|
        y_i -= beta / sqrt(t) (y_i - h_i)
        w = softmax(w - gamma / sqrt(t) (Y Y' + rho) w)
        gradient = sum_i w_i y_i

    This is the form of LibMTL; t counts the steps. The weights sum to one. A task with a negative
    loss, which would reverse its gradient, takes no part. A task that takes no part keeps its share
    of the whole. Between two updates the last weights are applied to gradients that are not
    smoothed and therefore longer.

    Source: Fernando et al., "Mitigating Gradient Bias in Multi-objective Learning: A Provably
    Convergent Approach", ICLR 2023.
    Heads: follow their own losses, with weight one.

    Args:
      beta: step of y, 0 (excluded) to 1.
      gamma: step of w, positive.
      rho: pull of w towards equality, at least 0.

    Returns:
      A Weighting with a `MocoState` as the method's own state.

    Raises:
      ValueError: for numbers out of their range.
    """
    check_option("moco", "beta", beta, 0 < beta <= 1, "positive and at most 1")
    check_option("moco", "gamma", gamma, 0 < gamma < math.inf, "positive and finite")
    check_option("moco", "rho", rho, 0 <= rho < math.inf, "finite and not negative")

    def init(num_tasks: int, shared: PyTree) -> MocoState:
        return MocoState(memory.start(num_tasks, shared), uniform(num_tasks))

    def update(
        gradients: PyTree, signals: Present, state: MocoState
    ) -> tuple[PyTree, TaskWeights, MocoState]:
        takes_part = signals.takes_part
        root = jnp.sqrt((state.memory.count + 1).astype(jnp.float32))
        norms = jnp.where(takes_part, jnp.sqrt(jnp.diagonal(signals.gram)), 1.0)
        length = jnp.where(takes_part, signals.losses, 0.0) / norms
        smoothed = memory.move(
            state.memory, gradients, scale=length, step=beta / root, takes_part=takes_part
        )
        old, total = among(state.weights, takes_part)
        products = jnp.where(takes_part[:, None] & takes_part, products_of(smoothed), 0.0)
        slope = jnp.matmul(products, old, precision=jax.lax.Precision.HIGHEST) + rho * old
        new = masked_softmax(old - gamma / root * slope, takes_part)
        weights = TaskWeights(shared=new * length, heads=jnp.ones_like(new))
        kept = MocoState(smoothed, jnp.where(takes_part, new, state.weights / total))
        return memory.weighted_sum(smoothed.gradients, new), weights, kept

    return from_gradients_update(update, init, needs_positive=True)


def products_of(memory: Memory) -> jax.Array:
    """Returns the inner products f32[K, K] of the remembered gradients."""
    # Matrix products for any K: `gradients.inner_products` sums in another order for few tasks, so
    # that the last digits would differ.
    rows = (leaf.reshape(len(leaf), -1) for leaf in jax.tree.leaves(memory.gradients))
    products = (jnp.matmul(x, x.T, precision=jax.lax.Precision.HIGHEST) for x in rows)
    return sum(products, jnp.zeros((), jnp.float32))
