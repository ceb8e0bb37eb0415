"""Golden values of the published codes, on the two gradients that TorchJD's own tests use."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtl_jax.weighting import METHODS, Signals

GRADIENTS = np.array([[-4.0, 1.0, 1.0], [6.0, 1.0, 1.0]])
HALF = (0.5, 0.5)  # the mean of the gradients, where this project has their sum

DIRECTIONS = {
    "aligned_mtl": ({"preference": HALF}, [0.2133, 0.9673, 0.9673]),
    "config": ({}, [0.1588, 2.0706, 2.0706]),
    "imtl_g": ({}, [0.0767, 1.0, 1.0]),
    "mgda": ({}, [0.0, 1.0, 1.0]),
    "pcgrad": ({}, [0.5848, 3.8012, 3.8012]),
    "gradvac": ({}, [0.5848, 3.8012, 3.8012]),
    # Without the ridge of 1e-4 of the published code: v = (11/18, 1/2), and (10/9, 15/19).
    "dualproj": ({"preference": HALF}, [3 - 22 / 9, 10 / 9, 10 / 9]),
    "upgrad": ({"preference": HALF}, [90 / 19 - 40 / 9, 325 / 171, 325 / 171]),
    "fairgrad": ({"alpha": 1.0, "max_norm": np.inf}, [0.0766, 0.9985, 0.9985]),
    "cagrad": ({"c": 0.5, "rescale": 0}, [2 * 0.1835, 2 * 1.2041, 2 * 1.2041]),
    "nash": ({}, [0.0542, 0.7061, 0.7061]),
}


def direction(name: str, options: dict, gradients: np.ndarray, **changes) -> np.ndarray:
    """The combined gradient of a method's first step."""
    gram = jnp.asarray(gradients @ gradients.T, jnp.float32)
    signals = Signals(
        losses=jnp.ones(len(gradients)),
        gram=gram,
        step=jnp.array(0),
        key=jax.random.key(0),
        cross=gram,
    )
    weighting = METHODS[name](**options)
    weights, _, diagnostics = weighting.update(
        signals._replace(**changes), weighting.init(len(gradients))
    )
    assert diagnostics["fallback"] == 0
    return np.asarray(weights.shared, np.float64) @ gradients


@pytest.mark.parametrize("name", DIRECTIONS)
def test_direction_of_the_published_code(name):
    options, expected = DIRECTIONS[name]
    found = direction(name, options, GRADIENTS)
    # The published digits are rounded, and come from solvers of a tolerance of 1e-4.
    np.testing.assert_allclose(found, expected, rtol=2e-4, atol=1.5e-4)
