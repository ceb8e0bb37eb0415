"""IMTL-G: a direction of which all tasks get the same, whatever the lengths of their gradients.

Liu et al., "Towards Impartial Multi-task Learning", ICLR 2021: among the combinations whose weights
sum to one, that with equal projections on all unit gradients u_i,  d . u_i = d . u_j. With the Gram
matrix:  weight = v / sum v,  G v = |g|  (solved by least squares where G is singular). Weights may
be negative.
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from mtl_jax.weighting import learnable
from mtl_jax.weighting.contract import Signals, Weighting
from mtl_jax.weighting.from_gram import by_gram, cosines
from mtl_jax.weighting.from_losses import SMALLEST_LOSS
from mtl_jax.weighting.learnable import Learnable
from mtl_jax.weighting.numerics.spectrum import solve_least_squares


def imtl_g() -> Weighting:
    """Equal projections; the weights sum to one, where those of `equal` sum to K. Stateless.

    The heads follow their own losses, as in LibMTL; in the code of Nash-MTL they have the weights,
    too, which may be negative.
    """

    def solve(
        signals: Signals, takes_part: jax.Array, state: Any
    ) -> tuple[jax.Array, Any, dict[str, jax.Array]]:
        return equal_projections(signals.gram, takes_part), state, {}

    return by_gram(lambda num_tasks: (), solve, plain_heads=True)


class ImtlState(NamedTuple):
    """State of `imtl`.

    Attributes:
      log_scale: s, f32[K], and its optimizer.
    """

    log_scale: Learnable


def imtl(*, learning_rate: float = 0.025) -> Weighting:
    """IMTL, both parts: losses scaled as in `imtl_l`, their gradients combined as in `imtl_g`.

    The heads follow their own losses; in LibMTL these are the scaled ones. A loss from 0 to 1e-8
    counts as 1e-8; a task with a negative loss takes no part.

    Args:
      learning_rate: of the scales' Adam.

    Returns:
      A Weighting with an `ImtlState` as the method's own.

    Raises:
      ValueError: for a learning rate that is not positive.
    """
    if not 0 < learning_rate < math.inf:
        raise ValueError(f"imtl's learning_rate must be positive and finite, got {learning_rate}")
    adam = optax.adam(learning_rate)

    def init(num_tasks: int) -> ImtlState:
        return ImtlState(learnable.start(adam, jnp.zeros(num_tasks, jnp.float32)))

    def solve(
        signals: Signals, takes_part: jax.Array, state: ImtlState
    ) -> tuple[jax.Array, ImtlState, dict[str, jax.Array]]:
        scale = jnp.exp(state.log_scale.value)
        weights = scale * equal_projections(signals.gram * scale[:, None] * scale, takes_part)
        gradient = scale * jnp.maximum(signals.losses, SMALLEST_LOSS) - 1.0
        new = learnable.step(adam, state.log_scale, gradient, takes_part)
        return weights, ImtlState(new), {"log_scale": state.log_scale.value}

    return by_gram(init, solve, plain_heads=True, needs_positive=True)


def equal_projections(gram: jax.Array, takes_part: jax.Array) -> jax.Array:
    """The weights f32[K] with which all unit gradients have the same projection; they sum to 1."""
    norms = jnp.where(takes_part, jnp.sqrt(jnp.diagonal(gram)), 1.0)
    v = solve_least_squares(cosines(gram), takes_part.astype(jnp.float32)) / norms
    v = jnp.where(takes_part, v, 0.0)
    return v / jnp.sum(v)
