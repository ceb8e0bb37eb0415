"""Weightings that make the shared gradient entry by entry, or remember gradients.

They cost K backward passes per update, as those by the Gram matrix do, and keep the K gradients in
memory. A new method is one function:

* `from_gradients(merge)` where the gradient is a function of the K gradients,
* `from_gradients_update(update, init)` where it depends on more: losses, a state, random numbers.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from mtl_jax.weighting.check import check_gradients, check_num_tasks, check_state
from mtl_jax.weighting.contract import Diagnostics, Present, PyTree, Signals, TaskWeights, Weighting
from mtl_jax.weighting.gradients import all_finite, per_task
from mtl_jax.weighting.rules import (
    before_any_update,
    broken,
    build,
    check_kept,
    diagnostics_of,
    example,
    keep_finite,
    keep_if,
    of_present,
    participants,
    restrict,
)

Update = Callable[[PyTree, Present, PyTree], tuple[PyTree, TaskWeights, PyTree]]
InitState = Callable[[int, PyTree], PyTree]


class GradientsState(NamedTuple):
    """State of a method by the gradients.

    Attributes:
      method: the method's own state, a pytree of arrays.
      weights: TaskWeights nearest to the last combination, for steps between two of them.
      diagnostics: diagnostics of the last combination.
    """

    method: PyTree
    weights: TaskWeights
    diagnostics: Diagnostics


def from_gradients(merge: Callable[[PyTree], PyTree]) -> Weighting:
    """Returns a Weighting made of a function of the K gradients.

    `from_gradients(lambda gradients: jax.tree.map(lambda g: jnp.median(g, axis=0), gradients))`
    follows the median of the gradients in every entry.

    Args:
      merge: gradients, leaves [K, ...], zero for tasks that take no part -> gradient, leaves [...].
        In steps between two updates, and for the heads, all weights are one.
    """

    def update(
        gradients: PyTree, signals: Present, state: PyTree
    ) -> tuple[PyTree, TaskWeights, PyTree]:
        ones = jnp.ones(signals.losses.shape, jnp.float32)
        return merge(gradients), TaskWeights(shared=ones, heads=ones), state

    return from_gradients_update(update)


def from_gradients_update(
    update: Update,
    init: InitState | None = None,
    *,
    needs_positive: bool = False,
    needs_key: bool = False,
) -> Weighting:
    """Returns a Weighting made of an update by the K gradients.

    A task without labels, or with a gradient of zero, takes no part. If the loss or gradient of one
    that takes part is not finite, or the new weights or state are not, weights and state stay as
    they were and the step counts as a fallback. In place of the gradient of a task whose loss or
    gradient is not finite, `update` gets NaN, so that the combined gradient is not finite either
    and the training loop can detect the failure.

    Args:
      update: (gradients, signals, state) -> (gradient, the TaskWeights nearest to it, state). The
        gradients have leaves [K, ...], zero for tasks that take no part.
      init: (num_tasks, shapes of the shared parameters) -> the state that `update` carries; None
        for no state.
      needs_positive: whether a task with a negative loss takes no part either, as for methods that
        multiply or divide the gradients by the losses.
      needs_key: whether `update` draws from `signals.key`.

    Returns:
      A Weighting with a `GradientsState` and the diagnostics of `diagnostics_of`; with
      `needs_positive` also `negative_loss`, see the contract.
    """
    own_state: InitState = (lambda num_tasks, shared: ()) if init is None else init
    return build(
        Weighting(
            init=partial(_init, own_state),
            update=_hold,
            needs="gradients",
            combine=partial(_combine, update, own_state),
        ),
        check_state=partial(check_kept, kind=GradientsState),
        needs_positive=needs_positive,
        needs_key=needs_key,
    )


def _init(own_state: InitState, num_tasks: int, shared: PyTree = None) -> GradientsState:
    num_tasks = check_num_tasks(num_tasks)
    if shared is None:
        raise ValueError(
            "`shared` is missing: this weighting's `init` needs the shapes of the shared parameters"
        )
    ones = jnp.ones(num_tasks, jnp.float32)
    diagnostics = before_any_update(
        diagnostics_of(restrict(example(num_tasks), ones > 0), jnp.array(True))
    )
    return GradientsState(own_state(num_tasks, shared), TaskWeights(ones, ones), diagnostics)


def _hold(
    signals: Signals, state: GradientsState
) -> tuple[TaskWeights, GradientsState, Diagnostics]:
    """Returns the last weights, for a step between two updates."""
    return of_present(state.weights, signals), state, state.diagnostics


def _combine(
    update: Update,
    own_state: InitState,
    gradients: PyTree,
    signals: Signals,
    state: GradientsState,
) -> tuple[PyTree, TaskWeights, GradientsState, Diagnostics]:
    num_tasks = check_gradients(gradients, num_tasks=len(signals.losses))
    shapes = jax.tree.map(lambda g: jax.ShapeDtypeStruct(g.shape[1:], g.dtype), gradients)
    check_state(state.method, jax.eval_shape(lambda: own_state(num_tasks, shapes)), num_tasks)

    takes_part, failed = participants(signals), broken(signals)
    given = _hide(gradients, takes_part, failed)
    parties = restrict(signals, takes_part)
    gradient, weights, new = update(given, parties, state.method)
    anybody = jnp.any(takes_part)
    solved = anybody & ~jnp.any(failed) & all_finite((weights, new))
    diagnostics = keep_finite(diagnostics_of(parties, solved), state.diagnostics)
    weights = keep_if(solved, weights, state.weights)
    # A method may remember gradients, but where no task takes part the gradient is zero.
    gradient = jax.tree.map(
        lambda x, g: jnp.where(anybody, x, 0.0).astype(g.dtype), gradient, gradients
    )
    kept = GradientsState(keep_if(solved, new, state.method), weights, diagnostics)
    return gradient, of_present(weights, signals), kept, diagnostics


def _hide(gradients: PyTree, takes_part: jax.Array, failed: jax.Array) -> PyTree:
    """Returns gradients of 0 for tasks that take no part, and of NaN for those that failed."""
    # A finite gradient must not hide that its loss is not finite.
    filling, usable = jnp.where(failed, jnp.nan, 0.0), takes_part & ~failed
    return jax.tree.map(
        lambda g: jnp.where(per_task(usable, g), g, per_task(filling, g).astype(g.dtype)),
        gradients,
    )
