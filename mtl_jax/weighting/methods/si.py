"""Scale-invariant weights."""

import jax
import jax.numpy as jnp

from mtl_jax.weighting.contract import Weighting
from mtl_jax.weighting.from_losses import from_total


def si() -> Weighting:
    """Scale-invariant: the sum of the logarithms of the losses.

        total = sum_i log L_i,  so that w_i = 1 / L_i

    A loss from 0 to 1e-6 counts as 1e-6; a task with a negative loss takes no part.

    Source: baseline of Navon et al., "Multi-Task Learning as a Bargaining Game", ICML 2022.
    Heads: use the same weights.
    """

    def total(losses: jax.Array, takes_part: jax.Array) -> jax.Array:
        return jnp.sum(jnp.where(takes_part, jnp.log(losses), 0.0))

    return from_total(total, needs_positive=True)
