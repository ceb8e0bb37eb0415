"""ConFIG: conflict-free inverse gradients."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from mtl_jax.weighting.contract import Weighting
from mtl_jax.weighting.from_gram import from_gram
from mtl_jax.weighting.numerics.matrix import combined_norm, cosines, product
from mtl_jax.weighting.numerics.spectrum import is_solvable, solve_least_squares
from mtl_jax.weighting.preference import check_preference, with_preference


def config(preference: Sequence[float] | None = None) -> Weighting:
    """ConFIG: the direction that has the same cosine with every gradient.

        u_i . d = p_i  for all i,  u_i = g_i / |g_i|
        |d| = sum_i g_i . d / |d|

    The first equation gives the direction, by least squares; the second its length, the sum of the
    projections of all gradients on it. If sum_i p_i u_i is zero, d is zero. Weights may be
    negative.

    Source: Liu et al., "ConFIG: Towards Conflict-free Training of Physics Informed Neural
    Networks", ICLR 2025.
    Heads: follow their own losses, with weight one.

    Args:
      preference: p, to which the cosines are proportional, not negative and not all zero; None for
        all ones.

    Raises:
      ValueError: for other numbers; by `init`, for a wrong count of them.
    """
    check_preference("config's preference", preference)

    def weigh(gram: jax.Array) -> jax.Array:
        present = jnp.diagonal(gram) > 0
        matrix, norms = cosines(gram), jnp.sqrt(jnp.diagonal(gram))
        wanted = with_preference(preference, present)
        y = solve_least_squares(matrix, wanted)
        y = jnp.where(is_solvable(y, wanted), y / combined_norm(matrix, y), 0.0)
        length = jnp.sum(norms * product(matrix, y))
        return length * y / jnp.where(present, norms, 1.0)

    return from_gram(weigh, plain_heads=True, preference=preference)
