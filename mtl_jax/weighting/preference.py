"""Preference vectors: how much the user wants each task."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp


def check_preference(what: str, preference: Sequence[float] | None) -> None:
    """Raises ValueError unless it is None or finite in float32, not negative and not all zero."""
    if preference is None:
        return
    largest = float(jnp.finfo(jnp.float32).max)
    if not (all(0 <= weight <= largest for weight in preference) and any(preference)):
        raise ValueError(
            f"{what} must be finite, not negative and not all zero, got {list(preference)}"
        )


def check_length(preference: Sequence[float] | None, num_tasks: int) -> None:
    """Raises ValueError unless there is one number per task."""
    if preference is not None and len(preference) != num_tasks:
        raise ValueError(
            f"the preference must have one number for each of the {num_tasks} tasks, "
            f"got {list(preference)}"
        )


def with_preference(preference: Sequence[float] | None, takes_part: jax.Array) -> jax.Array:
    """Returns the preference f32[K], ones for None; 0 for tasks that take no part."""
    wanted = jnp.ones_like(takes_part, jnp.float32)
    if preference is not None:
        wanted = jnp.array(preference, jnp.float32)
    return jnp.where(takes_part, wanted, 0.0)
