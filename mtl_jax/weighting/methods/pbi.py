"""Methods that don't care about the unit of a loss: the total is made of logarithms."""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from mtl_jax.weighting.contract import Weighting
from mtl_jax.weighting.from_losses import by_total, logarithms, number
from mtl_jax.weighting.preference import check_preference, with_preference


def si() -> Weighting:
    """Scale-invariant: total = sum_i log L_i, so that weight_i = 1 / L_i.

    The baseline of Navon et al., ICML 2022. Stateless. A loss from 0 to 1e-8 counts as 1e-8; a task
    with a negative loss takes no part.
    """

    def total(losses: jax.Array, takes_part: jax.Array) -> jax.Array:
        return jnp.sum(jnp.where(takes_part, logarithms(losses), 0.0))

    return by_total(total, needs_positive=True)


def gls() -> Weighting:
    """Geometric loss: total = (prod_i L_i)^(1/K), so that weight_i = total / (K L_i).

    Chennupati et al., "MultiNet++", CVPR Workshops 2019. Stateless. K counts the tasks that take
    part: those with labels and a loss that is not negative. A loss from 0 to 1e-8 counts as 1e-8.
    The weights times the losses sum to one loss, not to K as with `equal`.
    """

    def total(losses: jax.Array, takes_part: jax.Array) -> jax.Array:
        logs = jnp.where(takes_part, logarithms(losses), 0.0)
        return jnp.exp(jnp.sum(logs) / number(takes_part))

    return by_total(total, needs_positive=True)


def pbi(preference: Sequence[float] | None = None, *, theta: float = 5.0) -> Weighting:
    """Penalty-based boundary intersection: total = d1 + theta d2.

    d1 is the length of the losses along the preference direction, d2 their distance from that ray
    (Zhang and Li, "MOEA/D", 2007, with the ideal point at zero), so that
    weight = p + theta (L - d1 p) / d2 with p the unit preference. Stateless. A loss that lies far
    on the good side of the ray has a negative weight: it is given up for the others.

    Args:
      preference: not negative, one number a task; None for all alike.
      theta: how much the distance from the ray counts.

    Raises:
      ValueError: for negative numbers; by `init`, for a wrong number of them.
    """
    check_preference("pbi's preference", preference)
    if not 0 <= theta < math.inf:
        raise ValueError(f"pbi's theta must be finite and not negative, got {theta}")

    def total(losses: jax.Array, takes_part: jax.Array) -> jax.Array:
        direction = with_preference(preference, takes_part)
        direction = direction / jnp.maximum(jnp.linalg.norm(direction), 1e-12)
        losses = jnp.where(takes_part, losses, 0.0)
        along = jnp.sum(losses * direction)
        apart = jnp.sum(jnp.square(losses - along * direction))
        return along + theta * jnp.sqrt(apart + 1e-12)

    return by_total(total, preference=preference)
