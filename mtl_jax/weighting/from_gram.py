"""Weightings that use the Gram matrix of the K gradients: K backward passes per update.

A new method is one function:

* `from_gram(weigh)` where the weights are a function of the matrix,
* `from_gram_update(update, init)` where they depend on more: the losses, a state, random numbers.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from mtl_jax.weighting.check import check_state
from mtl_jax.weighting.contract import Diagnostics, Present, PyTree, Signals, TaskWeights, Weighting
from mtl_jax.weighting.gradients import all_finite
from mtl_jax.weighting.numerics.matrix import combined_norm, is_gram
from mtl_jax.weighting.rules import (
    InitState,
    before_any_update,
    broken,
    build,
    check_kept,
    checked_init,
    diagnostics_of,
    example,
    keep_finite,
    keep_if,
    of_present,
    participants,
    restrict,
)

Update = Callable[[Present, PyTree], tuple[jax.Array, PyTree, Diagnostics]]


class GramState(NamedTuple):
    """State of a method by the Gram matrix.

    Attributes:
      method: the method's own state, a pytree of arrays.
      solution: f32[K], the weights that the method last found, before any limit on the norm.
      weights: TaskWeights of the last update.
      diagnostics: diagnostics of the last update.
    """

    method: PyTree
    solution: jax.Array
    weights: TaskWeights
    diagnostics: Diagnostics


class _Method(NamedTuple):
    """The arguments of `from_gram_update` that its functions read."""

    update: Update
    init: InitState
    max_norm: float
    plain_heads: bool
    needs_cross: bool


def from_gram(
    weigh: Callable[[jax.Array], jax.Array],
    *,
    max_norm: float = math.inf,
    plain_heads: bool = False,
    preference: Sequence[float] | None = None,
) -> Weighting:
    """Returns a Weighting made of a function of the Gram matrix.

    `from_gram(lambda gram: 1 / jnp.sqrt(jnp.diagonal(gram)))` brings all gradients to length one.

    Args:
      weigh: gram f32[K, K] -> weights f32[K]. Tasks that take no part have zero rows and columns,
        all others a positive diagonal entry; the weights of the former are ignored. A weight that
        is not finite means that there is no answer.
      max_norm: see `from_gram_update`.
      plain_heads: see `from_gram_update`.
      preference: see `from_gram_update`.
    """

    def update(signals: Present, state: PyTree) -> tuple[jax.Array, PyTree, Diagnostics]:
        return weigh(signals.gram), state, {}

    return from_gram_update(
        update, max_norm=max_norm, plain_heads=plain_heads, preference=preference
    )


def from_gram_update(
    update: Update,
    init: InitState | None = None,
    *,
    max_norm: float = math.inf,
    plain_heads: bool = False,
    preference: Sequence[float] | None = None,
    needs_positive: bool = False,
    needs_key: bool = False,
    needs_cross: bool = False,
) -> Weighting:
    """Returns a Weighting made of an update by the Gram matrix.

    The result follows the contract:

    * Between updates (`gram` None) the last weights are used.
    * A task without labels, or with a gradient of zero, takes no part. A task without labels has
      weight 0; a task with a zero gradient keeps its last weight, with which its head is trained.
    * If there is no answer, a loss or gradient is not finite, or the matrix is not a Gram matrix
      (not symmetric, or with an entry that exceeds the product of the norms by more than a
      hundredth of it), the last weights are reused and the step counts as a fallback.
    * The combined gradient of the shared parameters is at most `max_norm` long in the steps that
      update the weights.

    Args:
      update: (signals, state) -> (weights f32[K], state, diagnostics); the weights of tasks that
        take no part are ignored. A weight, or an entry of the state, that is not finite means that
        there is no answer; weights and state are then dropped.
      init: num_tasks -> the state that `update` carries; None for no state.
      max_norm: the shared weights are scaled down until |sum_i weight_i g_i| <= max_norm; those of
        the heads are not. `inf` for no limit.
      plain_heads: whether each head follows its own loss alone, as for methods published for the
        shared gradients only; otherwise the heads use the unclipped weights, as for methods
        published as a weighted sum of the losses.
      preference: the user's numbers, one for each task, if the method has such an argument; `init`
        and `update` of the Weighting check their count.
      needs_positive: whether a task with a negative loss takes no part either, as for methods that
        use ratios or inverses of the losses.
      needs_key: whether `update` draws from `signals.key`.
      needs_cross: whether `update` reads `signals.cross`.

    Returns:
      A Weighting with a `GramState`, the diagnostics of `update` and those of `diagnostics_of`;
      with `needs_positive` also `negative_loss`, see the contract.

    Raises:
      ValueError: for a max_norm that is not positive.
    """
    if not max_norm > 0:
        raise ValueError(f"max_norm must be positive (inf for no limit), got {max_norm}")
    method = _Method(update, checked_init(init, preference), max_norm, plain_heads, needs_cross)
    return build(
        Weighting(
            init=partial(_init, method),
            update=partial(_update, method),
            needs="gram",
            needs_cross=needs_cross,
        ),
        check_state=partial(_check, method),
        needs_positive=needs_positive,
        needs_key=needs_key,
    )


def _init(method: _Method, num_tasks: int, shared: PyTree = None) -> GramState:
    state = method.init(num_tasks)
    ones = jnp.ones(num_tasks, jnp.float32)
    shapes = jax.eval_shape(partial(_solve, method), example(num_tasks), ones, state)[-1]
    diagnostics = before_any_update(shapes)
    return GramState(state, ones, TaskWeights(shared=ones, heads=ones), diagnostics)


def _check(method: _Method, state: PyTree, num_tasks: int) -> None:
    check_kept(state, num_tasks, kind=GramState)
    check_state(state.method, jax.eval_shape(lambda: method.init(num_tasks)), num_tasks)


def _update(
    method: _Method, signals: Signals, state: GramState
) -> tuple[TaskWeights, GramState, Diagnostics]:
    if signals.gram is None:
        return of_present(state.weights, signals), state, state.diagnostics
    solution, gram, own, diagnostics = _solve(method, signals, state.solution, state.method)
    norm = combined_norm(gram, solution)
    clipped = solution * jnp.minimum(1.0, method.max_norm / norm)
    weights = TaskWeights(
        shared=jnp.where(jnp.isfinite(norm), clipped, state.weights.shared),
        heads=jnp.ones_like(solution) if method.plain_heads else solution,
    )
    diagnostics = keep_finite(diagnostics, state.diagnostics)
    return of_present(weights, signals), GramState(own, solution, weights, diagnostics), diagnostics


def _solve(
    method: _Method, signals: Signals, last: jax.Array, state: PyTree
) -> tuple[jax.Array, jax.Array, PyTree, Diagnostics]:
    """Returns unclipped weights, the participants' Gram matrix, state and diagnostics."""
    takes_part, failed = participants(signals), jnp.any(broken(signals))
    parties = restrict(signals, takes_part)
    weights, new, diagnostics = method.update(parties, state)
    solved = jnp.all(jnp.isfinite(weights) | ~takes_part) & jnp.any(takes_part)
    solved &= is_gram(parties.gram) & ~failed & all_finite(new)
    if method.needs_cross:
        solved &= all_finite(parties.cross)
    weights = jnp.where(solved & takes_part, weights, last)
    diagnostics = diagnostics | diagnostics_of(parties, solved)
    return weights, parties.gram, keep_if(solved, new, state), diagnostics
