"""Weights that look at nothing: given ones, and random ones."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from mtl_jax.weighting.contract import Signals, Weighting
from mtl_jax.weighting.from_losses import by_losses, masked_softmax
from mtl_jax.weighting.preference import check_length, check_preference, with_preference

FORMS = ("normal", "dirichlet")


def fixed(task_weights: Sequence[float] | None = None) -> Weighting:
    """total = sum_i w_i L_i with given w. Stateless; `equal` is all ones.

    Args:
      task_weights: one number a task, not negative, not all zero; None for all ones.

    Raises:
      ValueError: for other numbers; by `init`, for a wrong number of them.
    """
    check_preference("fixed's task_weights", task_weights)

    def init(num_tasks: int) -> tuple[()]:
        check_length(task_weights, num_tasks)
        return ()

    def weigh(
        losses: jax.Array, takes_part: jax.Array, signals: Signals, state: Any
    ) -> tuple[jax.Array, Any, dict[str, jax.Array]]:
        return with_preference(task_weights, takes_part), state, {}

    return by_losses(init, weigh)


def rlw(form: str = "normal") -> Weighting:
    """Random loss weighting: new weights in every step, which sum to one.

    Lin et al., "Reasonable Effectiveness of Random Weighting", TMLR 2022. Stateless; draws from
    `Signals.key`.

    Args:
      form: "normal", the softmax of standard normal numbers, or "dirichlet", uniform on the
        simplex.

    Raises:
      ValueError: for another form.
    """
    if form not in FORMS:
        raise ValueError(f"rlw's form must be one of {', '.join(FORMS)}, got {form!r}")

    def weigh(
        losses: jax.Array, takes_part: jax.Array, signals: Signals, state: Any
    ) -> tuple[jax.Array, Any, dict[str, jax.Array]]:
        if form == "normal":
            logits = jax.random.normal(signals.key, losses.shape, jnp.float32)
        else:
            # Exponential variables over their sum are uniform on the simplex.
            drawn = jax.random.exponential(signals.key, losses.shape, jnp.float32)
            logits = jnp.log(jnp.maximum(drawn, jnp.finfo(jnp.float32).tiny))
        return masked_softmax(logits, takes_part), state, {}

    return by_losses(lambda num_tasks: (), weigh, needs_key=True)
