"""ExcessMTL: weights by the excess risk."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from mtl_jax.weighting.check import check_option
from mtl_jax.weighting.contract import Present, PyTree, TaskWeights, Weighting
from mtl_jax.weighting.from_gradients import from_gradients_update
from mtl_jax.weighting.memory import weighted_sum
from mtl_jax.weighting.numerics.losses import count, masked_softmax
from mtl_jax.weighting.numerics.simplex import among

# From a smaller weight a task could hardly recover, since each step multiplies it.
SMALLEST_WEIGHT = 1e-6


class ExcessState(NamedTuple):
    """State of ExcessMTL.

    Attributes:
      squares: S, sums of the squared gradients, pytree of leaves f32[K, ...].
      weights: w f32[K].
      first: f32[K], the first e of each task; 0 where there is none yet.
    """

    squares: PyTree
    weights: jax.Array
    first: jax.Array


def excess_mtl(*, eta: float = 1e-2) -> Weighting:
    """ExcessMTL: tasks that are far from their optimum count more.

        S_i += g_i^2,  e_i = sum g_i^2 / sqrt(S_i + 1e-7)
        w_i *= exp(eta e_i / e_i(0)),  then scaled to the sum K

    S_i are the sums of the squared gradients, entry by entry, and e_i estimates the excess risk, as
    in LibMTL. A task without labels keeps its share of the whole.

    Source: He et al., "Robust Multi-Task Learning with Excess Risks", ICML 2024.
    Heads: use the same weights.

    Args:
      eta: step of the weights, positive.

    Returns:
      A Weighting with an `ExcessState` as the method's own state.

    Raises:
      ValueError: for an eta that is not positive.
    """
    check_option("excess_mtl", "eta", eta, 0 < eta < math.inf, "positive and finite")

    def init(num_tasks: int, shared: PyTree) -> ExcessState:
        zeros = jax.tree.map(lambda x: jnp.zeros((num_tasks, *x.shape), jnp.float32), shared)
        return ExcessState(
            zeros, jnp.ones(num_tasks, jnp.float32), jnp.zeros(num_tasks, jnp.float32)
        )

    def update(
        gradients: PyTree, signals: Present, state: ExcessState
    ) -> tuple[PyTree, TaskWeights, ExcessState]:
        takes_part = signals.takes_part
        squares = jax.tree.map(
            lambda s, g: s + jnp.square(g.astype(jnp.float32)), state.squares, gradients
        )
        excess = excess_risks(gradients, squares)
        first = jnp.where(takes_part & (state.first == 0), excess, state.first)
        ratio = excess / jnp.where(first > 0, first, 1.0)
        # As a softmax, which cannot overflow.
        logits = jnp.log(state.weights) + eta * ratio
        new = jnp.maximum(count(takes_part) * masked_softmax(logits, takes_part), SMALLEST_WEIGHT)
        used = jnp.where(takes_part, new, state.weights)
        weights = TaskWeights(shared=used, heads=used)
        (point, _), (_, total) = among(new, takes_part), among(state.weights, takes_part)
        kept = jnp.where(takes_part, total * point, state.weights)
        return weighted_sum(gradients, used), weights, ExcessState(squares, kept, first)

    return from_gradients_update(update, init)


def excess_risks(gradients: PyTree, squares: PyTree) -> jax.Array:
    """Returns the estimates e f32[K] from gradients and S, pytrees of leaves [K, ...]."""

    def leaf(g: jax.Array, s: jax.Array) -> jax.Array:
        scaled = jnp.square(g.astype(jnp.float32)) / jnp.sqrt(s + 1e-7)
        return jnp.sum(scaled.reshape(len(g), -1), axis=1)

    each = jax.tree.leaves(jax.tree.map(leaf, gradients, squares))
    return sum(each, jnp.zeros((), jnp.float32))
