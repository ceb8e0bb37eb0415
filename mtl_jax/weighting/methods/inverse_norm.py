"""Inverse gradient norms."""

import jax
import jax.numpy as jnp

from mtl_jax.weighting.contract import Weighting
from mtl_jax.weighting.from_gram import from_gram
from mtl_jax.weighting.numerics.losses import count


def inverse_norm() -> Weighting:
    """Inverse gradient norms: all gradients are brought to the same length.

        w_i = K / |g_i| / sum_k 1 / |g_k|

    The paper states the proportion; here the weights sum to K, as those of `equal` do, so that the
    common length is the harmonic mean of the lengths.

    Source: Guo et al., "Revisit the Imbalance Optimization in Multi-task Learning: An Experimental
    Analysis", 2025.
    Heads: use the same weights.
    """

    def weigh(gram: jax.Array) -> jax.Array:
        squares = jnp.diagonal(gram)
        present = squares > 0
        # Divided by the shortest first: the inverse of a length could be out of range.
        shortest = jnp.sqrt(jnp.min(jnp.where(present, squares, jnp.inf)))
        inverse = jnp.where(present, shortest / jnp.sqrt(jnp.where(present, squares, 1.0)), 0.0)
        return count(present) * inverse / jnp.sum(inverse)

    return from_gram(weigh)
