"""Atrous spatial pyramid pooling."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtl_jax.models.aspp import ASPP, fitting_rates


@pytest.mark.parametrize(
    ("size", "rates"),
    [
        ((9, 12), (2, 4, 6)),
        ((27, 36), (6, 12, 18)),
        ((100, 100), (6, 12, 18)),
        ((40, 12), (2, 5, 8)),
    ],
)
def test_rates_fit_the_feature_map(size, rates):
    assert fitting_rates(*size) == rates


def test_every_rate_sees_more_than_padding():
    for height in range(1, 40):
        rates = fitting_rates(height, 12)
        assert 1 <= rates[0] <= rates[1] <= rates[2] <= 18
        # A neighbour at that rate lies inside for some pixel of the map, from two rows on.
        assert rates[2] < min(height, 12) or height == 1


@pytest.fixture(scope="module")
def aspp():
    """Apply on a 9x12 map, and variables whose normalisations do nothing."""
    module = ASPP(channels=4)
    x = jax.ShapeDtypeStruct((1, 9, 12, 3), jnp.float32)
    shapes = jax.eval_shape(functools.partial(module.init, train=False), jax.random.key(0), x)
    rng = np.random.default_rng(0)

    def value(path, leaf):
        kind = path[-1].key
        if kind == "kernel":
            return rng.random(leaf.shape).astype(np.float32)
        return np.full(leaf.shape, kind in ("scale", "var"), np.float32)

    variables = jax.tree_util.tree_map_with_path(value, shapes)
    return jax.jit(functools.partial(module.apply, train=False)), variables


def test_branches_see_the_distances_of_their_rates(aspp):
    apply, variables = aspp
    x = np.zeros((1, 9, 12, 3), np.float32)
    x[0, 4, 5] = 1.0  # one bright pixel
    background = apply(variables, x)[0, 0, 0]  # what the pooled image alone puts everywhere
    changed = np.any(np.abs(apply(variables, x)[0] - background) > 1e-3, axis=-1)
    expected = np.zeros((9, 12), bool)
    for rate in (0, 2, 4, 6):
        for dy in (-rate, 0, rate):
            for dx in (-rate, 0, rate):
                if 0 <= 4 + dy < 9 and 0 <= 5 + dx < 12:
                    expected[4 + dy, 5 + dx] = True
    # The corner is one of rate 4's places, so it is compared with another pixel.
    assert not expected[0, 0]
    np.testing.assert_array_equal(changed, expected)


def test_the_pooled_image_reaches_every_pixel(aspp):
    apply, variables = aspp
    # Two arrays: JAX may still be reading the first when the call returns.
    black, lit = np.zeros((2, 1, 9, 12, 3), np.float32)
    lit[0, 4, 5] = 1.0
    dark, bright = apply(variables, black), apply(variables, lit)
    assert np.all(bright[0, 0, 0] > dark[0, 0, 0])
    assert dark.shape == (1, 9, 12, 4)
