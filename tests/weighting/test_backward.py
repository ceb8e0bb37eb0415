"""Losses and gradients of functions that return K losses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtl_jax.weighting import TaskWeights, task_gradients, weighted_gradient

PARAMS = {"layers": [jnp.array([1.0, -2.0]), (jnp.array([[0.5]]),)]}


def losses_of(params):
    a, (b,) = params["layers"]
    return jnp.stack(
        [jnp.sum(a**2), jnp.sum(jnp.sin(a)) + b[0, 0] ** 2, jnp.sum(a) * b[0, 0] + 5.0]
    )


def test_task_gradients_are_those_of_each_loss():
    losses, gradients = jax.jit(lambda p: task_gradients(losses_of, p))(PARAMS)
    np.testing.assert_allclose(losses, losses_of(PARAMS), rtol=1e-6)
    for k in range(3):
        expected = jax.grad(lambda p, k=k: losses_of(p)[k])(PARAMS)
        found = jax.tree.map(lambda g, k=k: g[k], gradients)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), found, expected)


def test_the_weighted_gradient_is_that_of_the_weighted_sum():
    weights = TaskWeights(jnp.array([1.0, 2.0, 3.0]), jnp.array([0.5, 0.2, 0.0]))
    heads = {"layers": [False, True]}
    losses, found = weighted_gradient(losses_of, PARAMS, weights, heads=heads)
    np.testing.assert_allclose(losses, losses_of(PARAMS), rtol=1e-6)
    shared, own = (jax.grad(lambda p, w=w: w @ losses_of(p))(PARAMS) for w in weights)
    np.testing.assert_allclose(found["layers"][0], shared["layers"][0], rtol=1e-6)
    np.testing.assert_allclose(found["layers"][1][0], own["layers"][1][0], rtol=1e-6)


def test_auxiliary_output_is_returned():
    def with_aux(params):
        return losses_of(params), {"mean": params["layers"][0].mean()}

    weights = TaskWeights(jnp.ones(3), jnp.ones(3))
    for found in (
        task_gradients(with_aux, PARAMS, has_aux=True),
        weighted_gradient(with_aux, PARAMS, weights, has_aux=True),
    ):
        np.testing.assert_allclose(found[0][0], losses_of(PARAMS), rtol=1e-6)
        assert found[0][1]["mean"] == -0.5
    with pytest.raises(ValueError, match="must be a pair .* has_aux=True; got float32"):
        task_gradients(losses_of, PARAMS, has_aux=True)


@pytest.mark.parametrize(
    ("weights", "complaint"),
    [
        (jnp.ones(3), "must be TaskWeights.*got float32"),
        (TaskWeights(jnp.ones(3), jnp.ones(2)), r"`weights.heads` must be float\[3\].*got.*\[2\]"),
    ],
)
def test_bad_weights(weights, complaint):
    with pytest.raises(ValueError, match=complaint):
        weighted_gradient(losses_of, PARAMS, weights)


def losses_of_a_tree(kind):
    one, two = (lambda p: jnp.sum(p["x"] ** 2)), (lambda p: jnp.sum(p["x"]))
    return {
        "list": lambda p: [one(p), two(p)],
        "pair": lambda p: (jnp.stack([one(p), two(p)]), {"aux": p}),
        "scalar": one,
        "dict": lambda p: {"a": one(p), "b": two(p)},
        "nothing": lambda p: None,
        "whole": lambda p: jnp.arange(2),
    }[kind]


def test_a_list_of_losses_is_an_array_of_them():
    params = {"x": jnp.array([1.0, 2.0])}
    losses, found = task_gradients(losses_of_a_tree("list"), params)
    np.testing.assert_array_equal(losses, [5.0, 3.0])
    np.testing.assert_array_equal(found["x"], [[2.0, 4.0], [1.0, 1.0]])


@pytest.mark.parametrize(
    ("kind", "complaint"),
    [
        ("pair", r"no auxiliary output.*got tuple of float32\[2\], dict"),
        ("scalar", r"got float32\[\]"),
        ("dict", "got dict"),
        ("nothing", "got None"),
        ("whole", r"got int32\[2\]"),
    ],
)
def test_anything_but_losses_is_refused(kind, complaint):
    with pytest.raises(ValueError, match=r"`losses_of\(params\)` must be float\[K\].*" + complaint):
        task_gradients(losses_of_a_tree(kind), {"x": jnp.ones(2)})


@pytest.mark.parametrize(
    ("params", "complaint"),
    [
        ({}, "`params` holds no arrays"),
        ({"n": jnp.arange(2)}, "`params` holds no arrays"),
        ({"n": jnp.ones(2, jnp.complex64)}, r"`params\['n'\]` must be a floating-point array"),
    ],
)
def test_parameters_without_gradients_are_refused(params, complaint):
    with pytest.raises(ValueError, match=complaint):
        task_gradients(losses_of_a_tree("list"), params)
