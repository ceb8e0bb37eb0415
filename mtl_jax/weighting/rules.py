"""The rules of the contract: checks, participation, and what is kept if a step fails.

`from_losses`, `from_gram` and `from_gradients` are built on these functions, so a method consists
only of its own mathematics.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple, TypeVar, cast

import jax
import jax.numpy as jnp

from mtl_jax.weighting.check import check_losses, check_num_tasks, check_signals, describe
from mtl_jax.weighting.contract import (
    Diagnostics,
    Present,
    PyTree,
    Signals,
    TaskWeights,
    Weighting,
)
from mtl_jax.weighting.numerics.losses import SMALLEST_LOSS
from mtl_jax.weighting.numerics.matrix import cosines
from mtl_jax.weighting.preference import check_length

# Squared norm below which a gradient counts as zero: inner products with it would be sums of
# numbers that float32 cannot hold with all their digits.
ZERO_GRADIENT = 1e-30

Tree = TypeVar("Tree", bound=PyTree)
InitState = Callable[[int], PyTree]


class _Demands(NamedTuple):
    """Conditions on the arguments of a method's functions; see `build`."""

    check_state: Callable[[PyTree, int], None]
    every_step: bool
    needs_cross: bool
    needs_positive: bool
    needs_key: bool


def build(
    weighting: Weighting,
    *,
    check_state: Callable[[PyTree, int], None],
    needs_positive: bool = False,
    needs_key: bool = False,
) -> Weighting:
    """Returns a Weighting that also checks its arguments and stops derivatives.

    Args:
      weighting: the method. Its functions get signals in float32 whose `labelled` is written out,
        False for all absent tasks; `restrict` hides their values.
      check_state: (state, num_tasks); raises ValueError for a state of something else.
      needs_positive: whether a task with a negative loss is absent.
      needs_key: whether the method draws from `Signals.key` when it updates.
    """
    demands = _Demands(
        check_state=check_state,
        every_step=weighting.needs == "losses",
        needs_cross=weighting.needs_cross,
        needs_positive=needs_positive,
        needs_key=needs_key,
    )
    combine, follow_up = weighting.combine, weighting.follow_up
    return weighting._replace(
        update=partial(_update, weighting.update, demands),
        combine=None if combine is None else partial(_combine, combine, demands),
        follow_up=None if follow_up is None else partial(_follow_up, follow_up, demands),
    )


def _update(
    update: Callable[..., tuple[TaskWeights, PyTree, Diagnostics]],
    demands: _Demands,
    signals: Signals,
    state: PyTree,
) -> tuple[TaskWeights, PyTree, Diagnostics]:
    signals, state, refused = _prepare(demands, signals, state)
    weights, new, diagnostics = update(signals, state)
    return weights, new, diagnostics | refused


def _combine(
    combine: Callable[..., tuple[PyTree, TaskWeights, PyTree, Diagnostics]],
    demands: _Demands,
    gradients: PyTree,
    signals: Signals,
    state: PyTree,
) -> tuple[PyTree, TaskWeights, PyTree, Diagnostics]:
    if getattr(signals, "gram", None) is None:
        raise ValueError(
            "`gram` is missing: `combine` needs the inner products of its gradients, which "
            "`gram(gradients)` returns"
        )
    signals, state, refused = _prepare(demands, signals, state)
    gradient, weights, new, diagnostics = combine(jax.lax.stop_gradient(gradients), signals, state)
    return gradient, weights, new, diagnostics | refused


def _follow_up(
    follow_up: Callable[[jax.Array, Signals, PyTree], PyTree],
    demands: _Demands,
    losses: jax.Array,
    signals: Signals,
    state: PyTree,
) -> PyTree:
    signals, state, _ = _prepare(demands, signals, state)
    losses = check_losses(losses, num_tasks=len(signals.losses))
    after, _, _ = _prepare(demands, signals._replace(losses=losses), state)
    finite = jnp.isfinite(signals.losses) & jnp.isfinite(after.losses)
    present = labelled(signals) & labelled(after) & finite
    return follow_up(after.losses, signals._replace(labelled=present), state)


def _prepare(
    demands: _Demands, signals: Signals, state: PyTree
) -> tuple[Signals, PyTree, Diagnostics]:
    """Checks signals and state; returns both as constants, the signals in float32.

    The last result is the diagnostic `negative_loss` of a method that leaves out such tasks.
    """
    updates = demands.every_step or getattr(signals, "gram", None) is not None
    signals = check_signals(
        signals, draws=demands.needs_key and updates, crosses=demands.needs_cross and updates
    )
    demands.check_state(state, len(signals.losses))
    floats = {
        name: getattr(signals, name).astype(jnp.float32)
        for name in ("losses", "gram", "cross")
        if getattr(signals, name) is not None
    }
    signals = signals._replace(**floats)
    present = signals.labelled
    if present is None:
        present = jnp.ones(signals.losses.shape, bool)
    refused = {}
    if demands.needs_positive:
        losses = signals.losses
        # A loss of minus infinity is a failure, which must not be hidden.
        negative = present & (losses < -SMALLEST_LOSS) & jnp.isfinite(losses)
        refused = {"negative_loss": negative.astype(jnp.float32)}
        present &= ~negative
        tiny = jnp.abs(losses) <= SMALLEST_LOSS  # or zero, made negative by rounding
        signals = signals._replace(losses=jnp.where(tiny, SMALLEST_LOSS, losses))
    return jax.lax.stop_gradient((signals._replace(labelled=present), state, refused))


