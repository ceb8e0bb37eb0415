"""DualProj: the projection of the summed gradient on the dual cone."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from mtl_jax.weighting.contract import Weighting
from mtl_jax.weighting.from_gram import from_gram
from mtl_jax.weighting.numerics.quadratic import project_on_dual_cone
from mtl_jax.weighting.preference import check_preference, with_preference


def dualproj(preference: Sequence[float] | None = None) -> Weighting:
    """DualProj: the sum of the gradients is projected on the dual cone.

        w = argmin v'Gv  over  v >= p

    The dual cone holds the directions that conflict with no task. Scale and ridge are as in
    `upgrad`. Without conflict this is the plain sum, like `equal`.

    Source: Lopez-Paz and Ranzato, "Gradient Episodic Memory for Continual Learning", NeurIPS 2017,
    where one gradient is projected.
    Heads: follow their own losses, with weight one.

    Args:
      preference: p, how much each task's gradient counts, not negative and not all zero; None for
        all ones.

    Raises:
      ValueError: for other numbers; by `init`, for a wrong count of them.
    """
    check_preference("dualproj's preference", preference)

    def weigh(gram: jax.Array) -> jax.Array:
        return project_on_dual_cone(gram, with_preference(preference, jnp.diagonal(gram) > 0))

    return from_gram(weigh, plain_heads=True, preference=preference)
