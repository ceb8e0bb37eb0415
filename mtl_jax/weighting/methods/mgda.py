"""MGDA: the shortest gradient that a convex combination of the tasks' gradients can be.

Désidéri, "Multiple-gradient descent algorithm", 2012; Sener and Koltun, "Multi-task learning as
multi-objective optimization", NeurIPS 2018:  min |sum_i w_i g_i|  over w >= 0, sum w = 1. Where
that is not zero it has the same inner product with the gradient of every task that has a weight.
"""

from typing import Any

import jax
import jax.numpy as jnp

from mtl_jax.weighting.contract import Signals, Weighting
from mtl_jax.weighting.from_gram import by_gram
from mtl_jax.weighting.from_losses import SMALLEST_LOSS
from mtl_jax.weighting.numerics import quadratic

NORMALIZATIONS = ("none", "l2", "loss", "loss+")


def mgda(normalization: str = "none") -> Weighting:
    """The min-norm point; the weights sum to one, where those of `equal` sum to K.

    Found exactly by an active set, where published codes stop after some steps of Frank-Wolfe.
    Stateless. At a Pareto stationary point, where the shortest gradient is zero, a ridge of 1e-6
    keeps the weights finite. The heads have the weights, too, as in the authors' code: a task
    without weight does not train its head. Of gradients that differ 1e5 times and more in length
    the longest may have a weight of 0 that should be tiny.

    Args:
      normalization: by what the gradients are divided before the program, as in the authors'
        code: "none", "l2" (their length), "loss", or "loss+" (both). The weights then count for
        the gradients as they were. With "loss" and "loss+" a loss from 0 to 1e-8 counts as 1e-8,
        and a task with a negative loss takes no part.

    Raises:
      ValueError: for another normalization.
    """
    if normalization not in NORMALIZATIONS:
        raise ValueError(
            f"mgda's normalization must be one of {', '.join(NORMALIZATIONS)}, "
            f"got {normalization!r}"
        )

    def solve(
        signals: Signals, takes_part: jax.Array, state: Any
    ) -> tuple[jax.Array, Any, dict[str, jax.Array]]:
        norms = jnp.sqrt(jnp.diagonal(signals.gram))
        losses = jnp.maximum(signals.losses, SMALLEST_LOSS)
        divisor = {
            "none": jnp.ones_like(norms),
            "l2": norms,
            "loss": losses,
            "loss+": losses * norms,
        }[normalization]
        divisor = jnp.where(takes_part, divisor, 1.0)
        return min_norm(signals.gram / divisor[:, None] / divisor), state, {}

    needs_positive = normalization in ("loss", "loss+")
    return by_gram(lambda num_tasks: (), solve, needs_positive=needs_positive)


def min_norm(gram: jax.Array) -> jax.Array:
    """The point of the simplex with the smallest w'Gw, f32[K]; 0 for gradients of zero."""
    # Up to its length it is the x >= 0 with (Gx)_i = 1 where x_i > 0 and (Gx)_i >= 1 elsewhere.
    x = quadratic.nonnegative(gram, -jnp.ones_like(gram[0]))
    return x / jnp.sum(x)
