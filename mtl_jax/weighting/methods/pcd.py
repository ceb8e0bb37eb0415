"""Priority-constrained descent."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mtl_jax.weighting.check import check_option
from mtl_jax.weighting.contract import Diagnostics, Present, Weighting
from mtl_jax.weighting.from_gram import from_gram_update
from mtl_jax.weighting.numerics.matrix import combined_norm, normalize, product, vanishes
from mtl_jax.weighting.numerics.quadratic import RIDGE, nonnegative

# Each solution of the program with its ridge begins at the one before, which removes the ridge's
# effect where there is a solution without it.
REFINEMENTS = 3


class PcdState(NamedTuple):
    """Moving averages of the squared lengths of the gradients.

    Attributes:
      squares: f32[K], not yet corrected for their start at zero.
      count: i32[K], steps with labels of the task.
    """

    squares: jax.Array
    count: jax.Array


def pcd(
    tau: float | Sequence[float] = 0.02,
    *,
    primary: int = 0,
    beta: float = 0.999,
    eps: float = 1e-8,
) -> Weighting:
    """Priority-constrained descent: follow one task while all others make a little progress.

        h_i = g_i / sqrt(mean |g_i|^2 + eps),  an exponential moving average over the steps
        min |d - h_1|  over  h_j . d >= tau |h_j|^2  for all j > 1
        gradient = |g_1| d / |d|

    g_1 is the gradient of the primary task, and the other tasks are helpers: this method is for one
    task that matters and others that support it. If g_1 is zero, so is the gradient. If two helpers
    oppose each other so that no d fits, the constraints are dropped and the gradient is g_1. If d
    is zero, up to rounding, the gradient is zero.

    The paper has no rule for missing labels. Here a helper without labels has no constraint, and if
    the primary task has no labels, the first other task that has some takes its place in that step:
    the other labels of such a batch are not lost, and the result is that of the tasks that have
    labels.

    Source: Varam and AlHajri, "Not All Objectives Are Born Equal: Priority-Constrained Descent for
    Hierarchical Multi-Objective Optimization", TMLR 2026.
    Heads: follow their own losses, with weight one.

    Args:
      tau: progress of a helper as a fraction of that along its own gradient, 0 to 1; one number, or
        one per helper in the order of the tasks.
      primary: place of the primary task in the order of the tasks (that of `--tasks`), from 0.
      beta: decay of the moving average, 0 to 1 (excluded).
      eps: added to the average, at least 0.

    Returns:
      A Weighting with a `PcdState` as the method's own state, and the diagnostics `binds` f32[K], 1
      for a helper whose constraint changes the direction, and `infeasible` f32[], 1 if the
      constraints were dropped.

    Raises:
      ValueError: for numbers out of their range; by `init`, for a `primary` that is not a task or a
        wrong count of numbers in `tau`.
    """
    taus = (tau,) if isinstance(tau, int | float) else tuple(tau)
    in_range = len(taus) > 0 and all(0 <= x <= 1 for x in taus)
    check_option("pcd", "tau", tau, in_range, "0 to 1")
    check_option("pcd", "primary", primary, primary >= 0, "at least 0")
    check_option("pcd", "beta", beta, 0 <= beta < 1, "0 to 1 (excluded)")
    check_option("pcd", "eps", eps, 0 <= eps < math.inf, "finite and not negative")

    def init(num_tasks: int) -> PcdState:
        check_option("pcd", "primary", primary, primary < num_tasks, f"below {num_tasks}")
        fits = len(taus) in (1, num_tasks - 1)
        check_option("pcd", "tau", tau, fits, f"one number, or {num_tasks - 1}, one per helper")
        return PcdState(jnp.zeros(num_tasks, jnp.float32), jnp.zeros(num_tasks, jnp.int32))

    def update(signals: Present, state: PcdState) -> tuple[jax.Array, PcdState, Diagnostics]:
        squares = jnp.diagonal(signals.gram)
        state, scale = _scales(squares, signals.labelled, state, beta, eps)
        first = _first(signals.labelled, primary)
        gram = signals.gram * scale[:, None] * scale
        wanted = np.insert(taus, primary, 0.0) if len(taus) > 1 else np.full(len(squares), taus[0])
        multipliers, infeasible = _multipliers(gram, first, jnp.asarray(wanted, jnp.float32))
        direction = multipliers + first.astype(jnp.float32)
        norm = combined_norm(gram, direction)
        found = ~vanishes(gram, direction)
        length = jnp.sqrt(jnp.sum(jnp.where(first, squares, 0.0)))
        weights = direction * scale * length / jnp.where(found, norm, 1.0)
        diagnostics = {
            "binds": (multipliers > 0).astype(jnp.float32),
            "infeasible": infeasible.astype(jnp.float32),
        }
        return jnp.where(found, weights, 0.0), state, diagnostics

    return from_gram_update(update, init, plain_heads=True)


def _first(labelled: jax.Array, primary: int) -> jax.Array:
    """Returns the task that is followed, bool[K]: the primary task, or the first with labels."""
    place = jnp.where(labelled[primary], primary, jnp.argmax(labelled))
    return jnp.arange(len(labelled)) == place


def _scales(
    squares: jax.Array, labelled: jax.Array, state: PcdState, beta: float, eps: float
) -> tuple[PcdState, jax.Array]:
    """Returns the moved averages, and the factors f32[K] that bring gradients to length one."""
    moved = PcdState(beta * state.squares + (1.0 - beta) * squares, state.count + 1)
    state = jax.tree.map(lambda new, old: jnp.where(labelled, new, old), moved, state)
    seen = 1.0 - beta ** state.count.astype(jnp.float32)
    mean = state.squares / jnp.where(seen > 0, seen, 1.0) + eps
    return state, jnp.where(mean > 0, 1.0 / jnp.sqrt(jnp.where(mean > 0, mean, 1.0)), 0.0)


def _multipliers(gram: jax.Array, first: jax.Array, tau: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns the m >= 0 f32[K] of the helpers, for d = h_1 + sum_j m_j h_j; 0 if no d fits.

    They minimise m'Hm / 2 - b'm with the helpers' Gram matrix H and b_j = tau |h_j|^2 - h_j . h_1.

    Returns:
      f32[K], and whether no d fits, bool[].
    """
    helper = ~first & (jnp.diagonal(gram) > 0)
    matrix = jnp.where(helper[:, None] & helper, gram, 0.0)
    squares, (_, lengths) = jnp.diagonal(matrix), normalize(matrix)
    progress = jnp.where(helper, product(gram, first.astype(jnp.float32)), 0.0)
    missing = tau * squares - progress

    def refine(_: int, m: jax.Array) -> jax.Array:
        return nonnegative(matrix, -missing - RIDGE * jnp.square(lengths) * m)

    m = jax.lax.fori_loop(0, REFINEMENTS, refine, jnp.zeros_like(squares))
    # Where no d fits, a positive combination of the helpers is zero, so along every d some helper
    # makes no progress: it falls short by its whole tau.
    short = missing - product(matrix, m)
    infeasible = jnp.any(helper & (short > 0.5 * tau * squares) & (tau > 0))
    return jnp.where(infeasible, 0.0, m), infeasible
