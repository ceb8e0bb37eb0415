"""The weightings for your own training loop, in the manner of optax."""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from mtl_jax.weighting.check import (
    Leaves,
    check_gradients,
    check_num_tasks,
    check_params,
    check_signals,
    describe,
)
from mtl_jax.weighting.contract import Facts, PyTree, Signals, Weighting
from mtl_jax.weighting.gradients import all_finite, combine, gram, select
from mtl_jax.weighting.make import make


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Problem:
    """The arguments of `init`, for `update` to compare. It has no arrays and no leaves.

    Attributes:
      num_tasks: K.
      params: paths and shapes of the parameters' leaves.
    """

    num_tasks: int
    params: Leaves


class BalanceState(NamedTuple):
    """State of a balance.

    Attributes:
      step: i32[], updates so far.
      key: PRNG key from which each step's is made.
      weighting: state of the weighting.
      weights: f32[K], the weights of the gradients in the last update, ones before the first; for a
        method by the gradients themselves, the nearest to its result.
      diagnostics: of the last update, zeros before the first: `fallback` f32[], 1 if a loss or
        gradient of a task with labels was not finite or the method had no answer; `participation`
        f32[K], 1 for a task that took part; and those of the method.
      problem: what `init` was given.
    """

    step: jax.Array
    key: jax.Array
    weighting: PyTree
    weights: jax.Array
    diagnostics: Facts
    problem: Problem


class Balance(NamedTuple):
    """Turns K gradients into one.

    Attributes:
      init: (num_tasks, params) -> state.
      update: (losses f32[K], gradients with leaves [K, ...], state, labelled) -> (gradient, state);
        pure, to be called inside jit. The gradient is like the parameters, for any optimizer.
        `labelled` bool[K] says which tasks have labels in the batch, None for all; losses and
        gradients of the others may hold anything, NaN included. ValueError, while it is traced,
        for arguments of other shapes than those of `init`.

    If a loss or gradient of a task with labels is not finite, neither is the gradient: an optimizer
    has to skip it, as `optax.apply_if_finite` does. `state.diagnostics["fallback"]` is then 1, and
    the weighting continues with the next step as its contract says. The weights are constants for
    differentiation.
    """

    init: Callable[[int, PyTree], BalanceState]
    update: Callable[..., tuple[PyTree, BalanceState]]


def balance(weighting: Weighting | str, *, seed: int = 0) -> Balance:
    """Makes a function of K gradients from a weighting; all parameters count as shared.

    Args:
      weighting: a Weighting such as `nash()`, or its text such as "nash" or "fairgrad:alpha=2".
      seed: for weightings that draw random numbers.

    Raises:
      ValueError: for anything but a weighting, or for one that needs more than the losses and
        gradients of a step: gradients on parts of the batch, or the losses after the step.
    """
    if isinstance(weighting, str):
        weighting = make(weighting)
    _check_weighting(weighting)
    return Balance(init=partial(_init, weighting, seed), update=partial(_update, weighting))


def _init(weighting: Weighting, seed: int, num_tasks: int, params: PyTree) -> BalanceState:
    problem = Problem(check_num_tasks(num_tasks), check_params(params))
    # Copied: a method may put one array twice into its state, which could then not be donated.
    state = jax.tree.map(
        jnp.copy, weighting.init(problem.num_tasks, jax.eval_shape(lambda: params))
    )
    step, key = jnp.zeros((), jnp.int32), jax.random.key(seed)
    ones = jnp.ones(problem.num_tasks, jnp.float32)
    between = Signals(ones, None, step, key)  # the diagnostics are those of an update
    _, _, diagnostics = jax.eval_shape(weighting.update, between, state)
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), diagnostics)
    zeros["fallback"] = jnp.zeros((), jnp.float32)
    return BalanceState(step, key, state, ones, zeros, problem)


def _update(
    weighting: Weighting,
    losses: jax.Array,
    gradients: PyTree,
    state: BalanceState,
    labelled: jax.Array | None = None,
) -> tuple[PyTree, BalanceState]:
    if not isinstance(state, BalanceState):
        raise ValueError(
            "`state` must be the BalanceState that `init` or the last `update` returned, got "
            f"{describe(state)}"
        )
    problem = state.problem
    key = jax.random.fold_in(state.key, state.step)
    signals = Signals(losses, gram=None, step=state.step, key=key, labelled=labelled)
    signals = check_signals(signals, num_tasks=problem.num_tasks)
    check_gradients(gradients, num_tasks=problem.num_tasks, params=problem.params)
    present = signals.labelled
    if present is not None:
        gradients = select(gradients, present)
    if weighting.needs != "losses":
        signals = signals._replace(gram=gram(gradients))
    if weighting.combine is not None:
        gradient, weights, new, diagnostics = weighting.combine(gradients, signals, state.weighting)
    else:
        weights, new, diagnostics = weighting.update(signals, state.weighting)
        # A finite gradient, or a weight of zero, must not hide a loss that is not finite.
        broken = ~jnp.isfinite(signals.losses)
        if present is not None:
            broken &= present
        followed = jnp.where(broken, jnp.nan, weights.shared)
        gradient = combine(gradients, jax.lax.stop_gradient(followed))
    unusable = 1.0 - all_finite(gradient).astype(jnp.float32)
    fallback = jnp.maximum(unusable, diagnostics.get("fallback", 0.0))
    diagnostics = diagnostics | {"fallback": fallback}
    new = BalanceState(state.step + 1, state.key, new, weights.shared, diagnostics, problem)
    return gradient, new


def _check_weighting(weighting: Any) -> None:
    if callable(weighting):
        name = getattr(weighting, "__name__", "the_method")
        raise ValueError(
            f"`weighting` must be a Weighting, got the function that makes it: call "
            f"balance({name}())"
        )
    if not isinstance(weighting, Weighting):
        raise ValueError(
            f"`weighting` must be a Weighting such as nash(), or a text such as 'nash', got "
            f"{describe(weighting)}"
        )
    if weighting.needs_cross or weighting.follow_up is not None:
        raise ValueError(
            "this weighting needs more than the losses and gradients of a step: call its `update` "
            "(and `follow_up`) yourself"
        )
