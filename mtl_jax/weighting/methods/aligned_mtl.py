"""Methods that straighten the system of gradients, until no direction counts more than another.

The heads follow their own losses: weights here may be negative.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from mtl_jax.weighting.contract import Signals, Weighting
from mtl_jax.weighting.from_gram import by_gram, combined_norm, cosines
from mtl_jax.weighting.numerics.quadratic import product
from mtl_jax.weighting.numerics.spectrum import eigen, solve_least_squares
from mtl_jax.weighting.preference import check_preference, with_preference

SCALES = ("min", "median", "rmse")


def aligned_mtl(scale: str = "min", *, preference: Sequence[float] | None = None) -> Weighting:
    """Aligned-MTL: the gradients' matrix is replaced by the nearest one with equal singular values.

    Senushkin et al., "Independent Component Alignment for Multi-Task Learning", CVPR 2023. With
    G = V diag(l) V' the weights are  sqrt(s) V diag(l^-1/2) V' p,  eigenvalues of zero left out.
    Stateless. With orthogonal gradients of length sqrt(s) this is `equal`; TorchJD's default
    preference is 1/K each, which gives 1/K of these weights.

    Args:
      scale: s, the "min" or "median" eigenvalue, or "rmse", their mean.
      preference: p, not negative; None for one each.

    Raises:
      ValueError: for another scale or preference.
    """
    if scale not in SCALES:
        raise ValueError(f"aligned_mtl's scale must be one of {', '.join(SCALES)}, got {scale!r}")
    check_preference("aligned_mtl's preference", preference)

    def solve(
        signals: Signals, takes_part: jax.Array, state: Any
    ) -> tuple[jax.Array, Any, dict[str, jax.Array]]:
        values, vectors, counts = eigen(signals.gram)
        chosen = {
            "min": lambda: jnp.min(jnp.where(counts, values, jnp.inf)),
            "median": lambda: jnp.nanmedian(jnp.where(counts, values, jnp.nan)),
            "rmse": lambda: jnp.nanmean(jnp.where(counts, values, jnp.nan)),
        }[scale]()
        stretch = jnp.where(counts, jnp.sqrt(chosen / jnp.where(counts, values, 1.0)), 0.0)
        wanted = with_preference(preference, takes_part)
        return product(vectors, stretch * product(vectors.T, wanted)), state, {}

    return by_gram(lambda num_tasks: (), solve, plain_heads=True, preference=preference)


def config(preference: Sequence[float] | None = None) -> Weighting:
    """ConFIG: the direction that has the same cosine with every task's gradient.

    Liu et al., "ConFIG: Towards Conflict-free Training of Physics Informed Neural Networks", ICLR
    2025. The direction solves u_i . d = p_i by least squares, u_i the unit gradients; its length
    is the sum of the projections of all gradients on it. Stateless. Weights may be negative.

    Args:
      preference: p, to what the cosines are proportional; None for all alike.
    """
    check_preference("config's preference", preference)

    def solve(
        signals: Signals, takes_part: jax.Array, state: Any
    ) -> tuple[jax.Array, Any, dict[str, jax.Array]]:
        matrix = cosines(signals.gram)
        norms = jnp.sqrt(jnp.diagonal(signals.gram))
        y = solve_least_squares(matrix, with_preference(preference, takes_part))
        y = y / combined_norm(matrix, y)
        length = jnp.sum(norms * product(matrix, y))
        return length * y / jnp.where(takes_part, norms, 1.0), state, {}

    return by_gram(lambda num_tasks: (), solve, plain_heads=True, preference=preference)
