"""MoDo: multi-objective gradient with double sampling."""

import math

import jax
import jax.numpy as jnp

from mtl_jax.weighting.check import check_option
from mtl_jax.weighting.contract import Diagnostics, Present, Weighting
from mtl_jax.weighting.from_gram import from_gram_update
from mtl_jax.weighting.numerics.matrix import product
from mtl_jax.weighting.numerics.simplex import among, project, uniform


def modo(*, gamma: float = 1e-3, rho: float = 0.1) -> Weighting:
    """MoDo: MGDA for noisy gradients, one projected gradient step of the weights per update.

        w = P(w - gamma (G1 G2' w + rho w)),  P the projection on the simplex

    With one batch, min-norm weights depend on the same noise as the gradients that they combine,
    which biases the direction. Here the rows of G1 and G2 are the gradients on two parts of the
    batch (`Signals.cross`), and the weights are applied to the gradients on a third. The published
    code reads three batches per step; one batch is divided in three here, so that all methods see
    the same number of images. The weights sum to one, where those of `equal` sum to K. A task
    without labels keeps its share of the whole.

    Source: Chen et al., "Three-Way Trade-Off in Multi-Objective Learning: Optimization,
    Generalization and Conflict-Avoidance", NeurIPS 2023.
    Heads: follow their own losses, with weight one.

    Args:
      gamma: step of the weights, positive.
      rho: pull towards equal weights, at least 0; LibMTL's value.

    Returns:
      A Weighting with w f32[K], 1/K each at the start, as the method's own state.

    Raises:
      ValueError: for numbers out of their range.
    """
    check_option("modo", "gamma", gamma, 0 < gamma < math.inf, "positive and finite")
    check_option("modo", "rho", rho, 0 <= rho < math.inf, "finite and not negative")

    def update(signals: Present, state: jax.Array) -> tuple[jax.Array, jax.Array, Diagnostics]:
        takes_part = signals.takes_part
        weights, total = among(state, takes_part)
        slope = product(signals.cross, weights) + rho * weights
        weights = project(weights - gamma * slope, takes_part)
        return weights, jnp.where(takes_part, weights, state / total), {}

    return from_gram_update(update, uniform, plain_heads=True, needs_cross=True)
