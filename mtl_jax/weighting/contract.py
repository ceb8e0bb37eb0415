"""What every task weighting is: a pair of pure functions over pytrees of arrays.

Rules that hold for every method:

* K, the number of tasks, is any static number >= 1; everything is float32 inside.
* `update` is pure and traceable (jit, vmap, pmap) and never leaves the device. What it is given is
  checked while it is traced (`check.py`): ValueError for a signal that is missing, has another
  shape or dtype, or belongs to another number of tasks than the state. (A method without a state
  can't tell the last; `balance` can.)
* The state is a pytree of arrays whose structure, shapes and dtypes never change.
* The diagnostics have the same keys, shapes and dtypes (float32) in every call and are finite, so
  that they can be summed over the steps of an epoch; an event such as a fallback is 0 or 1. Every
  method has `fallback` f32[], and `participation` f32[K], 1 for a task that took part.
* A method that needs the Gram matrix and gets None is between two updates: it returns the weights
  and diagnostics of its last update unchanged. Before the first these are ones, and zeros but for
  `fallback`, which is 1: nothing has been solved. A caller who forgets `gram` sees no more than
  that, for the call is the same. So a training loop that updates every N steps pays for one
  backward pass in between, and the mean of a diagnostic over steps is its mean over the weights in
  use.
* A task without labels in a batch (`labelled` False) is absent: its weight is 0, its loss and its
  gradient, even if not finite, change no other task's weight, no state and no
  diagnostic. It counts again with its labels, in steps between two updates with the weight that it
  had last.
* A task with labels whose loss or gradient is not finite makes the step a fallback (`fallback` 1);
  the weights stay finite. A method by the Gram matrix or in gradient space returns the last weights
  and leaves its state as it was; one by the losses gives that task weight 0, leaves the task's part
  of the state alone and weighs the others. No method hides it: the combined gradient of
  `Weighting.combine` and of `balance` is then not finite, and a loop has to skip such a step, as
  `optax.apply_if_finite` does.
* Where logarithms, inverses or ratios of the losses count (`needs_positive` of the functions that
  make a Weighting), a loss from 0 to 1e-8 counts as 1e-8, and a task with a negative loss is absent
  for that step as if it had no labels: `participation` 0, weight 0. Other methods take losses of
  any sign.
* Weights are constants: `build` stops every derivative with respect to signals, gradients and
  state. The derivative of sum_i weight_i g_i is sum_i weight_i dg_i; that of a gradient made by
  `combine` is zero.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from mtl_jax.weighting.check import check_losses, check_signals


class Signals(NamedTuple):
    """What a training step knows of its K tasks.

    Attributes:
      losses: f32[K].
      gram: f32[K, K], inner products of the gradients of the shared parameters; None for a
        method without `needs_gram`, or between two updates of one with it.
      step: i32[], the number of this step.
      key: a PRNG key of this step, for methods that draw.
      labelled: bool[K], whether the batch has labels of the task; None if it has all.
      cross: f32[K, K] for a method with `needs_cross`, cross[i, j] the inner product of task i's
        gradient on one part of the batch with task j's on another; `gram` and the gradients that
        are weighed are then those of a third part.
    """

    losses: jax.Array
    gram: jax.Array | None
    step: jax.Array
    key: jax.Array | None = None
    labelled: jax.Array | None = None
    cross: jax.Array | None = None


class TaskWeights(NamedTuple):
    """The gradient to follow is sum_i weight_i * gradient of task i.

    Attributes:
      shared: f32[K], for the parameters that the tasks share.
      heads: f32[K], for each task's own parameters.
    """

    shared: jax.Array
    heads: jax.Array


class Weighting(NamedTuple):
    """A task weighting.

    The last three attributes are for the few methods that weights and one batch do not say.

    Attributes:
      init: (num_tasks, shared) -> state, a pytree of arrays. `shared` is a pytree of the shapes of
        the shared parameters, which only a method with `combine` reads; None elsewhere. ValueError
        if the method's arguments don't fit that number of tasks.
      update: (signals, state) -> (weights, state, diagnostics).
      needs_gram: whether `update` wants `Signals.gram`. If not, one backward pass of the weighted
        sum of the losses is all a step needs.
      combine: (gradients, signals, state) -> (gradient, weights, state, diagnostics), for methods
        that make the shared gradient entry by entry. `gradients` is a pytree of leaves [K, ...].
        It stands in for `update` wherever there is a Gram matrix; between two updates the loop
        calls `update`, which returns the last weights.
      follow_up: (losses f32[K], signals, state) -> state, called after the step with the losses of
        the same batch under the new parameters and the signals of the step.
      needs_cross: whether `update` wants `Signals.cross`; the step divides the batch in three.
    """

    init: Callable[..., Any]
    update: Callable[[Signals, Any], tuple[TaskWeights, Any, dict[str, jax.Array]]]
    needs_gram: bool
    combine: Callable[[Any, Signals, Any], tuple[Any, TaskWeights, Any, dict]] | None = None
    follow_up: Callable[[jax.Array, Signals, Any], Any] | None = None
    needs_cross: bool = False


def build(
    weighting: Weighting,
    *,
    check_state: Callable[[Any, int], None],
    needs_positive: bool = False,
    needs_key: bool = False,
) -> Weighting:
    """A Weighting that also checks what it is given and stops derivatives, as the contract says.

    Args:
      weighting: the method. Its functions get signals in float32 whose `labelled` is written out,
        False for all absent tasks; `restrict` hides what these hold.
      check_state: (state, num_tasks); raises ValueError for a state of something else.
      needs_positive: whether a task with a negative loss is absent.
      needs_key: whether the method draws from `Signals.key` when it updates.
    """

    def prepare(signals: Signals, state: Any) -> tuple[Signals, Any]:
        updates = not weighting.needs_gram or getattr(signals, "gram", None) is not None
        signals = check_signals(
            signals, draws=needs_key and updates, crosses=weighting.needs_cross and updates
        )
        check_state(state, len(signals.losses))
        floats = {
            name: getattr(signals, name).astype(jnp.float32)
            for name in ("losses", "gram", "cross")
            if getattr(signals, name) is not None
        }
        signals = signals._replace(**floats)
        present = signals.labelled
        if present is None:
            present = jnp.ones(signals.losses.shape, bool)
        if needs_positive:
            # One that is infinite is a failure, which must be seen.
            present &= ~((signals.losses < 0) & jnp.isfinite(signals.losses))
        return jax.lax.stop_gradient((signals._replace(labelled=present), state))

    def update(signals: Signals, state: Any) -> tuple[TaskWeights, Any, dict[str, jax.Array]]:
        return weighting.update(*prepare(signals, state))

    def combine(
        gradients: Any, signals: Signals, state: Any
    ) -> tuple[Any, TaskWeights, Any, dict[str, jax.Array]]:
        if getattr(signals, "gram", None) is None:
            raise ValueError(
                "`gram` is missing: `combine` wants the inner products of its gradients"
            )
        signals, state = prepare(signals, state)
        gradients = jax.lax.stop_gradient(gradients)
        return weighting.combine(gradients, signals, state)

    def follow_up(losses: jax.Array, signals: Signals, state: Any) -> Any:
        signals, state = prepare(signals, state)
        losses = check_losses(losses, num_tasks=len(signals.losses))
        after, _ = prepare(signals._replace(losses=losses), state)
        finite = jnp.isfinite(signals.losses) & jnp.isfinite(after.losses)
        present = signals.labelled & after.labelled & finite
        return weighting.follow_up(after.losses, signals._replace(labelled=present), state)

    return weighting._replace(
        update=update,
        combine=None if weighting.combine is None else combine,
        follow_up=None if weighting.follow_up is None else follow_up,
    )


def restrict(signals: Signals, takes_part: jax.Array) -> Signals:
    """Signals with losses of 1 and inner products of 0 for tasks that take no part."""
    both = takes_part[:, None] & takes_part
    matrices = {
        name: jnp.where(both, getattr(signals, name), 0.0)
        for name in ("gram", "cross")
        if getattr(signals, name) is not None
    }
    return signals._replace(losses=jnp.where(takes_part, signals.losses, 1.0), **matrices)


def of_present(weights: TaskWeights, signals: Signals) -> TaskWeights:
    """The weights, 0 for tasks that are absent."""
    return jax.tree.map(lambda weight: jnp.where(signals.labelled, weight, 0.0), weights)


def broken(signals: Signals) -> jax.Array:
    """The present tasks whose loss or gradient is not finite, bool[K]."""
    finite = jnp.isfinite(signals.losses)
    if signals.gram is not None:
        finite &= jnp.isfinite(jnp.diagonal(signals.gram))
    return signals.labelled & ~finite
