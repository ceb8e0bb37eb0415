"""Projections on the dual cone of the gradients: directions that conflict with no task.

Quinton and Rey, "Jacobian descent for multi-objective optimization", 2024. A direction
sum_i v_i g_i conflicts with nobody if Gv >= 0. The nearest one to sum_i u_i g_i is the v >= u with
the smallest v'Gv. Without conflict both methods here are the plain sum, like `equal`. The heads
follow their own losses.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from mtl_jax.weighting.contract import Signals, Weighting
from mtl_jax.weighting.from_gram import by_gram
from mtl_jax.weighting.numerics import quadratic
from mtl_jax.weighting.preference import check_preference, with_preference


def upgrad(preference: Sequence[float] | None = None) -> Weighting:
    """UPGrad: every task's gradient is projected on the dual cone, then they are summed.

    Published codes add a ridge of 1e-4 of the trace; here it is 1e-6 of each task's own square.
    Their default preference is 1/K each, which gives 1/K of these weights. Stateless.

    Args:
      preference: by how much each task's gradient counts, not negative; None for one each.
    """
    check_preference("upgrad's preference", preference)

    def solve(
        signals: Signals, takes_part: jax.Array, state: Any
    ) -> tuple[jax.Array, Any, dict[str, jax.Array]]:
        wanted = jnp.diag(with_preference(preference, takes_part))
        projected = jax.vmap(project, (None, 0))(signals.gram, wanted)  # [K, K]
        return jnp.sum(projected, axis=0), state, {}

    return by_gram(lambda num_tasks: (), solve, plain_heads=True, preference=preference)


def dualproj(preference: Sequence[float] | None = None) -> Weighting:
    """DualProj: the sum of the gradients is projected on the dual cone.

    Lopez-Paz and Ranzato, "Gradient episodic memory", NeurIPS 2017, have this for one gradient;
    scale and ridge as in `upgrad`. Stateless.

    Args:
      preference: by how much each task's gradient counts, not negative; None for one each.
    """
    check_preference("dualproj's preference", preference)

    def solve(
        signals: Signals, takes_part: jax.Array, state: Any
    ) -> tuple[jax.Array, Any, dict[str, jax.Array]]:
        return project(signals.gram, with_preference(preference, takes_part)), state, {}

    return by_gram(lambda num_tasks: (), solve, plain_heads=True, preference=preference)


def project(gram: jax.Array, wanted: jax.Array) -> jax.Array:
    """The v >= u f32[K] with the smallest v'Gv."""
    return wanted + quadratic.nonnegative(gram, quadratic.product(gram, wanted))
