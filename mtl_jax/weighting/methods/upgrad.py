"""UPGrad: the projection of each gradient on the dual cone."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from mtl_jax.weighting.contract import Weighting
from mtl_jax.weighting.from_gram import from_gram
from mtl_jax.weighting.numerics.quadratic import project_on_dual_cone
from mtl_jax.weighting.preference import check_preference, with_preference


def upgrad(preference: Sequence[float] | None = None) -> Weighting:
    """UPGrad: every task's gradient is projected on the dual cone, and the projections are summed.

        w = sum_i v^i,  v^i = argmin v'Gv  over  v >= p_i e_i

    The dual cone holds the directions d that conflict with no task, g_k . d >= 0 for all k;
    sum_k v^i_k g_k is the nearest of them to p_i g_i. Without conflict this is the plain sum, like
    `equal`. The published code adds a ridge of 1e-4 of the trace; here it is 1e-6 of each task's
    own square. Its default preference is 1/K each, which gives 1/K of these weights.

    Source: Quinton and Rey, "Jacobian Descent for Multi-Objective Optimization", 2024.
    Heads: follow their own losses, with weight one.

    Args:
      preference: p, how much each task's gradient counts, not negative and not all zero; None for
        all ones.

    Raises:
      ValueError: for other numbers; by `init`, for a wrong count of them.
    """
    check_preference("upgrad's preference", preference)

    def weigh(gram: jax.Array) -> jax.Array:
        wanted = jnp.diag(with_preference(preference, jnp.diagonal(gram) > 0))
        projected = jax.vmap(project_on_dual_cone, (None, 0))(gram, wanted)  # [K, K]
        return jnp.sum(projected, axis=0)

    return from_gram(weigh, plain_heads=True, preference=preference)
