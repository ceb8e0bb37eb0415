import jax
import jax.numpy as jnp
import numpy as np

from mtl_jax.weighting.numerics import compensated


def cancelling(seed: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """A product whose terms of order one cancel to about 1e-6."""
    rng = np.random.default_rng(seed)
    matrix = rng.standard_normal((size, size)).astype(np.float32)
    vector = rng.standard_normal(size).astype(np.float32)
    wide = matrix.astype(np.float64) @ vector.astype(np.float64) - matrix[:, -1] * vector[-1]
    matrix[:, -1] = -wide / vector[-1]
    return matrix, vector


def test_products_survive_cancellation():
    for seed in range(20):
        for size in (2, 7, 40):
            matrix, vector = cancelling(seed, size)
            exact = matrix.astype(np.float64) @ vector.astype(np.float64)
            product, correction = jax.jit(compensated.matvec)(matrix, vector)
            total = np.asarray(product, np.float64) + np.asarray(correction, np.float64)
            np.testing.assert_allclose(total, exact, rtol=1e-5, atol=1e-12)


def test_split_is_exact():
    x = np.random.default_rng(0).standard_normal(1000).astype(np.float32)
    high, low = compensated.split(jnp.asarray(x))
    np.testing.assert_array_equal(np.asarray(high, np.float64) + np.asarray(low), x)
    # Twelve bits each: their products have 24 and are exact in float32.
    for half in (np.asarray(high), np.asarray(low)):
        mantissa, _ = np.frexp(half)
        np.testing.assert_array_equal(mantissa * 2**12, np.round(mantissa * 2**12))


def test_multiply_minus_one():
    rng = np.random.default_rng(0)
    x = rng.uniform(0.1, 1000, 500).astype(np.float32)
    error = rng.uniform(-1e-4, 1e-4, 500)
    high = ((1 + error) / x).astype(np.float32)
    low = ((1 + error) / x - high).astype(np.float32)
    result = compensated.multiply_minus_one(jnp.asarray(x), (jnp.asarray(high), jnp.asarray(low)))
    np.testing.assert_allclose(result, error, atol=1e-10)
