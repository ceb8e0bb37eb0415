"""MGDA: the multiple-gradient descent algorithm."""

import jax
import jax.numpy as jnp

from mtl_jax.weighting.check import check_option
from mtl_jax.weighting.contract import Diagnostics, Present, PyTree, Weighting
from mtl_jax.weighting.from_gram import from_gram_update
from mtl_jax.weighting.numerics.quadratic import nonnegative

NORMALIZATIONS = ("none", "l2", "loss", "loss+")


def mgda(normalization: str = "none") -> Weighting:
    """MGDA: the shortest convex combination of the gradients.

        min |sum_i w_i g_i|  over  w >= 0,  sum_i w_i = 1

    Unless it is zero, the combination has the same inner product with the gradient of every task
    that has a weight. It is found exactly by an active set, where published code stops after a few
    steps of Frank-Wolfe. The weights sum to one, where those of `equal` sum to K. At a Pareto
    stationary point, where the shortest gradient is zero, a ridge of 1e-6 keeps the weights finite.
    If gradients differ by a factor of 1e5 or more in length, the longest may get a weight of 0
    instead of a tiny one.

    Source: Désidéri, "Multiple-gradient descent algorithm (MGDA) for multiobjective optimization",
    Comptes Rendus Mathématique 2012; Sener and Koltun, "Multi-Task Learning as Multi-Objective
    Optimization", NeurIPS 2018.
    Heads: use the same weights, as in the authors' code: a task with weight 0 does not train its
    head.

    Args:
      normalization: what the gradients are divided by before the program is solved, as in the
        authors' code: "none", "l2" (their length), "loss", or "loss+" (both). The weights are then
        applied to the undivided gradients. With "loss" and "loss+" a loss from 0 to 1e-6 counts as
        1e-6, and a task with a negative loss takes no part.

    Raises:
      ValueError: for another normalization.
    """
    known = f"one of {', '.join(NORMALIZATIONS)}"
    check_option("mgda", "normalization", normalization, normalization in NORMALIZATIONS, known)

    def update(signals: Present, state: PyTree) -> tuple[jax.Array, PyTree, Diagnostics]:
        norms = jnp.sqrt(jnp.diagonal(signals.gram))
        divisor = {
            "none": jnp.ones_like(norms),
            "l2": norms,
            "loss": signals.losses,
            "loss+": signals.losses * norms,
        }[normalization]
        divisor = jnp.where(signals.takes_part, divisor, 1.0)
        return min_norm(signals.gram / divisor[:, None] / divisor), state, {}

    return from_gram_update(update, needs_positive=normalization in ("loss", "loss+"))


def min_norm(gram: jax.Array) -> jax.Array:
    """Returns the point of the simplex with the smallest w'Gw, f32[K]; 0 for gradients of zero."""
    # Up to its length it is the x >= 0 with (Gx)_i = 1 where x_i > 0 and (Gx)_i >= 1 elsewhere.
    x = nonnegative(gram, -jnp.ones_like(gram[0]))
    return x / jnp.sum(x)
