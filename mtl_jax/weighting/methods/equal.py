"""Equal weights."""

import jax.numpy as jnp

from mtl_jax.weighting.contract import Weighting
from mtl_jax.weighting.from_losses import from_losses


def equal() -> Weighting:
    """Equal weights: the plain sum of the losses.

        total = sum_i L_i

    Also known as linear scalarisation.

    Source: the usual baseline.
    Heads: follow their own losses, with weight one.
    """
    return from_losses(jnp.ones_like)
