"""Equal weighting: the plain sum of the losses, total = sum_i L_i."""

from typing import Any

import jax
import jax.numpy as jnp

from mtl_jax.weighting.contract import Signals, Weighting
from mtl_jax.weighting.from_losses import by_losses


def equal() -> Weighting:
    """Every task has weight one. The state is empty."""

    def weigh(
        losses: jax.Array, takes_part: jax.Array, signals: Signals, state: Any
    ) -> tuple[jax.Array, Any, dict[str, jax.Array]]:
        return jnp.ones_like(losses), state, {}

    return by_losses(lambda num_tasks: (), weigh)
