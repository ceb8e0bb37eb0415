"""Gram matrices of gradients whose lengths may differ by many orders of magnitude."""

import jax
import jax.numpy as jnp

from mtl_jax.weighting.numerics import compensated
from mtl_jax.weighting.numerics.small import FEW

# Fraction of the product of two norms by which rounding may make an inner product differ from its
# transpose or exceed that product; a matrix that is further off is not a Gram matrix.
NOT_A_GRAM_MATRIX = 1e-2
# Squared length, relative to that of the terms, below which a sum of gradients is rounding error.
NO_DIRECTION = 10 * float(jnp.finfo(jnp.float32).eps)


def product(matrix: jax.Array, x: jax.Array) -> jax.Array:
    """Returns a matrix times a vector in full float32; by default GPUs round to ten bits."""
    if len(x) <= FEW:
        return jnp.sum(matrix * x, axis=1)
    return jnp.matmul(matrix, x, precision=jax.lax.Precision.HIGHEST)


def is_gram(matrix: jax.Array) -> jax.Array:
    """Returns whether it is symmetric and no entry exceeds the product of the norms, bool[]."""
    norms = jnp.sqrt(jnp.diagonal(matrix))
    bound = norms[:, None] * norms
    excess = jnp.maximum(jnp.abs(matrix - matrix.T), jnp.abs(matrix) - bound)
    return jnp.all(excess <= NOT_A_GRAM_MATRIX * bound)


def normalize(gram: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Scales a Gram matrix to a diagonal of about one.

    The scales are powers of two: no digit is lost either way, so a solution of the scaled problem
    is as good a solution of the given one.

    Returns:
      The matrix f32[K, K] with a diagonal in 0.56..2.25 (0 where it was 0), and the scales f32[K]
      by which its rows and columns were divided, about the norms of the gradients.
    """
    norms = jnp.sqrt(jnp.diagonal(gram))
    # Rounding to no bits of mantissa leaves the nearest power of two.
    scales = jax.lax.reduce_precision(norms, exponent_bits=8, mantissa_bits=0)
    scales = jnp.where(norms == 0, 1.0, scales)
    return gram / scales[:, None] / scales, scales


def cosines(gram: jax.Array) -> jax.Array:
    """Returns the cosines f32[K, K] between the gradients, 0 with a gradient of zero."""
    norms = jnp.sqrt(jnp.diagonal(gram))
    norms = jnp.where(norms == 0, 1.0, norms)
    return gram / norms[:, None] / norms


def combined_norm(gram: jax.Array, weights: jax.Array) -> jax.Array:
    """Returns |sum_i weight_i g_i|, f32[], from the Gram matrix of the g_i."""
    matrix, scales = normalize(gram)
    lengths = jnp.where(jnp.diagonal(gram) == 0, 0.0, weights * scales)
    longest = jnp.max(jnp.abs(lengths))
    longest = jnp.where(longest == 0, 1.0, longest)  # divided out: the squares could overflow
    lengths = lengths / longest
    total, correction = compensated.matvec(matrix, lengths)
    squared = jnp.sum(lengths * (total + correction))
    return longest * jnp.sqrt(jnp.maximum(squared, 0.0))


def vanishes(gram: jax.Array, weights: jax.Array) -> jax.Array:
    """Returns whether sum_i weight_i g_i is zero, up to rounding, for weights >= 0, bool[]."""
    terms = jnp.sum(weights * jnp.sqrt(jnp.diagonal(gram)))
    return jnp.square(combined_norm(gram, weights)) <= NO_DIRECTION * jnp.square(terms)
