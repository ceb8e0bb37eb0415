"""A weighting as an optax transformation: the gradients of K losses in, one gradient out."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from mtl_jax.weighting.backward import followed, mean_losses, shares
from mtl_jax.weighting.check import (
    check_combined,
    check_gradients,
    check_num_tasks,
    check_params,
    check_signals,
    describe,
)
from mtl_jax.weighting.contract import Diagnostics, PyTree, Signals, TaskWeights, Weighting
from mtl_jax.weighting.gradients import all_finite, combine, gram, per_task, select
from mtl_jax.weighting.leaves import Mask, Parts, lay_out, without_fixed, zeros_for_fixed
from mtl_jax.weighting.make import make


class CombineTasksState(NamedTuple):
    """State of `combine_tasks`, a pytree of arrays.

    Attributes:
      step: i32[], updates so far.
      computed: i32[], the step that last computed weights from K gradients; -`every` before that.
      seed: i32[], from which each step's random numbers are made.
      weighting: state of the weighting.
      weights: TaskWeights of f32[K], ones before the first update; a task that is absent, or whose
        loss is not finite, keeps those that it had last, as does one that the method leaves out
        because its loss is negative. For a method by the gradients themselves, the nearest to its
        result.
      diagnostics: of the last update of the weights, zeros before the first: `participation`
        f32[K], 1 for a task that took part, and those of the method. `fallback` f32[] and, if the
        method has it, `negative_loss` f32[K] are those of the last step; `fallback` is 1 if a loss
        or gradient of a task with labels was not finite or the method had no answer.
    """

    step: jax.Array
    computed: jax.Array
    seed: jax.Array
    weighting: PyTree
    weights: TaskWeights
    diagnostics: Diagnostics


class _Rule(NamedTuple):
    """The arguments of `combine_tasks` that an update reads."""

    weighting: Weighting
    num_tasks: int
    heads: Mask | None
    every: int
    axis_name: str | None


def combine_tasks(
    weighting: Weighting | str,
    *,
    num_tasks: int,
    heads: Mask | None = None,
    every: int = 1,
    axis_name: str | None = None,
    seed: int | jax.Array = 0,
) -> optax.GradientTransformationExtraArgs:
    """Makes an optax transformation that combines the gradients of K tasks into one.

    It stands first in a chain, and the transformations after it see one gradient with the shapes
    of the parameters:

        tx = optax.chain(combine_tasks("nash", num_tasks=2), optax.adam(1e-3))
        losses, gradients = task_gradients(losses_of, params)
        updates, state = tx.update(gradients, state, params, losses=losses)

    `update` takes these keyword arguments:

    * `losses` f32[K], always.
    * `labelled` bool[K]: whether the batch has labels of each task; None for all. Losses and
      gradients of the others may hold anything, NaN included.
    * `combined`: True in a step whose gradient is already the weighted one, as `weighted_gradient`
      returns it; it is passed on.

    If a loss or gradient of a task with labels is not finite, neither is the combined gradient: an
    optimizer has to skip it, as `optax.apply_if_finite(optax.adam(1e-3), 5)` does. The weights are
    constants for differentiation.

    Args:
      weighting: a Weighting such as `nash()`, or its text such as "nash" or "fairgrad:alpha=2".
      num_tasks: K.
      heads: which parameters belong to the tasks' heads: a pytree of booleans like the parameters,
        or a prefix of it, or a function that makes such a pytree from the parameters (or
        gradients). The gradients of these parameters get `weights.heads`, and take no part in the
        Gram matrix. None if all parameters are shared.
      every: a step with K gradients computes new weights if the last ones are at least `every`
        steps old; the steps in between use the last ones. A method that needs the losses alone
        updates its weights in every step.
      axis_name: axis of `jax.pmap`, or of `jax.shard_map` with `check_vma=False`. The losses and
        gradients of each task are averaged over the devices that have its labels before they are
        weighted. None for one device.
      seed: for weightings that draw random numbers.

    Raises:
      ValueError: for anything but a weighting, or for one that needs more than the losses and
        gradients of a step: gradients on parts of the batch, or the losses after the step.
        `update` raises it while it is traced, for losses, gradients or a state of a wrong type or
        shape.
    """
    made = make(weighting) if isinstance(weighting, str) else weighting
    _check_weighting(made, weighting if isinstance(weighting, str) else "this weighting")
    if not isinstance(every, int) or every < 1:
        raise ValueError(f"`every` must be a whole number of at least 1, got {describe(every)}")
    rule = _Rule(made, check_num_tasks(num_tasks), heads, every, axis_name)
    return optax.GradientTransformationExtraArgs(partial(_init, rule, seed), partial(_update, rule))


def _init(rule: _Rule, seed: int | jax.Array, params: PyTree) -> CombineTasksState:
    # optax.tree_map_params calls `init` with a pytree without leaves.
    if jax.tree.leaves(params):
        check_params(without_fixed(params))
    shared = lay_out(params, rule.heads).split(params).shared
    # Copied: a method may put one array twice into its state, which could then not be donated.
    state = jax.tree.map(
        jnp.copy, rule.weighting.init(rule.num_tasks, jax.eval_shape(lambda: shared))
    )
    step, ones = jnp.zeros((), jnp.int32), jnp.ones(rule.num_tasks, jnp.float32)
    seed = jnp.asarray(seed, jnp.int32)
    # Without `gram`, a method returns diagnostics of the same form as in an update.
    between = Signals(ones, None, step, _key(seed, step))
    _, _, diagnostics = jax.eval_shape(rule.weighting.update, between, state)
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), diagnostics)
    zeros["fallback"] = jnp.zeros((), jnp.float32)
    weights, computed = TaskWeights(ones, jnp.copy(ones)), jnp.full((), -rule.every, jnp.int32)
    return CombineTasksState(step, computed, seed, state, weights, zeros)


def _update(
    rule: _Rule,
    gradients: PyTree,
    state: CombineTasksState,
    params: PyTree | None = None,
    *,
    losses: Any = None,
    labelled: Any = None,
    combined: bool = False,
    **extra_args: Any,
) -> tuple[PyTree, CombineTasksState]:
    del extra_args  # of the other transformations in a chain
    signals = _signals(rule, state, losses, labelled)
    floating = without_fixed(gradients)
    like = None if params is None else without_fixed(params)
    if combined:
        if like is not None:
            check_combined(floating, like)
        signals, _ = _average(rule, signals, ())
        weights, kept, diagnostics = _between(rule, signals, state)
        gradient, computed = gradients, state.computed
    else:
        known = None if like is None else check_params(like)
        check_gradients(floating, num_tasks=rule.num_tasks, params=known)
        layout = lay_out(gradients, rule.heads)
        shared, own, fixed = layout.split(gradients)
        signals, groups = _average(rule, signals, (shared, own))
        groups, weights, kept, diagnostics = _combine(rule, groups, signals, state)
        computed = jnp.where(_is_due(rule, state), state.step, state.computed)
        gradient = layout.join(Parts(*groups, fixed=[x[0] for x in zeros_for_fixed(fixed)]))
    unusable = 1.0 - all_finite(gradient).astype(jnp.float32)
    diagnostics = diagnostics | {"fallback": jnp.maximum(unusable, diagnostics["fallback"])}
    known = jnp.isfinite(signals.losses) & ~_negative(diagnostics, rule.num_tasks)
    if signals.labelled is not None:
        known &= signals.labelled
    weights = jax.tree.map(partial(jnp.where, known), weights, state.weights)
    new = CombineTasksState(state.step + 1, computed, state.seed, kept, weights, diagnostics)
    return gradient, new


def _signals(rule: _Rule, state: CombineTasksState, losses: Any, labelled: Any) -> Signals:
    """Returns the signals of this device."""
    if not isinstance(state, CombineTasksState):
        raise ValueError(
            "`state` must be the CombineTasksState that `init` or the last `update` returned, got "
            f"{describe(state)}"
        )
    if losses is None:
        raise ValueError(
            "`losses` is missing: combine_tasks needs "
            "update(gradients, state, params, losses=losses)"
        )
    key = _key(state.seed, state.step)
    signals = Signals(losses, gram=None, step=state.step, key=key, labelled=labelled)
    return check_signals(signals, num_tasks=rule.num_tasks)


# Gradients of the shared parameters and of those of the heads: K of each, or one.
_Groups = tuple[list[jax.Array], list[jax.Array]]


def _average(rule: _Rule, signals: Signals, groups: Any) -> tuple[Signals, Any]:
    """Returns signals and gradients averaged over the devices, with gradients 0 of absent tasks."""
    here = signals.labelled
    if here is not None:
        groups = select(groups, here)
    if rule.axis_name is None:
        return signals, groups
    share = shares(here, rule.num_tasks, rule.axis_name)
    scaled = jax.tree.map(lambda g: g * per_task(share, g).astype(g.dtype), groups)
    if here is not None:
        signals = signals._replace(labelled=jax.lax.psum(share, rule.axis_name) > 0)
    losses = mean_losses(signals.losses, share, rule.axis_name)
    return signals._replace(losses=losses), jax.lax.psum(scaled, rule.axis_name)


# One gradient, the weights, the weighting's state and its diagnostics.
_Combination = tuple[_Groups, TaskWeights, PyTree, Diagnostics]


def _combine(
    rule: _Rule, groups: _Groups, signals: Signals, state: CombineTasksState
) -> _Combination:
    """Combines K gradients by new weights, or by the last ones."""

    def reuse() -> _Combination:
        weights, kept, diagnostics = _between(rule, signals, state)
        return _weigh(groups, weights, signals), weights, kept, diagnostics

    solve = partial(_solve, rule.weighting, groups, signals, state.weighting)
    if rule.every == 1 or rule.weighting.needs == "losses":
        return solve()
    return jax.lax.cond(_is_due(rule, state), solve, reuse)


def _is_due(rule: _Rule, state: CombineTasksState) -> jax.Array:
    """Returns whether a step with K gradients computes weights, bool[]."""
    # Not by the number of the step: a loop that counts differently, as after a restart, could have
    # K gradients only in other steps than these, and would never compute weights again.
    return state.step - state.computed >= rule.every


def _solve(weighting: Weighting, groups: _Groups, signals: Signals, state: PyTree) -> _Combination:
    if weighting.needs != "losses":
        signals = signals._replace(gram=gram(groups[0]))
    if weighting.combine is None:
        weights, kept, diagnostics = weighting.update(signals, state)
        combined = _weigh(groups, weights, signals)
    else:
        shared, weights, kept, diagnostics = weighting.combine(groups[0], signals, state)
        combined = (shared, _weigh(groups, weights, signals)[1])
    return combined, weights, kept, {"fallback": jnp.zeros((), jnp.float32)} | diagnostics


def _between(
    rule: _Rule, signals: Signals, state: CombineTasksState
) -> tuple[TaskWeights, PyTree, Diagnostics]:
    """Returns weights, the weighting's state and diagnostics of a step between two updates."""
    quiet = {"fallback": jnp.zeros((), jnp.float32)}
    weights, kept, diagnostics = rule.weighting.update(signals, state.weighting)
    if rule.weighting.needs == "losses":
        return weights, kept, quiet | diagnostics
    negative = _negative(diagnostics, rule.num_tasks)
    weights = jax.tree.map(partial(jnp.where, negative, 0.0), state.weights)
    refused = {name: diagnostics[name] for name in ("negative_loss",) if name in diagnostics}
    return weights, state.weighting, state.diagnostics | quiet | refused


