"""What all methods by the Gram matrix share, so that each is only its own mathematics."""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from mtl_jax.weighting.check import check_num_tasks, check_state, describe
from mtl_jax.weighting.contract import (
    Signals,
    TaskWeights,
    Weighting,
    broken,
    build,
    of_present,
    restrict,
)
from mtl_jax.weighting.numerics import compensated
from mtl_jax.weighting.preference import check_length

# Squared norm below which a gradient counts as zero: inner products with it would be sums of
# numbers that float32 cannot hold with all their digits.
ZERO_GRADIENT = 1e-30
# Of the product of two norms, by which rounding may take an inner product from its own transpose
# or above that product; more is no Gram matrix.
NOT_A_GRAM_MATRIX = 1e-2


class GramState(NamedTuple):
    """State of a method by the Gram matrix.

    Attributes:
      method: the method's own state, a pytree of arrays.
      solution: f32[K], what the method last found, before any limit on the norm.
      weights: TaskWeights of the last update.
      diagnostics: of the last update.
    """

    method: Any
    solution: jax.Array
    weights: TaskWeights
    diagnostics: dict[str, jax.Array]


def by_gram(
    init_method: Callable[[int], Any],
    solve: Callable[[Signals, jax.Array, Any], tuple[jax.Array, Any, dict[str, jax.Array]]],
    *,
    max_norm: float = math.inf,
    plain_heads: bool = False,
    preference: Sequence[float] | None = None,
    needs_positive: bool = False,
    needs_key: bool = False,
    needs_cross: bool = False,
) -> Weighting:
    """A Weighting made of a function of the Gram matrix.

    It adds the rules of the contract: between updates (`gram` None) the last weights hold; a task
    without labels or with a zero gradient takes no part, the weight of the first is 0 and of the
    second its last one, which its head goes on with; where `solve` has no answer, a loss or
    gradient is not finite or the matrix is no Gram matrix (not symmetric, or an entry larger than
    the product of the norms, by more than a hundredth of that product), the last weights are taken
    again and the step counts as a fallback; the combined gradient of the shared parameters is at
    most `max_norm` long, in the steps that update.

    Args:
      init_method: num_tasks -> the state that `solve` carries; `()` if none.
      solve: (signals, takes_part bool[K], state) -> (weights f32[K], state, diagnostics).
        `signals.gram` has zero rows and columns for tasks that take no part, whose weights in the
        result are ignored. It says that it has no answer by a weight, or an entry of its state,
        that is not finite; both are then dropped.
      max_norm: the shared weights are scaled down until |sum_i weight_i g_i| <= max_norm; the
        heads' are not. `inf` leaves them alone.
      plain_heads: each head follows its own loss alone, as where a method is published as one for
        the shared gradients; else the heads have the unclipped weights, as where it is published
        as a weighted sum of the losses.
      preference: of the user, if the method has one; `init` checks its length.
      needs_positive: whether a task with a negative loss takes no part either, as where ratios or
        inverses of the losses count.
      needs_key: whether `solve` draws from `signals.key`.
      needs_cross: whether `solve` reads `signals.cross`.

    Returns:
      A Weighting with a `GramState` and, in addition to those of `solve`, the diagnostics
        fallback f32[]: 1 if the weights are those of an earlier update, or ones before any,
        participation f32[K]: 1 for a task that took part,
        gradient_norm f32[K]: of the shared parameters,
        cosine f32[K, K]: between the tasks' gradients, 0 with a gradient of zero.

    Raises:
      ValueError: for a max_norm that is not positive.
    """
    if not max_norm > 0:
        raise ValueError(f"max_norm must be positive (inf for no limit), got {max_norm}")

    def init(num_tasks: int, shared: Any = None) -> GramState:
        num_tasks = check_num_tasks(num_tasks)
        check_length(preference, num_tasks)
        ones = jnp.ones(num_tasks, jnp.float32)
        method = init_method(num_tasks)
        example = Signals(
            ones,
            gram=jnp.eye(num_tasks, dtype=jnp.float32),
            step=jnp.zeros((), jnp.int32),
            key=jax.random.key(0),
            labelled=jnp.ones(num_tasks, bool),
            cross=jnp.eye(num_tasks, dtype=jnp.float32),
        )
        shapes = jax.eval_shape(measure, example, ones, method)[-1]
        nothing = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
        nothing["fallback"] = jnp.ones((), jnp.float32)
        return GramState(method, ones, TaskWeights(shared=ones, heads=ones), nothing)

    def check(state: Any, num_tasks: int) -> None:
        if not isinstance(state, GramState):
            raise ValueError(
                f"`state` must be what this weighting's `init` made, got {describe(state)}"
            )
        check_weights(state.weights, num_tasks)
        check_state(state.method, jax.eval_shape(lambda: init_method(num_tasks)), num_tasks)

    def measure(
        signals: Signals, last: jax.Array, method: Any
    ) -> tuple[jax.Array, jax.Array, Any, dict[str, jax.Array]]:
        """Unclipped weights, what the Gram matrix restricted to its parties is, state, facts."""
        takes_part, failed = participants(signals), jnp.any(broken(signals))
        signals = restrict(signals, takes_part)
        parties = signals.gram

        weights, new, facts = solve(signals, takes_part, method)
        solved = jnp.all(jnp.isfinite(weights) | ~takes_part) & jnp.any(takes_part)
        solved &= is_gram(parties) & ~failed
        for leaf in jax.tree.leaves(new):
            solved &= jnp.all(jnp.isfinite(leaf))
        weights = jnp.where(solved & takes_part, weights, last)
        method = jax.tree.map(lambda after, before: jnp.where(solved, after, before), new, method)
        facts = facts | {
            "fallback": 1.0 - solved.astype(jnp.float32),
            "participation": takes_part.astype(jnp.float32),
            "gradient_norm": jnp.sqrt(jnp.diagonal(parties)),
            "cosine": cosines(parties),
        }
        return weights, parties, method, facts

    def update(
        signals: Signals, state: GramState
    ) -> tuple[TaskWeights, GramState, dict[str, jax.Array]]:
        if signals.gram is None:
            return of_present(state.weights, signals), state, state.diagnostics
        solution, parties, method, facts = measure(signals, state.solution, state.method)
        norm = combined_norm(parties, solution)
        clipped = solution * jnp.minimum(1.0, max_norm / norm)
        shared = jnp.where(jnp.isfinite(norm), clipped, state.weights.shared)
        diagnostics = jax.tree.map(
            lambda now, before: jnp.where(jnp.isfinite(now), now, before), facts, state.diagnostics
        )
        heads = jnp.ones_like(solution) if plain_heads else solution
        weights = TaskWeights(shared=shared, heads=heads)
        state = GramState(method, solution, weights, diagnostics)
        return of_present(weights, signals), state, diagnostics

    return build(
        Weighting(init=init, update=update, needs_gram=True, needs_cross=needs_cross),
        check_state=check,
        needs_positive=needs_positive,
        needs_key=needs_key,
    )


