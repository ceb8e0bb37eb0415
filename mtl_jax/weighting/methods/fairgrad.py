"""FairGrad: alpha-fair shares of a step.

Ban and Ji, "Fair Resource Allocation in Multi-Task Learning", ICML 2024: the direction
d = sum_i w_i g_i of a given length that maximises  sum_i (g_i . d)^(1 - alpha) / (1 - alpha)  has

    G w = w^(-1 / alpha),   w > 0,

the one minimum of the convex  w'Gw / 2 - sum_i w_i^(1 - 1/alpha) / (1 - 1/alpha).  alpha = 1 is the
Nash bargain (proportional fairness), large alpha looks at the worst task alone. The authors solve
the equations by least squares on the host.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp

from mtl_jax.weighting.contract import Signals, Weighting
from mtl_jax.weighting.from_gram import by_gram
from mtl_jax.weighting.methods.nash import nash
from mtl_jax.weighting.numerics.quadratic import product

MAX_ITERATIONS = 100
# Newton's method stops at this residual; a larger one than TOLERANCE is no solution.
SETTLED = 1e-6
TOLERANCE = 1e-2
# Fractions of a Newton step of which the best is taken.
FRACTIONS = tuple(0.5**k for k in range(16))


def fairgrad(alpha: float = 2.0, *, max_norm: float = 1.0) -> Weighting:
    """alpha-fair weights, found by Newton's method inside the jitted step.

    Fails, so that the last weights are taken again, where the largest |w_i^(1/alpha) (G w)_i - 1|
    stays above 0.01. From alpha 0.5 to 2 it is sure; beyond, it may where gradients differ a
    hundred times in length and more. Stateless.

    Args:
      alpha: positive; the authors' runs have 2.
      max_norm: longest combined gradient of the shared parameters; inf for no limit. The authors
        clip to one after a multiplication by K, which Adam does not see.

    Returns:
      A Weighting with the diagnostics residual f32[] and iterations f32[].

    Raises:
      ValueError: for an argument that is not positive.
    """
    if not 0 < alpha < math.inf:
        raise ValueError(f"fairgrad's alpha must be positive and finite, got {alpha}")
    if alpha == 1:
        return nash(max_norm=max_norm)

    def solve(
        signals: Signals, takes_part: jax.Array, state: Any
    ) -> tuple[jax.Array, Any, dict[str, jax.Array]]:
        longest = jnp.max(jnp.diagonal(signals.gram))
        gram = signals.gram / longest
        # On its own, an absent task disturbs nobody.
        gram = gram + jnp.diag(1.0 - takes_part.astype(jnp.float32))
        weights, iterations = share(gram, 1.0 / alpha)
        error = jnp.max(jnp.abs(residual(gram, weights, 1.0 / alpha)))
        facts = {"residual": error, "iterations": iterations.astype(jnp.float32)}
        # (c G) w = w^-b  for  w = c^(-1 / (1 + b)) times the solution for G.
        weights = weights * longest ** (-1.0 / (1.0 + 1.0 / alpha))
        return jnp.where(error <= TOLERANCE, weights, jnp.nan), state, facts

    return by_gram(lambda num_tasks: (), solve, max_norm=max_norm)


def share(gram: jax.Array, power: float) -> tuple[jax.Array, jax.Array]:
    """Solves G w = w^-power for w > 0; also the number of iterations i32[].

    Args:
      gram: f32[K, K] with a positive diagonal.
      power: positive, not one.
    """

    def objective(weights: jax.Array) -> jax.Array:
        concave = jnp.sum(weights ** (1.0 - power)) / (1.0 - power)
        return 0.5 * jnp.sum(weights * product(gram, weights)) - concave

    def advance(state: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        weights, _, count = state
        gain = weights ** (1.0 - power)
        # In relative changes of w, in which all entries are of one size.
        gradient = weights * product(gram, weights) - gain
        curvature = weights[:, None] * gram * weights + power * jnp.diag(gain)
        step = -jax.scipy.linalg.solve(curvature, gradient, assume_a="pos")
        candidates = weights * (1.0 + jnp.array(FRACTIONS, jnp.float32)[:, None] * step)
        values = jax.vmap(objective)(jnp.maximum(candidates, 0.0))
        values = jnp.where(jnp.all(candidates > 0, axis=1), values, jnp.inf)
        # At the end rounding hides what a step gains: the full one is then the best.
        slack = 1e-6 * jnp.abs(jnp.min(values))
        best = jnp.argmax(values <= jnp.min(values) + slack)
        new = jnp.where(jnp.any(jnp.isfinite(values)), candidates[best], weights)
        return new, jnp.max(jnp.abs(residual(gram, new, power))), count + 1

    def goes_on(state: tuple[jax.Array, ...]) -> jax.Array:
        _, error, count = state
        return (error > SETTLED) & (count < MAX_ITERATIONS)

    start = jnp.diagonal(gram) ** (-1.0 / (1.0 + power))
    infinite = jnp.full((), jnp.inf, jnp.float32)
    weights, _, count = jax.lax.while_loop(
        goes_on, advance, (start, infinite, jnp.zeros((), jnp.int32))
    )
    return weights, count


def residual(gram: jax.Array, weights: jax.Array, power: float) -> jax.Array:
    """w_i^power (G w)_i - 1, f32[K]."""
    return weights**power * product(gram, weights) - 1.0
