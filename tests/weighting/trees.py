"""Parameters and gradients of three tasks as pytrees, for the tests of `combine_tasks`."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtl_jax.weighting import METHODS

PARAMS = {"layers": [jnp.array([1.0, -2.0]), (jnp.array([[0.5]]),)]}
NEED_MORE = ("famo", "modo", "sdmgrad")
# One of each kind runs with the usual tests, all others with the slow ones.
USUAL = {"equal", "uw", "imtl_g", "graddrop"}
ALONE = [
    pytest.param(name, marks=[] if name in USUAL else [pytest.mark.slow])
    for name in METHODS
    if name not in NEED_MORE
]
ROWS = np.float32([[[1.0, 0.2, -0.3], [0.0, 5.0, 1.0], [-0.4, 0.3, 0.8]],
                   [[0.7, -0.1, 0.4], [2.0, 1.0, 0.3], [0.2, -0.6, 0.5]]])  # fmt: skip
LOSSES = np.float32([[1.0, 3.0, 0.5], [0.8, 2.0, 0.6]])
PRESENT = np.array([True, False, True])
HEADS = {
    "a prefix": {"layers": [False, True]},
    "a pytree": {"layers": [False, (True,)]},
    "a function": lambda tree: {"layers": [False, True]},
}


def losses_of(params):
    a, (b,) = params["layers"]
    return jnp.stack(
        [jnp.sum(a**2), jnp.sum(jnp.sin(a)) + b[0, 0] ** 2, jnp.sum(a) * b[0, 0] + 5.0]
    )


def stacked(rows):
    """Gradients f32[K, 3] as a pytree like PARAMS."""
    rows = jnp.asarray(rows)
    return {"layers": [rows[:, :2], (rows[:, 2:, None],)]}


def flat(gradient):
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(gradient)])


def close(found, expected, **bounds):
    jax.tree.map(partial(np.testing.assert_allclose, **bounds), found, expected)


def by_hand(weights, rows):
    """The combined gradient f32[3]: the last entry belongs to heads."""
    return np.concatenate([weights.shared @ rows[:, :2], weights.heads @ rows[:, 2:]])