def _negative(diagnostics: Diagnostics, num_tasks: int) -> jax.Array:
    """Returns the tasks that the step leaves out because of a negative loss, bool[K]."""
    return diagnostics.get("negative_loss", jnp.zeros(num_tasks, jnp.float32)) > 0


def _weigh(groups: _Groups, weights: TaskWeights, signals: Signals) -> _Groups:
    """Returns the sums of the tasks' gradients, each times its weight."""
    shared, own = (
        combine(group, followed(weight, signals.losses, signals.labelled)) if group else []
        for group, weight in zip(groups, weights, strict=True)
    )
    return shared, own


def _key(seed: jax.Array, step: jax.Array) -> jax.Array:
    return jax.random.fold_in(jax.random.key(seed), step)


def _check_weighting(weighting: Any, name: str) -> None:
    if callable(weighting):
        method = getattr(weighting, "__name__", "the_method")
        raise ValueError(
            f"`weighting` must be a Weighting, got the function that makes it: call "
            f"combine_tasks({method}(), ...)"
        )
    if not isinstance(weighting, Weighting):
        raise ValueError(
            f"`weighting` must be a Weighting such as nash(), or a text such as 'nash', got "
            f"{describe(weighting)}"
        )
    if weighting.needs_cross or weighting.follow_up is not None:
        raise ValueError(
            f"{name} needs more than the losses and gradients of a step: call its `update` (and "
            "`follow_up`) yourself, as in docs/own_loop.md, 'The weighting itself'"
        )