def participants(signals: Signals) -> jax.Array:
    """The present tasks whose gradient is not zero, bool[K]."""
    # A NaN is not small: such a task takes part and makes the solution fail, and be seen to.
    return signals.labelled & ~(jnp.diagonal(signals.gram) < ZERO_GRADIENT)


def is_gram(matrix: jax.Array) -> jax.Array:
    """Whether it is symmetric and no entry exceeds the product of the norms, bool[]."""
    norms = jnp.sqrt(jnp.diagonal(matrix))
    bound = norms[:, None] * norms
    excess = jnp.maximum(jnp.abs(matrix - matrix.T), jnp.abs(matrix) - bound)
    return jnp.all(excess <= NOT_A_GRAM_MATRIX * bound)


def check_weights(weights: TaskWeights, num_tasks: int) -> None:
    """Raises ValueError unless the weights of a state are those of `num_tasks` tasks."""
    count = len(weights.shared)
    if count != num_tasks:
        raise ValueError(
            f"`losses` must be float[{count}], one loss per task as `init` was given "
            f"num_tasks={count}; got {num_tasks} losses"
        )


def normalize(gram: jax.Array) -> tuple[jax.Array, jax.Array]:
    """A Gram matrix scaled to a diagonal of about one.

    The scales are powers of two: no digit is lost either way, so that a solution of the scaled
    problem is as good a solution of the given one.

    Returns:
      The matrix f32[K, K] with a diagonal in 0.4 .. 2.3 (0 where it was 0), and the scales f32[K]
      by which its rows and columns were divided, about the norms of the gradients.
    """
    norms = jnp.sqrt(jnp.diagonal(gram))
    # Rounding to no bits of mantissa leaves the nearest power of two.
    scales = jax.lax.reduce_precision(norms, exponent_bits=8, mantissa_bits=0)
    scales = jnp.where(norms == 0, 1.0, scales)
    return gram / scales[:, None] / scales, scales


def cosines(gram: jax.Array) -> jax.Array:
    """Cosines f32[K, K] between the gradients of a Gram matrix, 0 with a gradient of zero."""
    norms = jnp.sqrt(jnp.diagonal(gram))
    norms = jnp.where(norms == 0, 1.0, norms)
    return gram / norms[:, None] / norms


def combined_norm(gram: jax.Array, weights: jax.Array) -> jax.Array:
    """|sum_i weight_i g_i|, f32[], from the Gram matrix of the g_i."""
    matrix, scales = normalize(gram)
    lengths = jnp.where(jnp.diagonal(gram) == 0, 0.0, weights * scales)
    longest = jnp.max(jnp.abs(lengths))
    longest = jnp.where(longest == 0, 1.0, longest)  # taken out, lest the squares overflow
    lengths = lengths / longest
    product, correction = compensated.matvec(matrix, lengths)
    squared = jnp.sum(lengths * (product + correction))
    return longest * jnp.sqrt(jnp.maximum(squared, 0.0))
