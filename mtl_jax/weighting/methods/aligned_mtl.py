"""Aligned-MTL: independent component alignment."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from mtl_jax.weighting.check import check_option
from mtl_jax.weighting.contract import Weighting
from mtl_jax.weighting.from_gram import from_gram
from mtl_jax.weighting.numerics.matrix import product
from mtl_jax.weighting.numerics.spectrum import eigen
from mtl_jax.weighting.preference import check_preference, with_preference

SCALES = ("min", "median", "rmse")


def aligned_mtl(scale: str = "min", *, preference: Sequence[float] | None = None) -> Weighting:
    """Aligned-MTL: replace the gradients by the nearest orthogonal ones of equal length.

        w = sqrt(s) V diag(l^(-1/2)) V' p,  G = V diag(l) V'

    With orthogonal gradients of length sqrt(s) this is `equal`. Eigenvalues l of zero are left out:
    those below 1.2e-7 K times the largest, as in the authors' code. A task whose gradient is more
    than 1700 times shorter than the longest (three tasks; 2000 times for two) therefore has almost
    no weight, and s is chosen without it. Weights may be negative. TorchJD's default preference is
    1/K each, which gives 1/K of these weights.

    Source: Senushkin et al., "Independent Component Alignment for Multi-Task Learning", CVPR 2023.
    Heads: follow their own losses, with weight one.

    Args:
      scale: s, the "min" or "median" eigenvalue, or "rmse", their mean. The median of an even
        number of them is the smaller one in the middle, as in the authors' code.
      preference: p, one number per task, not negative and not all zero; None for all ones.

    Raises:
      ValueError: for another scale or other numbers; by `init`, for a wrong count of them.
    """
    check_option("aligned_mtl", "scale", scale, scale in SCALES, f"one of {', '.join(SCALES)}")
    check_preference("aligned_mtl's preference", preference)

    def weigh(gram: jax.Array) -> jax.Array:
        values, vectors, counts = eigen(gram)
        chosen = {
            "min": lambda: jnp.min(jnp.where(counts, values, jnp.inf)),
            "median": lambda: jnp.nanquantile(
                jnp.where(counts, values, jnp.nan), 0.5, method="lower"
            ),
            "rmse": lambda: jnp.nanmean(jnp.where(counts, values, jnp.nan)),
        }[scale]()
        stretch = jnp.where(counts, jnp.sqrt(chosen / jnp.where(counts, values, 1.0)), 0.0)
        wanted = with_preference(preference, jnp.diagonal(gram) > 0)
        return product(vectors, stretch * product(vectors.T, wanted))

    return from_gram(weigh, plain_heads=True, preference=preference)
