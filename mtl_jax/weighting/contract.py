"""The contract that every task weighting keeps: a pair of pure functions over pytrees of arrays.

Rules that hold for every method:

* K, the number of tasks, is any static number >= 1; everything is float32 inside.
* `update` is pure and traceable (jit, vmap, pmap) and never leaves the device. Its arguments are
  checked while it is traced (`check.py`): ValueError for a signal that is missing, has another
  shape or dtype, or belongs to another number of tasks than the state. (A method without a state
  cannot check the last; `combine_tasks` can.)
* The state is a pytree of arrays whose structure, shapes and dtypes never change.
* The diagnostics have the same keys, shapes and dtypes (float32) in every call and are finite, so
  that they can be summed over the steps of an epoch; an event such as a fallback is 0 or 1. Every
  method has `fallback` f32[], and `participation` f32[K], 1 for a task that took part.
* A method that needs the Gram matrix and gets None is between two updates: it returns the weights
  and diagnostics of its last update unchanged. Before the first update the weights are ones and the
  diagnostics zeros, except for `fallback`, which is 1: nothing has been solved. A caller who
  forgets `gram` gets the same result. A training loop that updates every N steps therefore pays for
  one backward pass per step in between, and the mean of a diagnostic over steps is its mean over
  the weights in use.
* A task without labels in a batch (`labelled` False) is absent: its weight is 0, and its loss and
  its gradient, even if they are not finite, change no other task's weight, no state and no
  diagnostic. It counts again as soon as a batch has its labels; in steps between two updates it
  does so with the weight that it had last. For a method with `combine` that is the weight left by
  the last combination, which was made without the task: 1 for its head and, for the shared
  parameters, 0 in methods that scale the gradients.
* A task with labels whose loss or gradient is not finite makes the step a fallback (`fallback` 1);
  the weights stay finite. A method that works on the Gram matrix or on the gradients returns the
  last weights and leaves its state as it was; one that works on the losses gives that task weight
  0, leaves the task's part of the state alone and weights the others. No method hides the failure:
  the combined gradient of `Weighting.combine` and of `combine_tasks` is then not finite, and a
  loop has to skip such a step, as `optax.apply_if_finite` does.
* Where logarithms, inverses or ratios of the losses are used (`needs_positive` of the functions
  that make a Weighting), a loss from 0 to 1e-6 counts as 1e-6, so that a weight 1 / L is at most a
  million. A loss down to -1e-6, which is negative by rounding, counts as 1e-6, too. A task with a
  negative loss is absent for that step as if it had no labels: `participation` 0, weight 0. Such
  methods have one more diagnostic, which is always that of the present step: `negative_loss`
  f32[K], 1 for a task with labels that was left out for that reason. If a loss has a lower bound
  other than 0, subtract the bound, which does not change the gradient. A loss without a bound, such
  as the negative logarithm of a density, needs a method that accepts losses of any sign, as all
  others do.
* Weights are constants: no derivative passes through signals, gradients and state. The derivative
  of sum_i weight_i g_i is sum_i weight_i dg_i; that of a gradient made by `combine` is zero.
"""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax

# Any nesting of tuples, lists and dicts of arrays.
PyTree = Any
# Name -> value.
Diagnostics = dict[str, jax.Array]
# What a method reads of a training step.
Needs = Literal["losses", "gram", "gradients"]


class Signals(NamedTuple):
    """What a training step knows about its K tasks.

    Attributes:
      losses: f32[K].
      gram: f32[K, K], inner products of the gradients of the shared parameters; None for a method
        that needs the losses alone, or between two updates of any other.
      step: i32[], the number of this step.
      key: a PRNG key of this step, for methods that draw random numbers.
      labelled: bool[K], whether the batch has labels of the task; None if it has all.
      cross: f32[K, K] for a method with `needs_cross`, cross[i, j] the inner product of task i's
        gradient on one part of the batch with task j's on another; `gram` and the gradients that
        are weighted are then those of a third part.
    """

    losses: jax.Array
    gram: jax.Array | None
    step: jax.Array
    key: jax.Array | None = None
    labelled: jax.Array | None = None
    cross: jax.Array | None = None


class Present(NamedTuple):
    """The signals that a method's own update gets, of only those tasks that take part.

    Attributes:
      losses: f32[K], 1 for tasks that take no part.
      takes_part: bool[K].
      step: i32[], the number of this step.
      gram: f32[K, K], with zero rows and columns for tasks that take no part; only for a method
        that needs it.
      key: a PRNG key of this step; only for a method that needs it.
      cross: see `Signals`, with zeros as in `gram`; only for a method that needs it.
      labelled: bool[K], the tasks with labels; one whose gradient is zero takes no part.
    """

    losses: jax.Array
    takes_part: jax.Array
    step: jax.Array
    gram: jax.Array
    key: jax.Array
    cross: jax.Array
    labelled: jax.Array


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

    The last four attributes are for the few methods that need more than losses and weights.

    Attributes:
      init: (num_tasks, shared) -> state, a pytree of arrays. `shared` is a pytree of the shapes of
        the shared parameters, which only a method with `combine` reads; None elsewhere. ValueError
        if the method's arguments do not fit that number of tasks.
      update: (signals, state) -> (weights, state, diagnostics).
      needs: what the method reads: "losses", in which case a step needs one backward pass only, of
        the weighted sum of the losses; "gram", the Gram matrix of the K gradients, in
        `Signals.gram`; or "gradients", the K gradients themselves and their Gram matrix, by
        `combine`.
      combine: (gradients, signals, state) -> (gradient, weights, state, diagnostics), for methods
        that make the shared gradient entry by entry. `gradients` is a pytree of leaves [K, ...].
        It replaces `update` wherever there is a Gram matrix; between two updates the loop calls
        `update`, which returns the last weights.
      follow_up: (losses f32[K], signals, state) -> state, called after the step with the losses of
        the same batch under the new parameters and the signals of the step.
      needs_cross: whether `update` reads `Signals.cross`; the step divides the batch in three.
      warmup: number of steps at the beginning that only measure losses, and have the weights of a
        simpler method.
    """

    init: Callable[..., PyTree]
    update: Callable[[Signals, PyTree], tuple[TaskWeights, PyTree, Diagnostics]]
    needs: Needs
    combine: (
        Callable[[PyTree, Signals, PyTree], tuple[PyTree, TaskWeights, PyTree, Diagnostics]] | None
    ) = None
    follow_up: Callable[[jax.Array, Signals, PyTree], PyTree] | None = None
    needs_cross: bool = False
    warmup: int = 0
