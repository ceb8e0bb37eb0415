"""Fixed weights."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from mtl_jax.weighting.contract import Weighting
from mtl_jax.weighting.from_losses import from_losses
from mtl_jax.weighting.preference import check_preference, with_preference


def fixed(task_weights: Sequence[float] | None = None) -> Weighting:
    """Fixed weights: the sum of the losses with weights of the user's choice.

        total = sum_i w_i L_i

    Source: the usual baseline.
    Heads: use the same weights.

    Args:
      task_weights: w, one number per task, not negative and not all zero; None for all ones.

    Raises:
      ValueError: for other numbers; by `init`, for a wrong count of them.
    """
    check_preference("fixed's task_weights", task_weights)

    def weigh(losses: jax.Array) -> jax.Array:
        return with_preference(task_weights, jnp.ones(losses.shape, bool))

    return from_losses(weigh, preference=task_weights)
