"""Products of matrices and vectors in float32, summed as if in twice the precision.

When tasks conflict, sums of large terms cancel almost to nothing and plain float32 leaves no
correct digit in the rest. Here every product is exact, because its factors are cut into halves of
12 bits, and every rounding of the sum is kept and added at the end (Ogita, Rump and Oishi,
"Accurate sum and dot product", SIAM J. Sci. Comput. 26, 2005). Exact products also make the result
independent of whether the compiler fuses multiplications and additions.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from mtl_jax.weighting.numerics.small import FEW


def split(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns two arrays of 12 significant bits each whose sum is exactly x."""
    high = jax.lax.reduce_precision(x, exponent_bits=8, mantissa_bits=11)
    return high, x - high


def matvec(matrix: jax.Array, vector: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Multiplies a matrix f32[M, N] and a vector f32[N].

    Returns:
      f32[M] and the correction f32[M] to add to it.
    """
    (high, low), (vector_high, vector_low) = split(matrix), split(vector)
    products = jnp.concatenate(
        [high * vector_high, high * vector_low, low * vector_high, low * vector_low], axis=1
    )  # [M, 4N], each exact
    zero = np.float32(0)
    if len(vector) <= FEW:
        pairs = [(products[:, j], jnp.zeros_like(products[:, j])) for j in range(products.shape[1])]
        return functools.reduce(_add, pairs)
    return jax.lax.reduce((products, jnp.zeros_like(products)), (zero, zero), _add, (1,))


def multiply_minus_one(x: jax.Array, pair: tuple[jax.Array, jax.Array]) -> jax.Array:
    """Returns x * (sum of the pair) - 1, accurate also where the product is almost one."""
    (high, low), (other_high, other_low) = split(x), split(pair[0])
    rest = high * other_low + low * other_high + low * other_low + x * pair[1]
    return (high * other_high - 1.0) + rest


def _add(
    left: tuple[jax.Array, jax.Array], right: tuple[jax.Array, jax.Array]
) -> tuple[jax.Array, jax.Array]:
    total = left[0] + right[0]
    part = total - left[0]
    error = (left[0] - (total - part)) + (right[0] - part)
    return total, left[1] + right[1] + error
