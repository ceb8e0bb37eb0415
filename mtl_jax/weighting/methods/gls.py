"""Geometric loss."""

import jax
import jax.numpy as jnp

from mtl_jax.weighting.contract import Weighting
from mtl_jax.weighting.from_losses import from_total
from mtl_jax.weighting.numerics.losses import count


def gls() -> Weighting:
    """Geometric loss strategy: the geometric mean of the losses.

        total = (prod_i L_i)^(1/K),  so that w_i = total / (K L_i)

    K counts the tasks that take part: those with labels and a loss that is not negative. A loss
    from 0 to 1e-6 counts as 1e-6. Weights times losses sum to one loss, not to K losses as with
    `equal`.

    Source: Chennupati et al., "MultiNet++: Multi-Stream Feature Aggregation and Geometric Loss
    Strategy for Multi-Task Learning", CVPR Workshops 2019.
    Heads: use the same weights.
    """

    def total(losses: jax.Array, takes_part: jax.Array) -> jax.Array:
        logs = jnp.where(takes_part, jnp.log(losses), 0.0)
        return jnp.exp(jnp.sum(logs) / count(takes_part))

    return from_total(total, needs_positive=True)
