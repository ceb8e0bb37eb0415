"""Nash-MTL, the bargaining solution."""

import math
import warnings

import jax
import jax.numpy as jnp

from mtl_jax.weighting.check import check_option
from mtl_jax.weighting.contract import Facts, Present, PyTree, Weighting
from mtl_jax.weighting.from_gram import from_gram_update
from mtl_jax.weighting.numerics import compensated
from mtl_jax.weighting.numerics.matrix import normalize

with warnings.catch_warnings():
    # It is no longer developed and says so at import, about which a user can do nothing.
    warnings.filterwarnings("ignore", "JAXopt is no longer maintained", DeprecationWarning)
    import jaxopt

# Newton's method stops after a step this small in the scaled weights: convergence being quadratic,
# what is left is at the precision of float32.
STEP_TOLERANCE = 1e-4
# 25 suffice for 40 tasks at a cosine of -0.999; more are only spent where there is no solution.
MAX_ITERATIONS = 100
# A residual that is good enough to leave the last bits of the weights alone.
SETTLED = 5e-5
SETTLING_STEPS = 256


def nash(*, max_norm: float = 1.0, tolerance: float = 1e-2, max_weight: float = 1e3) -> Weighting:
    """Nash-MTL: the tasks bargain over the direction of a step.

        a > 0,  G a = 1 / a

    Among the directions d of a given length, the Nash bargaining solution maximises
    sum_i log(g_i . d). It is d = sum_i a_i g_i with the one minimum a of the convex
    a'Ga / 2 - sum_i log a_i over a > 0. (The equation alone has other roots, with negative
    entries.) There is none if gradients oppose each other exactly. The direction has length
    sqrt(K) for gradients of any scale; like the authors' code, `max_norm` clips it to one and
    leaves the weights of the heads as they are.

    Newton's method solves the equation from scratch in every update, to the last digits of float32,
    so that the weights of a step depend on its gradients alone. It has failed, and the last good
    weights (ones before the first) are used again, if the residual max_i |a_i (G a)_i - 1| exceeds
    `tolerance`, a weight is not positive, or a_i |g_i| exceeds `max_weight`. With such a weight the
    direction goes less than 1 / max_weight along g_i: inner products in float32 cannot distinguish
    that from the exact opposition that has no solution. Two tasks reach 1e3 at a cosine of
    -1 + 1e-6.

    Source: Navon et al., "Multi-Task Learning as a Bargaining Game", ICML 2022.
    Heads: have the weights a, without the limit on the norm.

    Args:
      max_norm: longest combined gradient of the shared parameters in a step that updates, positive;
        inf for no limit. The authors' code clips in the steps between, too.
      tolerance: largest residual of a solution, positive.
      max_weight: largest a_i |g_i| of a solution, positive.

    Returns:
      A Weighting with the diagnostics residual f32[] and iterations f32[].

    Raises:
      ValueError: for an argument that is not positive.
    """
    check_option("nash", "tolerance", tolerance, tolerance > 0, "positive")
    check_option("nash", "max_weight", max_weight, max_weight > 0, "positive")

    def update(signals: Present, state: PyTree) -> tuple[jax.Array, PyTree, Facts]:
        matrix, scales = normalize(signals.gram)
        # Absent tasks bargain with nobody: on their own, their weight is one.
        matrix = matrix + jnp.diag(1.0 - signals.takes_part.astype(jnp.float32))
        weights, iterations = bargain(matrix)
        error = largest(residual(matrix, weights))
        norms = jnp.sqrt(jnp.diagonal(matrix))
        good = (error <= tolerance) & jnp.all((weights > 0) & (weights * norms <= max_weight))
        facts = {"residual": error, "iterations": iterations.astype(jnp.float32)}
        return jnp.where(good, weights / scales, jnp.nan), state, facts

    return from_gram_update(update, max_norm=max_norm)


def bargain(matrix: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Solves matrix @ a = 1 / a for a > 0.

    Args:
      matrix: f32[K, K], positive semi-definite with a diagonal of about one.

    Returns:
      f32[K], not finite or with a large residual where there is no solution; and the number of
      iterations i32[].
    """
    solver = jaxopt.FixedPointIteration(
        newton_step, maxiter=MAX_ITERATIONS, tol=STEP_TOLERANCE, implicit_diff=False
    )
    weights, state = solver.run(1.0 / jnp.sqrt(jnp.diagonal(matrix)), matrix)
    return settle(weights, matrix), state.iter_num


def newton_step(weights: jax.Array, matrix: jax.Array) -> jax.Array:
    """Makes one damped Newton step towards the minimum of a'Ca / 2 - sum log a.

    The function is self-concordant: with a step of 1 / (1 + decrement) the iteration keeps a
    positive and converges from any start, in the end quadratically (Nesterov and Nemirovskii).
    Written for relative changes of a, its Hessian is diag(a) C diag(a) + I and its gradient is
    the residual.
    """
    gradient = residual(matrix, weights)
    step = -jax.scipy.linalg.solve(hessian(matrix, weights), gradient, assume_a="pos")
    decrement = jnp.sqrt(jnp.maximum(-jnp.dot(gradient, step), 0.0))
    return weights * (1.0 + step / (1.0 + decrement))


def settle(weights: jax.Array, matrix: jax.Array) -> jax.Array:
    """Moves weights by single units in the last place while that lowers the residual.

    At a cosine of -0.999 a residual is 1000 times as large as the relative error of a weight, so
    that rounding each weight to the nearest float32 can cost more than 1e-4. Roundings chosen
    together cost less.
    """
    num_tasks = weights.shape[0]

    def step(state: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        weights, errors, _, count = state
        up = jnp.nextafter(weights, jnp.full_like(weights, math.inf))
        down = jnp.nextafter(weights, jnp.zeros_like(weights))
        moved, twice = jnp.concatenate([up, down]), jnp.tile(weights, 2)  # [2K]
        effect = jnp.tile(hessian(matrix, weights), (2, 1))  # [2K, K]
        expected = errors + ((moved - twice) / twice)[:, None] * effect
        best = jnp.argmin(jnp.max(jnp.abs(expected), axis=1))
        candidate = weights.at[best % num_tasks].set(moved[best])
        new = residual(matrix, candidate)
        better = largest(new) < largest(errors)
        weights = jnp.where(better, candidate, weights)
        return weights, jnp.where(better, new, errors), better, count + 1

    def goes_on(state: tuple[jax.Array, ...]) -> jax.Array:
        _, errors, better, count = state
        return better & (largest(errors) > SETTLED) & (count < SETTLING_STEPS)

    start = (weights, residual(matrix, weights), jnp.array(True), jnp.array(0))
    return jax.lax.while_loop(goes_on, step, start)[0]


def residual(matrix: jax.Array, weights: jax.Array) -> jax.Array:
    """Returns a_i (C a)_i - 1, f32[K], accurate also where the terms of C a cancel."""
    return compensated.multiply_minus_one(weights, compensated.matvec(matrix, weights))


def hessian(matrix: jax.Array, weights: jax.Array) -> jax.Array:
    """Returns diag(a) C diag(a) + I, f32[K, K]: the residual's slopes in relative changes of a."""
    return weights[:, None] * matrix * weights + jnp.eye(weights.shape[0], dtype=weights.dtype)


def largest(errors: jax.Array) -> jax.Array:
    """Returns the largest absolute value, f32[]."""
    return jnp.max(jnp.abs(errors))
