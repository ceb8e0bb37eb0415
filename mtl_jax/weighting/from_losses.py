"""What all methods by the losses alone share, so that each is only its own formula."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from mtl_jax.weighting.check import check_num_tasks, check_state
from mtl_jax.weighting.contract import Signals, TaskWeights, Weighting, build, restrict
from mtl_jax.weighting.preference import check_length

# Losses, which are then not negative, are taken as at least this where their logarithm or inverse
# counts.
SMALLEST_LOSS = 1e-8

Weigh = Callable[[jax.Array, jax.Array, Signals, Any], tuple[jax.Array, Any, dict[str, jax.Array]]]


def by_losses(
    init_method: Callable[[int], Any],
    weigh: Weigh,
    *,
    follow_up: Callable[[jax.Array, Signals, Any], Any] | None = None,
    needs_positive: bool = False,
    needs_key: bool = False,
) -> Weighting:
    """A Weighting made of a function of the losses.

    A task without labels, or whose loss is not finite, takes no part: its weight is 0.

    Args:
      init_method: num_tasks -> the state that `weigh` carries; `()` if none.
      weigh: (losses f32[K], takes_part bool[K], signals, state) -> (weights f32[K], state,
        diagnostics). Losses of tasks that take no part are 1 and their weights are ignored.
      follow_up: see `Weighting`; `signals.labelled` are the tasks that took part and whose loss
        after the step is usable, too.
      needs_positive: whether a task with a negative loss takes no part either, as where logarithms
        or inverses of the losses count.
      needs_key: whether `weigh` draws from `signals.key`.

    Returns:
      A Weighting whose shared parameters and heads have the same weights and, in addition to the
      diagnostics of `weigh`,
        fallback f32[]: 1 if the loss of a task with labels is not finite,
        participation f32[K]: 1 for a task that took part.
    """

    def init(num_tasks: int, shared: Any = None) -> Any:
        return init_method(check_num_tasks(num_tasks))

    def check(state: Any, num_tasks: int) -> None:
        check_state(state, jax.eval_shape(lambda: init_method(num_tasks)), num_tasks)

    def update(signals: Signals, state: Any) -> tuple[TaskWeights, Any, dict[str, jax.Array]]:
        present = signals.labelled
        takes_part = present & jnp.isfinite(signals.losses)
        signals = restrict(signals, takes_part)
        weights, state, diagnostics = weigh(signals.losses, takes_part, signals, state)
        weights = jnp.where(takes_part, weights, 0.0)
        diagnostics = diagnostics | {
            "fallback": jnp.any(present & ~takes_part).astype(jnp.float32),
            "participation": takes_part.astype(jnp.float32),
        }
        return TaskWeights(shared=weights, heads=weights), state, diagnostics

    return build(
        Weighting(init=init, update=update, needs_gram=False, follow_up=follow_up),
        check_state=check,
        needs_positive=needs_positive,
        needs_key=needs_key,
    )


def by_total(
    total: Callable[[jax.Array, jax.Array], jax.Array],
    *,
    preference: Sequence[float] | None = None,
    needs_positive: bool = False,
) -> Weighting:
    """A Weighting that minimises a function of the losses: the weights are its derivatives.

    Args:
      total: (losses f32[K], takes_part bool[K]) -> f32[], differentiable.
      preference: of the user, if the method has one; `init` and `update` check its length.
      needs_positive: see `by_losses`.
    """

    def init(num_tasks: int) -> tuple[()]:
        check_length(preference, num_tasks)
        return ()

    def weigh(
        losses: jax.Array, takes_part: jax.Array, signals: Signals, state: Any
    ) -> tuple[jax.Array, Any, dict[str, jax.Array]]:
        return jax.grad(total)(losses, takes_part), state, {}

    return by_losses(init, weigh, needs_positive=needs_positive)


def logarithms(losses: jax.Array) -> jax.Array:
    """log L f32[K], of losses of at least `SMALLEST_LOSS`, below which its derivative is 1 / L
    there: a loss of zero must not have an infinite weight."""
    floor = jnp.maximum(losses, SMALLEST_LOSS)
    # The derivative of the maximum would be 0 below the floor and leave the task without weight.
    return jnp.log(jax.lax.stop_gradient(floor)) + (losses - jax.lax.stop_gradient(losses)) / (
        jax.lax.stop_gradient(floor)
    )


def masked_softmax(logits: jax.Array, takes_part: jax.Array) -> jax.Array:
    """Softmax f32[K] over the tasks that take part, 0 for the others."""
    # With nobody there, all take part: the weights are then ignored, but must be numbers.
    takes_part = takes_part | ~jnp.any(takes_part)
    return jax.nn.softmax(jnp.where(takes_part, logits, -jnp.inf))


def number(takes_part: jax.Array) -> jax.Array:
    """How many tasks take part, f32[], at least 1."""
    return jnp.maximum(jnp.sum(takes_part, dtype=jnp.float32), 1.0)
