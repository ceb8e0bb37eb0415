"""Weightings that use only the losses: one backward pass per step.

A new method is one function:

* `from_losses(weigh)` where the weights are a function of the losses,
* `from_total(total)` where they are the derivatives of a total loss,
* `from_losses_update(update, init)` where they depend on more: a state, the step, random numbers.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

from mtl_jax.weighting.check import check_state
from mtl_jax.weighting.contract import Diagnostics, Present, PyTree, Signals, TaskWeights, Weighting
from mtl_jax.weighting.rules import InitState, build, checked_init, labelled, restrict

Update = Callable[[Present, PyTree], tuple[jax.Array, PyTree, Diagnostics]]


def from_losses(
    weigh: Callable[[jax.Array], jax.Array],
    *,
    preference: Sequence[float] | None = None,
    needs_positive: bool = False,
) -> Weighting:
    """Returns a Weighting made of a function of the losses.

    Args:
      weigh: losses f32[K] -> weights f32[K]. The loss of a task that takes no part is 1 there, and
        its weight is ignored.
      preference: see `from_losses_update`.
      needs_positive: see `from_losses_update`.
    """

    def update(signals: Present, state: PyTree) -> tuple[jax.Array, PyTree, Diagnostics]:
        return weigh(signals.losses), state, {}

    return from_losses_update(update, preference=preference, needs_positive=needs_positive)


def from_total(
    total: Callable[[jax.Array, jax.Array], jax.Array],
    *,
    preference: Sequence[float] | None = None,
    needs_positive: bool = False,
) -> Weighting:
    """Returns a Weighting that minimises a function of the losses: its derivatives are the weights.

    Args:
      total: (losses f32[K], takes_part bool[K]) -> f32[], differentiable.
      preference: see `from_losses_update`.
      needs_positive: see `from_losses_update`.
    """

    def update(signals: Present, state: PyTree) -> tuple[jax.Array, PyTree, Diagnostics]:
        return jax.grad(total)(signals.losses, signals.takes_part), state, {}

    return from_losses_update(update, preference=preference, needs_positive=needs_positive)


def from_losses_update(
    update: Update,
    init: InitState | None = None,
    *,
    follow_up: Callable[[jax.Array, Present, PyTree], PyTree] | None = None,
    preference: Sequence[float] | None = None,
    needs_positive: bool = False,
    needs_key: bool = False,
    warmup: int = 0,
) -> Weighting:
    """Returns a Weighting made of an update by the losses.

    A task without labels, or whose loss is not finite, takes no part: its weight is 0. Shared
    parameters and heads use the same weights.

    Args:
      update: (signals, state) -> (weights f32[K], state, diagnostics); the weights of tasks that
        take no part are ignored.
      init: num_tasks -> the state that `update` carries; None for no state.
      follow_up: (losses f32[K], signals, state) -> state, as in `Weighting`; the tasks that take
        part are those that did so in the step and whose loss after it is usable, too.
      preference: the user's numbers, one for each task, if the method has such an argument; `init`
        and `update` of the Weighting check their count.
      needs_positive: whether a task with a negative loss takes no part either, as for methods that
        use logarithms or inverses of the losses.
      needs_key: whether `update` draws from `signals.key`.
      warmup: as in `Weighting`.

    Returns:
      A Weighting with the diagnostics of `update` and, in addition,
        fallback f32[]: 1 if the loss of a task with labels is not finite,
        participation f32[K]: 1 for a task that took part,
        negative_loss f32[K], with `needs_positive`: 1 for a task left out for its negative loss.
    """
    init_state = checked_init(init, preference)

    def start(num_tasks: int, shared: PyTree = None) -> PyTree:
        return init_state(num_tasks)

    def check(state: PyTree, num_tasks: int) -> None:
        check_state(state, jax.eval_shape(lambda: init_state(num_tasks)), num_tasks)

    def weigh(signals: Signals, state: PyTree) -> tuple[TaskWeights, PyTree, Diagnostics]:
        present = labelled(signals)
        takes_part = present & jnp.isfinite(signals.losses)
        weights, state, diagnostics = update(restrict(signals, takes_part), state)
        weights = jnp.where(takes_part, weights, 0.0)
        diagnostics = diagnostics | {
            "fallback": jnp.any(present & ~takes_part).astype(jnp.float32),
            "participation": takes_part.astype(jnp.float32),
        }
        return TaskWeights(shared=weights, heads=weights), state, diagnostics

    def after(losses: jax.Array, signals: Signals, state: PyTree) -> PyTree:
        assert follow_up is not None
        return follow_up(losses, restrict(signals, labelled(signals)), state)

    return build(
        Weighting(
            init=start,
            update=weigh,
            needs="losses",
            follow_up=None if follow_up is None else after,
            warmup=warmup,
        ),
        check_state=check,
        needs_positive=needs_positive,
        needs_key=needs_key,
    )
