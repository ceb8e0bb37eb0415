"""IMTL-G: equal projections on all gradients."""

import jax
import jax.numpy as jnp

from mtl_jax.weighting.contract import Weighting
from mtl_jax.weighting.from_gram import from_gram
from mtl_jax.weighting.numerics.matrix import cosines
from mtl_jax.weighting.numerics.spectrum import is_solvable, solve_least_squares


def imtl_g() -> Weighting:
    """IMTL-G: a direction with equal projections on all gradients, regardless of their lengths.

        d . u_i = d . u_j  for all i and j,  u_i = g_i / |g_i|
        w = v / sum_i v_i,  G v = |g|

    Solved by least squares where G is singular; if the u_i sum to zero, d is zero. The weights sum
    to one, where those of `equal` sum to K, and may be negative. Where the sum of v is negative,
    which takes conflict and gradients of different lengths, dividing by it turns the direction
    around: it then opposes every task. Where that sum is almost zero, the weights are large.

    Source: Liu et al., "Towards Impartial Multi-task Learning", ICLR 2021.
    Heads: follow their own losses, with weight one, as in LibMTL; in the code of Nash-MTL they use
    the same weights.
    """
    return from_gram(equal_projections, plain_heads=True)


def equal_projections(gram: jax.Array) -> jax.Array:
    """Returns the weights f32[K] of sum one that give all unit gradients the same projection."""
    present = jnp.diagonal(gram) > 0
    norms = jnp.where(present, jnp.sqrt(jnp.diagonal(gram)), 1.0)
    ones = present.astype(jnp.float32)
    lengths = solve_least_squares(cosines(gram), ones)
    # Unit gradients of sum zero have equal projections on zero alone, which least squares misses.
    lengths = jnp.where(is_solvable(lengths, ones), lengths, ones)
    v = jnp.where(present, lengths / norms, 0.0)
    return v / jnp.sum(v)
