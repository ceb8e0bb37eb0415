"""What all methods by the losses alone share, so that each is only its own formula."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from mtl_jax.weighting.contract import (
    Signals,
    TaskWeights,
    Weighting,
    check_num_tasks,
    labelled_tasks,
)

# Losses are taken as at least this where their logarithm or inverse counts.
SMALLEST_LOSS = 1e-8

Weigh = Callable[[jax.Array, jax.Array, Signals, Any], tuple[jax.Array, Any, dict[str, jax.Array]]]


def by_losses(
    init_method: Callable[[int], Any],
    weigh: Weigh,
    *,
    follow_up: Callable[[jax.Array, Signals, Any], Any] | None = None,
) -> Weighting:
    """A Weighting made of a function of the losses.

    A task without labels, or whose loss is not finite, takes no part: its weight is 0.

    Args:
      init_method: num_tasks -> the state that `weigh` carries; `()` if none.
      weigh: (losses f32[K], takes_part bool[K], signals, state) -> (weights f32[K], state,
        diagnostics). Losses of tasks that take no part are 1 and their weights are ignored.
      follow_up: see `Weighting`.

    Returns:
      A Weighting whose shared parameters and heads have the same weights.
    """

    def init(num_tasks: int, shared: Any = None) -> Any:
        check_num_tasks(num_tasks)
        return init_method(num_tasks)

    def update(signals: Signals, state: Any) -> tuple[TaskWeights, Any, dict[str, jax.Array]]:
        takes_part = participants(signals)
        losses = jnp.where(takes_part, signals.losses.astype(jnp.float32), 1.0)
        weights, state, diagnostics = weigh(losses, takes_part, signals, state)
        weights = jnp.where(takes_part, weights, 0.0)
        return TaskWeights(shared=weights, heads=weights), state, diagnostics

    return Weighting(init=init, update=update, needs_gram=False, follow_up=follow_up)


def by_total(total: Callable[[jax.Array, jax.Array], jax.Array]) -> Weighting:
    """A Weighting that minimises a function of the losses: the weights are its derivatives.

    Args:
      total: (losses f32[K], takes_part bool[K]) -> f32[], differentiable.
    """

    def weigh(
        losses: jax.Array, takes_part: jax.Array, signals: Signals, state: Any
    ) -> tuple[jax.Array, Any, dict[str, jax.Array]]:
        return jax.grad(total)(losses, takes_part), state, {}

    return by_losses(lambda num_tasks: (), weigh)


def participants(signals: Signals) -> jax.Array:
    """The tasks that have labels and a finite loss, bool[K]."""
    return labelled_tasks(signals) & jnp.isfinite(signals.losses)


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
