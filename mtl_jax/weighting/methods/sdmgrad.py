"""MGDA for noisy gradients, by independent parts of the batch.

With one batch the min-norm weights depend on the very noise of the gradients that they combine,
which biases the direction. Both methods estimate products of gradients from two parts of the batch
and weigh the gradients of a third (`Signals.cross`). Published codes read three batches in a step;
here one batch is divided in three, so that all methods see the same number of images. The heads
follow their own losses.
"""

import math

import jax
import jax.numpy as jnp
import optax

from mtl_jax.weighting.contract import Signals, Weighting
from mtl_jax.weighting.from_gram import by_gram
from mtl_jax.weighting.from_losses import number
from mtl_jax.weighting.numerics.quadratic import product


def modo(*, gamma: float = 1e-3, rho: float = 0.1) -> Weighting:
    """MoDo: one projected gradient step of the weights in each step, from two independent parts.

    Chen et al., "Three-Way Trade-Off in Multi-Objective Learning", NeurIPS 2023:
    w = P(w - gamma (G1 G2' w + rho w)), P the projection on the simplex. The weights sum to one,
    where those of `equal` sum to K.

    Args:
      gamma: step of the weights.
      rho: pulls them towards equality; LibMTL's value.

    Returns:
      A Weighting with w f32[K], 1/K each at the start, as the method's own state.

    Raises:
      ValueError: for a gamma that is not positive or a negative rho.
    """
    if not 0 < gamma < math.inf or not 0 <= rho < math.inf:
        raise ValueError(f"modo needs gamma > 0 and rho >= 0, got {gamma} and {rho}")

    def solve(
        signals: Signals, takes_part: jax.Array, state: jax.Array
    ) -> tuple[jax.Array, jax.Array, dict[str, jax.Array]]:
        cross = _finite(signals.cross)
        weights = project(state, takes_part)
        weights = project(weights - gamma * (product(cross, weights) + rho * weights), takes_part)
        return weights, jnp.where(takes_part, weights, state), {}

    return by_gram(_uniform, solve, plain_heads=True, needs_cross=True)


def sdmgrad(
    *, pull: float = 0.3, learning_rate: float = 5.0, momentum: float = 0.5, iterations: int = 20
) -> Weighting:
    """SDMGrad: the min-norm problem, pulled towards the average, by some stochastic steps.

    Xiao, Ban and Ji, "Direction-oriented Multi-objective Learning", NeurIPS 2023: the weights
    minimise |g_w + pull g0|^2 over the simplex, g0 the average gradient, by projected steps with
    momentum from the last weights on; the direction is (g_w + pull g0) / (1 + pull). The products
    are divided by the squared mean norm of the gradients that are weighed. LibMTL divides them by
    the squared mean of the roots of their own diagonal, negative entries taken as 0: of noisy
    gradients that is a smaller number, so that its steps are longer at the same `learning_rate`.
    The weights sum to one, where those of `equal` sum to K.

    Args:
      pull: lambda of the paper, towards the average.
      learning_rate: of the steps.
      momentum: of the steps.
      iterations: number of them.

    Returns:
      A Weighting with w f32[K], 1/K each at the start, as the method's own state.

    Raises:
      ValueError: for numbers out of their range.
    """
    good = 0 <= pull < math.inf and 0 < learning_rate < math.inf and 0 <= momentum < 1
    if not good or iterations < 1:
        raise ValueError(
            "sdmgrad needs pull >= 0, learning_rate > 0, 0 <= momentum < 1 and iterations >= 1, "
            f"got {pull}, {learning_rate}, {momentum} and {iterations}"
        )

    def solve(
        signals: Signals, takes_part: jax.Array, state: jax.Array
    ) -> tuple[jax.Array, jax.Array, dict[str, jax.Array]]:
        norms = jnp.sqrt(jnp.diagonal(signals.gram))
        cross = _finite(signals.cross) / (jnp.sum(norms) / number(takes_part)) ** 2
        average = takes_part.astype(jnp.float32) / number(takes_part)

        def step(_: int, carry: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
            weights, velocity = carry
            velocity = momentum * velocity + product(cross, weights + pull * average)
            return project(weights - learning_rate * velocity, takes_part), velocity

        start = project(state, takes_part)
        weights, _ = jax.lax.fori_loop(0, iterations, step, (start, jnp.zeros_like(start)))
        direction = (weights + pull * average) / (1.0 + pull)
        return direction, jnp.where(takes_part, weights, state), {}

    return by_gram(_uniform, solve, plain_heads=True, needs_cross=True)


def project(weights: jax.Array, takes_part: jax.Array) -> jax.Array:
    """The nearest point of the simplex of the tasks that take part, f32[K]."""
    # So far below all others, an absent task's weight is 0 there.
    spread = jnp.max(jnp.abs(jnp.where(takes_part, weights, 0.0)))
    weights = jnp.where(takes_part, weights, -2.0 * spread - 2.0)
    with jax.numpy_dtype_promotion("standard"):
        return optax.projections.projection_simplex(weights).astype(jnp.float32)


def _finite(cross: jax.Array) -> jax.Array:
    # A projection on the simplex would make something of an infinite product.
    return jnp.where(jnp.all(jnp.isfinite(cross)), cross, jnp.nan)


def _uniform(num_tasks: int) -> jax.Array:
    return jnp.full(num_tasks, 1.0 / num_tasks, jnp.float32)
