"""SDMGrad: stochastic direction-oriented multi-objective gradient descent."""

import math

import jax
import jax.numpy as jnp

from mtl_jax.weighting.check import check_option
from mtl_jax.weighting.contract import Diagnostics, Present, Weighting
from mtl_jax.weighting.from_gram import from_gram_update
from mtl_jax.weighting.numerics.losses import count
from mtl_jax.weighting.numerics.matrix import product
from mtl_jax.weighting.numerics.simplex import among, project, uniform


def sdmgrad(
    *, pull: float = 0.3, learning_rate: float = 5.0, momentum: float = 0.5, iterations: int = 20
) -> Weighting:
    """SDMGrad: MGDA for noisy gradients, pulled towards the average, by a few stochastic steps.

        min |g_w + pull g0|^2  over w on the simplex,  g_w = sum_i w_i g_i,  g0 = mean of the g_i
        d = (g_w + pull g0) / (1 + pull)

    Projected steps with momentum start from the last weights. As in `modo`, the inner products come
    from two parts of the batch, and the weights are applied to the gradients on a third. The
    products are divided by the squared mean norm of those gradients. LibMTL divides them by the
    squared mean of the roots of their own diagonal, with negative entries taken as 0: for noisy
    gradients that is a smaller number, so its steps are longer at the same `learning_rate`. The
    weights sum to one, where those of `equal` sum to K. A task without labels keeps its share of
    the whole.

    Source: Xiao, Ban and Ji, "Direction-oriented Multi-objective Learning: Simple and Provable
    Stochastic Algorithms", NeurIPS 2023.
    Heads: follow their own losses, with weight one.

    Args:
      pull: strength of the pull towards the average, at least 0; lambda in the paper.
      learning_rate: step size, positive.
      momentum: momentum of the steps, 0 to 1 (excluded).
      iterations: number of steps per update, at least 1.

    Returns:
      A Weighting with w f32[K], 1/K each at the start, as the method's own state.

    Raises:
      ValueError: for numbers out of their range.
    """
    check_option("sdmgrad", "pull", pull, 0 <= pull < math.inf, "finite and not negative")
    positive = 0 < learning_rate < math.inf
    check_option("sdmgrad", "learning_rate", learning_rate, positive, "positive and finite")
    check_option("sdmgrad", "momentum", momentum, 0 <= momentum < 1, "0 to 1 (excluded)")
    check_option("sdmgrad", "iterations", iterations, iterations >= 1, "at least 1")

    def update(signals: Present, state: jax.Array) -> tuple[jax.Array, jax.Array, Diagnostics]:
        takes_part = signals.takes_part
        norms = jnp.sqrt(jnp.diagonal(signals.gram))
        cross = signals.cross / (jnp.sum(norms) / count(takes_part)) ** 2
        average = takes_part.astype(jnp.float32) / count(takes_part)

        def step(_: int, carry: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
            weights, velocity = carry
            velocity = momentum * velocity + product(cross, weights + pull * average)
            return project(weights - learning_rate * velocity, takes_part), velocity

        start, total = among(state, takes_part)
        weights, _ = jax.lax.fori_loop(0, iterations, step, (start, jnp.zeros_like(start)))
        direction = (weights + pull * average) / (1.0 + pull)
        return direction, jnp.where(takes_part, weights, state / total), {}

    return from_gram_update(update, uniform, plain_heads=True, needs_cross=True)
