"""Nash-MTL, the bargaining solution."""

import math
import warnings
from typing import NamedTuple

import jax
import jax.numpy as jnp

from mtl_jax.weighting.check import check_option
from mtl_jax.weighting.contract import Diagnostics, Present, PyTree, Weighting
from mtl_jax.weighting.from_gram import from_gram_update
from mtl_jax.weighting.numerics import compensated
from mtl_jax.weighting.numerics.loops import repeat
from mtl_jax.weighting.numerics.matrix import normalize
from mtl_jax.weighting.numerics.small import FEW, factorize

# Newton's method stops after a step this small in the scaled weights. Its convergence is quadratic,
# so the remaining error is at the precision of float32.
STEP_TOLERANCE = 1e-4
# 25 suffice for 40 tasks at a cosine of -0.999; only problems without a solution take more.
MAX_ITERATIONS = 100
# For a few tasks 27 suffice to a cosine of -1 + 1e-6.
STEPS_OF_FEW = 28
# Below this residual the last bits of the weights are not refined.
SETTLED = 5e-5
SETTLING_STEPS = 256


class _Search(NamedTuple):
    weights: jax.Array  # f32[K]
    change: jax.Array  # f32[], length of the last step
    steps: jax.Array  # f32[]


def nash(*, max_norm: float = 1.0, tolerance: float = 1e-2, max_weight: float = 1e3) -> Weighting:
    """Nash-MTL: the tasks bargain over the direction of a step.

        a > 0,  G a = 1 / a

    Among the directions d of a given length, the Nash bargaining solution maximises
    sum_i log(g_i . d). The solution is d = sum_i a_i g_i, where a is the unique minimiser over
    a > 0 of the convex function a'Ga / 2 - sum_i log a_i. (The equation alone has other roots, with
    negative entries.) If gradients oppose each other exactly, there is no solution. d has length
    sqrt(K) regardless of the gradients' scales. As in the authors' code, `max_norm` clips it to
    one; the weights of the heads are not clipped.

    Newton's method solves the equation from scratch at every update, to the last digits of float32,
    so the weights of a step depend only on its gradients. The solver counts as failed if the
    residual max_i |a_i (G a)_i - 1| exceeds `tolerance`, a weight is not positive, or a_i |g_i|
    exceeds `max_weight`; the last good weights (ones before the first) are then reused. With a
    larger weight the projection of d on g_i would be below 1 / max_weight, which inner products in
    float32 cannot distinguish from exact opposition, for which there is no solution. For two tasks,
    a_i |g_i| reaches 1e3 at a cosine of -1 + 1e-6.

    Source: Navon et al., "Multi-Task Learning as a Bargaining Game", ICML 2022.
    Heads: use the weights a, without the limit on the norm.

    Args:
      max_norm: largest norm of the combined gradient of the shared parameters in a step that
        updates the weights, positive; inf for no limit. The authors' code also clips in the steps
        between updates.
      tolerance: largest residual of a solution, positive.
      max_weight: largest a_i |g_i| of a solution, positive.

    Returns:
      A Weighting with the diagnostics residual f32[] and iterations f32[].

    Raises:
      ValueError: for an argument that is not positive.
    """
    check_option("nash", "tolerance", tolerance, tolerance > 0, "positive")
    check_option("nash", "max_weight", max_weight, max_weight > 0, "positive")

    def update(signals: Present, state: PyTree) -> tuple[jax.Array, PyTree, Diagnostics]:
        matrix, scales = normalize(signals.gram)
        # Absent tasks get a diagonal of one, so that they do not affect the others.
        matrix = matrix + jnp.diag(1.0 - signals.takes_part.astype(jnp.float32))
        weights, iterations = bargain(matrix)
        error = largest(residual(matrix, weights))
        norms = jnp.sqrt(jnp.diagonal(matrix))
        good = (error <= tolerance) & jnp.all((weights > 0) & (weights * norms <= max_weight))
        diagnostics = {"residual": error, "iterations": iterations}
        return jnp.where(good, weights / scales, jnp.nan), state, diagnostics

    return from_gram_update(update, max_norm=max_norm)


def bargain(matrix: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Solves matrix @ a = 1 / a for a > 0.

    Args:
      matrix: C f32[K, K], G scaled to a diagonal of about one, positive semi-definite.

    Returns:
      f32[K], not finite or with a large residual where there is no solution; and the number of
      iterations f32[].
    """
    with warnings.catch_warnings():
        # JAXopt warns at import that it is no longer developed, which users cannot act on.
        warnings.filterwarnings("ignore", "JAXopt is no longer maintained", DeprecationWarning)
        # Here, because it takes long to import.
        import jaxopt

    solver = jaxopt.FixedPointIteration(
        newton_step, maxiter=MAX_ITERATIONS, tol=STEP_TOLERANCE, implicit_diff=False, unroll=False
    )
    start = 1.0 / jnp.sqrt(jnp.diagonal(matrix))
    if len(start) > FEW:
        weights, state = solver.run(start, matrix)
        return settle(weights, matrix), state.iter_num.astype(jnp.float32)

    def advance(search: _Search) -> _Search:
        weights, state = solver.update(search.weights, solver.init_state(start), matrix)
        return _Search(weights, state.error, search.steps + 1)

    found = repeat(
        advance,
        lambda search: search.change > STEP_TOLERANCE,
        _Search(start, jnp.array(jnp.inf, jnp.float32), jnp.zeros((), jnp.float32)),
        limit=STEPS_OF_FEW,
    )
    return settle(found.weights, matrix), found.steps


def newton_step(weights: jax.Array, matrix: jax.Array) -> jax.Array:
    """Makes one damped Newton step towards the minimum of a'Ca / 2 - sum log a; C is `matrix`.

    The function is self-concordant: with a step of 1 / (1 + decrement) the iteration keeps a
    positive and converges from any start, in the end quadratically (Nesterov and Nemirovskii).
    Written for relative changes of a, its Hessian is diag(a) C diag(a) + I and its gradient is
    the residual.
    """
    gradient = residual(matrix, weights)
    step = -factorize(hessian(matrix, weights))(gradient)
    decrement = jnp.sqrt(jnp.maximum(-jnp.dot(gradient, step), 0.0))
    return weights * (1.0 + step / (1.0 + decrement))


def settle(weights: jax.Array, matrix: jax.Array) -> jax.Array:
    """Moves weights by single units in the last place while that lowers the residual.

    At a cosine of -0.999 a residual is 1000 times as large as the relative error of a weight, so
    rounding each weight to the nearest float32 can add more than 1e-4 to the residual. Roundings
    chosen together add less.
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
    """Returns diag(a) C diag(a) + I, f32[K, K]: the residual's slope in relative changes of a."""
    return weights[:, None] * matrix * weights + jnp.eye(weights.shape[0], dtype=weights.dtype)


def largest(errors: jax.Array) -> jax.Array:
    """Returns the largest absolute value, f32[]."""
    return jnp.max(jnp.abs(errors))