def restrict(signals: Signals, takes_part: jax.Array) -> Present:
    """Returns signals with losses of 1 and inner products of 0 for tasks that take no part."""
    both = takes_part[:, None] & takes_part

    def matrix(given: jax.Array | None) -> jax.Array | None:
        return None if given is None else jnp.where(both, given, 0.0)

    # `check_signals` has made sure that a method has those that it needs; it reads no others.
    return Present(
        losses=jnp.where(takes_part, signals.losses, 1.0),
        takes_part=takes_part,
        step=signals.step,
        gram=cast(jax.Array, matrix(signals.gram)),
        key=cast(jax.Array, signals.key),
        cross=cast(jax.Array, matrix(signals.cross)),
        labelled=labelled(signals),
    )


def labelled(signals: Signals) -> jax.Array:
    """Returns the present tasks, bool[K], of signals in which `build` has written them out."""
    assert signals.labelled is not None
    return signals.labelled


def diagonal(signals: Signals) -> jax.Array:
    """Returns the squared norms of the gradients, f32[K]."""
    assert signals.gram is not None
    return jnp.diagonal(signals.gram)


def participants(signals: Signals) -> jax.Array:
    """Returns the present tasks whose gradient is not zero, bool[K]."""
    # Not `>=`, which is False for NaN: such a task takes part and makes the step fail visibly.
    return labelled(signals) & ~(diagonal(signals) < ZERO_GRADIENT)


def broken(signals: Signals) -> jax.Array:
    """Returns the present tasks whose loss or gradient is not finite, bool[K]."""
    finite = jnp.isfinite(signals.losses) & jnp.isfinite(diagonal(signals))
    return labelled(signals) & ~finite


def of_present(weights: TaskWeights, signals: Signals) -> TaskWeights:
    """Returns the weights, 0 for tasks that are absent."""
    present = labelled(signals)
    return TaskWeights(*(jnp.where(present, weight, 0.0) for weight in weights))


def diagnostics_of(signals: Present, solved: jax.Array) -> Diagnostics:
    """Returns the diagnostics that all methods by the gradients have.

    Args:
      solved: bool[], whether the method had an answer.

    Returns:
      fallback f32[], 1 if the weights are those of an earlier update, or ones before any;
      participation f32[K], 1 for a task that took part; gradient_norm f32[K]; cosine f32[K, K]
      between the tasks' gradients, 0 with a gradient of zero.
    """
    return {
        "fallback": 1.0 - solved.astype(jnp.float32),
        "participation": signals.takes_part.astype(jnp.float32),
        "gradient_norm": jnp.sqrt(jnp.diagonal(signals.gram)),
        "cosine": cosines(signals.gram),
    }


def keep_if(condition: jax.Array, new: Tree, old: Tree) -> Tree:
    """Returns the new pytree where the condition bool[] holds, else the old one."""
    return jax.tree.map(lambda after, before: jnp.where(condition, after, before), new, old)


def keep_finite(new: Diagnostics, old: Diagnostics) -> Diagnostics:
    """Returns diagnostics entry by entry: the new ones where they are finite, else the old ones."""
    return jax.tree.map(
        lambda after, before: jnp.where(jnp.isfinite(after), after, before), new, old
    )


def example(num_tasks: int) -> Signals:
    """Returns signals of a step in which all tasks take part, for their shapes."""
    unit = jnp.eye(num_tasks, dtype=jnp.float32)
    return Signals(
        losses=jnp.ones(num_tasks, jnp.float32),
        gram=unit,
        step=jnp.zeros((), jnp.int32),
        key=jax.random.key(0),
        labelled=jnp.ones(num_tasks, bool),
        cross=unit,
    )


def before_any_update(diagnostics: Diagnostics) -> Diagnostics:
    """Returns the diagnostics before the first update, like the given ones in shape and dtype."""
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), diagnostics)
    return zeros | {"fallback": jnp.ones((), jnp.float32)}


def checked_init(init: InitState | None, preference: Sequence[float] | None) -> InitState:
    """Returns num_tasks -> state of a method, `()` for `init` None.

    The result raises ValueError for an invalid number of tasks or a preference of another length.
    """

    def checked(num_tasks: int) -> PyTree:
        num_tasks = check_num_tasks(num_tasks)
        check_length(preference, num_tasks)
        return () if init is None else init(num_tasks)

    return checked


def check_kept(state: PyTree, num_tasks: int, *, kind: type) -> None:
    """Checks a state that holds `weights`.

    Raises:
      ValueError: for a state of another class than `kind`, or of another number of tasks.
    """
    if not isinstance(state, kind):
        raise ValueError(
            f"`state` must be what this weighting's `init` made, got {describe(state)}"
        )
    count = len(state.weights.shared)
    if count != num_tasks:
        raise ValueError(
            f"`losses` must be float[{count}], one loss per task as `init` was given "
            f"num_tasks={count}; got {num_tasks} losses"
        )
