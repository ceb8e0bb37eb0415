"""CAGrad: conflict-averse gradient descent."""

import math

import jax
import jax.numpy as jnp

from mtl_jax.weighting.check import check_option
from mtl_jax.weighting.contract import Weighting
from mtl_jax.weighting.from_gram import from_gram
from mtl_jax.weighting.methods.mgda import min_norm
from mtl_jax.weighting.numerics.losses import count
from mtl_jax.weighting.numerics.matrix import combined_norm, product, vanishes
from mtl_jax.weighting.numerics.quadratic import nonnegative

RESCALES = (0, 1, 2)
# How often an interval is cut into eighths: after eight cuts float32 has no numbers in between. The
# points of one cut are computed at once.
CUTS = 8


def cagrad(c: float = 0.4, *, rescale: int = 1) -> Weighting:
    """CAGrad: the best improvement of the worst task near the average gradient.

        max_d min_i g_i . d  with  |d - g0| <= c |g0|,  g0 = mean of the gradients

    The answer is d = g0 + c |g0| g_w / |g_w| with g_w = sum_i w_i g_i and the w on the simplex that
    minimises g_w . g0 + c |g0| |g_w|. It is multiplied by K, so that c = 0 is `equal`. With c of at
    least 1, d is zero where no direction improves every task. The authors solve the program by
    SLSQP on the host; here it is exact to the precision of float32.

    Source: Liu et al., "Conflict-Averse Gradient Descent for Multi-task Learning", NeurIPS 2021.
    Heads: follow their own losses, with weight one.

    Args:
      c: radius around the average in units of its length, at least 0; below 1 the average loss is
        guaranteed to decrease. The authors use 0.4 on NYU-Depth V2.
      rescale: as in the authors' code, 0 leaves the length, 1 divides by 1 + c^2, 2 by 1 + c.

    Raises:
      ValueError: for a negative c or another rescale.
    """
    check_option("cagrad", "c", c, 0 <= c < math.inf, "finite and not negative")
    check_option("cagrad", "rescale", rescale, rescale in RESCALES, "0, 1 or 2")
    divisor = (1.0, 1.0 + c**2, 1.0 + c)[rescale]

    def weigh(gram: jax.Array) -> jax.Array:
        # Dividing all gradients by the same number does not change the answer.
        gram = gram / jnp.max(jnp.diagonal(gram))
        present = jnp.diagonal(gram) > 0
        average = present.astype(jnp.float32) / count(present)
        radius = c * combined_norm(gram, average)
        # g_w / |g_w| = sum_i y_i g_i
        y = _worst_direction(gram, product(gram, average), radius)
        weights = count(present) * (average + radius * y) / divisor
        # Where the convex hull of the gradients holds zero, g_w is zero and y has no limit.
        return jnp.where(vanishes(gram, min_norm(gram)), 0.0, weights) if c >= 1 else weights

    return from_gram(weigh, plain_heads=True)


def _worst_direction(gram: jax.Array, rate: jax.Array, radius: jax.Array) -> jax.Array:
    """Returns the y = w / |g_w| of the w on the simplex that minimises rate . w + radius |g_w|.

    At the minimum  rate + radius G y >= m,  with equality where y > 0, m being the minimum: y is
    the solution of a quadratic program for a given m, and its length grows with m. The right m is
    the one that gives length one.
    """
    present = jnp.diagonal(gram) > 0

    def at(m: jax.Array) -> jax.Array:
        return nonnegative(gram, (rate - m) / jnp.maximum(radius, 1e-12))

    def cut(_: int, interval: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        low, high = interval
        points = low + jnp.arange(1, 8, dtype=jnp.float32) / 8 * (high - low)
        longer = jax.vmap(lambda m: combined_norm(gram, at(m)) > 1.0)(points)
        return jnp.max(jnp.where(longer, low, points)), jnp.min(jnp.where(longer, points, high))

    low = jnp.min(jnp.where(present, rate, jnp.inf))  # there y is zero
    # No minimum is above the value at a corner of the simplex.
    corners = rate + radius * jnp.sqrt(jnp.diagonal(gram))
    high = jnp.min(jnp.where(present, corners, jnp.inf))
    low, high = jax.lax.fori_loop(0, CUTS, cut, (low, high))
    y = at(high)
    return y / jnp.maximum(combined_norm(gram, y), 1e-12)
