"""What every task weighting is: a pair of pure functions over pytrees of arrays.

Rules that hold for every method:

* K, the number of tasks, is any static number >= 1; everything is float32 inside.
* `update` is pure and traceable (jit, vmap, pmap) and never leaves the device.
* The state is a pytree of arrays whose structure, shapes and dtypes never change.
* The diagnostics have the same keys, shapes and dtypes (float32) in every call and are finite, so
  that they can be summed over the steps of an epoch; an event such as a fallback is 0 or 1.
* A method that needs the Gram matrix and gets None is between two updates: it returns the weights
  and diagnostics of its last update unchanged, ones and zeros before the first. So a training loop
  that updates every N steps pays for one backward pass in between, and the mean of a diagnostic
  over steps is its mean over the weights in use.
* A task without labels in a batch (`labelled` False) gets a finite weight, changes no other
  task's weight and leaves its own part of the state alone.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp


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


def check_num_tasks(num_tasks: int) -> None:
    """Raises ValueError unless there is at least one task."""
    if num_tasks < 1:
        raise ValueError(f"a weighting needs at least one task, got num_tasks={num_tasks}")


def labelled_tasks(signals: Signals) -> jax.Array:
    """`signals.labelled` with None written out, bool[K]."""
    if signals.labelled is None:
        return jnp.ones(signals.losses.shape, bool)
    return signals.labelled
