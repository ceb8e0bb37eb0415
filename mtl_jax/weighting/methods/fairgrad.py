"""FairGrad, alpha-fair progress of the tasks."""

import math
from functools import partial

import jax
import jax.numpy as jnp

from mtl_jax.weighting.check import check_option
from mtl_jax.weighting.contract import Diagnostics, Present, PyTree, Weighting
from mtl_jax.weighting.from_gram import from_gram_update
from mtl_jax.weighting.methods.nash import nash
from mtl_jax.weighting.numerics.loops import repeat
from mtl_jax.weighting.numerics.matrix import product
from mtl_jax.weighting.numerics.small import FEW, factorize

MAX_ITERATIONS = 100
# Iterations of a few tasks between two tests whether to go on.
TOGETHER = 4
# Newton's method stops at this residual; one above TOLERANCE does not count as a solution.
SETTLED = 1e-6
TOLERANCE = 1e-2
# Fractions of a Newton step of which the best is taken.
FRACTIONS = tuple(0.5**k for k in range(16))


def fairgrad(alpha: float = 2.0, *, max_norm: float = 1.0) -> Weighting:
    """FairGrad: alpha-fair progress of the tasks.

        w > 0,  G w = w^(-1 / alpha)

    Among the directions d of a given length, d = sum_i w_i g_i maximises
    sum_i (g_i . d)^(1 - alpha) / (1 - alpha); w is the unique minimiser of the convex function
    w'Gw / 2 - sum_i w_i^(1 - 1/alpha) / (1 - 1/alpha). alpha = 1 is the Nash bargain (proportional
    fairness) and is solved by `nash`; a large alpha considers the worst task alone. Newton's method
    solves the equation inside the jitted step, where the authors use least squares on the host. The
    solver counts as failed, and the last weights are reused, if the largest |w_i^(1/alpha)
    (G w)_i - 1| stays above 0.01. If a positive combination of the gradients is zero, as where two
    oppose each other exactly, there is no solution. Close to that the solver may fail: for two
    tasks, alpha from 0.7 to 2 and lengths within a factor of 1e6, at cosines below -0.99. For other
    alpha it may fail if gradients differ by a factor of 100 or more in length.

    Source: Ban and Ji, "Fair Resource Allocation in Multi-Task Learning", ICML 2024.
    Heads: use the weights w, without the limit on the norm.

    Args:
      alpha: positive; the authors use 2.
      max_norm: largest norm of the combined gradient of the shared parameters, positive; inf for no
        limit. The authors multiply by K before they clip to one; the factor does not change Adam's
        steps.

    Returns:
      A Weighting with the diagnostics residual f32[] and iterations f32[].

    Raises:
      ValueError: for an argument that is not positive.
    """
    check_option("fairgrad", "alpha", alpha, 0 < alpha < math.inf, "positive and finite")
    if alpha == 1:
        return nash(max_norm=max_norm)

    def update(signals: Present, state: PyTree) -> tuple[jax.Array, PyTree, Diagnostics]:
        longest = jnp.max(jnp.diagonal(signals.gram))
        gram = signals.gram / longest
        # Absent tasks get a diagonal of one, so that they do not affect the others.
        gram = gram + jnp.diag(1.0 - signals.takes_part.astype(jnp.float32))
        weights, iterations = share(gram, 1.0 / alpha)
        error = jnp.max(jnp.abs(residual(gram, weights, 1.0 / alpha)))
        diagnostics = {"residual": error, "iterations": iterations}
        # (c G) w = w^-b  for  w = c^(-1 / (1 + b)) times the solution for G.
        weights = weights * longest ** (-1.0 / (1.0 + 1.0 / alpha))
        return jnp.where(error <= TOLERANCE, weights, jnp.nan), state, diagnostics

    return from_gram_update(update, max_norm=max_norm)


def share(gram: jax.Array, power: float) -> tuple[jax.Array, jax.Array]:
    """Solves G w = w^-power for w > 0; also returns the number of iterations f32[].

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
        # By relative changes of w, so that all entries have the same scale.
        gradient = weights * product(gram, weights) - gain
        curvature = weights[:, None] * gram * weights + power * jnp.diag(gain)
        step = -factorize(curvature)(gradient)
        candidates = weights * (1.0 + jnp.array(FRACTIONS, jnp.float32)[:, None] * step)
        values = jax.vmap(objective)(jnp.maximum(candidates, 0.0))
        values = jnp.where(jnp.all(candidates > 0, axis=1), values, jnp.inf)
        # Close to the solution, rounding hides the gain of a step; the full step is then taken.
        slack = 1e-6 * jnp.abs(jnp.min(values))
        best = jnp.argmax(values <= jnp.min(values) + slack)
        new = jnp.where(jnp.any(jnp.isfinite(values)), candidates[best], weights)
        return new, jnp.max(jnp.abs(residual(gram, new, power))), count + 1

    def goes_on(state: tuple[jax.Array, ...]) -> jax.Array:
        _, error, count = state
        return (error > SETTLED) & (count < MAX_ITERATIONS)

    start = jnp.diagonal(gram) ** (-1.0 / (1.0 + power))
    infinite, zero = jnp.array(jnp.inf, jnp.float32), jnp.zeros((), jnp.float32)
    several = partial(repeat, advance, goes_on, limit=TOGETHER)
    turn = several if len(start) <= FEW else advance
    weights, _, count = jax.lax.while_loop(goes_on, turn, (start, infinite, zero))
    return weights, count


def residual(gram: jax.Array, weights: jax.Array, power: float) -> jax.Array:
    """Returns w_i^power (G w)_i - 1, f32[K]."""
    return weights**power * product(gram, weights) - 1.0
