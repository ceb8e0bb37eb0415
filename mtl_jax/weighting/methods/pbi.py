"""Penalty-based boundary intersection."""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from mtl_jax.weighting.check import check_option
from mtl_jax.weighting.contract import Weighting
from mtl_jax.weighting.from_losses import from_total
from mtl_jax.weighting.preference import check_preference, with_preference


def pbi(preference: Sequence[float] | None = None, *, theta: float = 5.0) -> Weighting:
    """Penalty-based boundary intersection: small losses in the proportions that a preference gives.

        total = d1 + theta d2,  so that w = p + theta (L - d1 p) / d2

    p is the unit vector along the preference, d1 = p . L the length of the losses along it and d2
    their distance from that ray. A loss far below the ray has a negative weight: it is raised in
    favour of the others.

    Source: Zhang and Li, "MOEA/D: A Multiobjective Evolutionary Algorithm Based on Decomposition",
    IEEE Transactions on Evolutionary Computation 2007, with the ideal point at zero.
    Heads: use the same weights.

    Args:
      preference: one number per task, not negative and not all zero; None for all ones.
      theta: factor of the distance from the ray, at least 0.

    Raises:
      ValueError: for other numbers; by `init`, for a wrong count of them.
    """
    check_preference("pbi's preference", preference)
    check_option("pbi", "theta", theta, 0 <= theta < math.inf, "finite and not negative")

    def total(losses: jax.Array, takes_part: jax.Array) -> jax.Array:
        direction = with_preference(preference, takes_part)
        direction = direction / jnp.maximum(jnp.linalg.norm(direction), 1e-12)
        losses = jnp.where(takes_part, losses, 0.0)
        # Divided out: the number below that keeps the root differentiable must be small next to d2.
        size = jax.lax.stop_gradient(jnp.max(jnp.abs(losses)))
        size = jnp.where(size > 0, size, 1.0)
        losses = losses / size
        along = jnp.sum(losses * direction)
        apart = jnp.sum(jnp.square(losses - along * direction))
        return size * (along + theta * jnp.sqrt(apart + 1e-12))

    return from_total(total, preference=preference)
