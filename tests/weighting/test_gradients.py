"""Per-task gradients against Jacobians of a toy network and float64 NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtl_jax.weighting import gradients

TASKS = 3


@pytest.fixture
def toy():
    """Shared parameters, the features they make and K losses of these features."""
    rng = np.random.default_rng(0)
    inputs = jnp.float32(rng.normal(size=(5, 4)))
    targets = jnp.float32(rng.normal(size=(TASKS, 5, 2)))
    params = {
        "kernel": jnp.float32(rng.normal(size=(4, 2))),
        "bias": jnp.float32(rng.normal(size=2)),
    }

    def features(params):
        return jnp.tanh(inputs @ params["kernel"] + params["bias"])  # [5, 2]

    def losses(features):
        return jnp.mean(jnp.square(features - targets) * jnp.abs(targets), axis=(1, 2))  # [K]

    return params, features, losses


@pytest.fixture
def stacked():
    """K gradients of two leaves, float32."""
    rng = np.random.default_rng(1)
    shapes = {"kernel": (TASKS, 3, 4), "bias": (TASKS, 4)}
    return {name: jnp.float32(rng.normal(size=shape)) for name, shape in shapes.items()}


def flat(tree):
    """f64[K, n] of all leaves."""
    leaves = [np.asarray(x, np.float64).reshape(TASKS, -1) for x in jax.tree.leaves(tree)]
    return np.concatenate(leaves, axis=1)


def assert_close(tree, expected):
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), tree, expected
    )


def test_task_gradients_are_the_jacobian_of_the_losses(toy):
    params, features, losses = toy
    value, pullback = jax.vjp(features, params)
    found = gradients.pull_back(pullback, jax.jacrev(losses)(value))
    assert_close(found, jax.jacrev(lambda params: losses(features(params)))(params))


def test_task_gradients_equal_one_backward_pass_each(toy):
    params, features, losses = toy
    value, pullback = jax.vjp(features, params)
    cotangents = jax.jacrev(losses)(value)
    each = [pullback(cotangent)[0] for cotangent in cotangents]
    assert_close(
        gradients.pull_back(pullback, cotangents), jax.tree.map(lambda *x: jnp.stack(x), *each)
    )


def test_backward_passes_at_once_and_one_after_another_agree(toy, monkeypatch):
    params, features, losses = toy
    value, pullback = jax.vjp(features, params)
    cotangents = jax.jacrev(losses)(value)
    one_by_one = gradients.pull_back(pullback, cotangents)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert_close(gradients.pull_back(pullback, cotangents), one_by_one)


def test_combining_gradients_is_one_backward_pass_of_combined_cotangents(toy):
    params, features, losses = toy
    weights = jnp.float32([0.3, 2.0, 1.1])
    value, pullback = jax.vjp(features, params)
    cotangents = jax.jacrev(losses)(value)
    (expected,) = pullback(gradients.combine(cotangents, weights))
    each = gradients.pull_back(pullback, cotangents)
    assert_close(gradients.combine(each, weights), expected)


def test_gram_agrees_with_float64(stacked):
    found = gradients.gram(stacked)
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, flat(stacked) @ flat(stacked).T, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("small", [0, gradients.SMALL])  # leaves one by one, and joined
@pytest.mark.parametrize("backend", ["cpu", "gpu"])  # only the choice of the form
@pytest.mark.parametrize("num_tasks", [1, 3, 4, gradients.FEW_TASKS, gradients.FEW_TASKS + 1, 40])
def test_inner_products_of_few_and_many_tasks_agree_with_float64(
    num_tasks, backend, small, monkeypatch
):
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    monkeypatch.setattr(gradients, "SMALL", small)
    rng = np.random.default_rng(num_tasks)
    shapes = {"scalar": (), "bias": (5,), "kernel": (3, 3, 2, 4)}
    first, second = (
        {name: np.float32(rng.normal(size=(num_tasks, *shape))) for name, shape in shapes.items()}
        for _ in range(2)
    )

    def check(found, first, second):
        expected = sum(
            first[name].reshape(num_tasks, -1).astype(np.float64)
            @ second[name].reshape(num_tasks, -1).astype(np.float64).T
            for name in shapes
        )
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=2e-5)

    check(jax.jit(gradients.inner_products)(first, second), first, second)
    check(jax.jit(gradients.gram)(first), first, first)


@pytest.mark.parametrize("length", [1, 63, 64, 200])
def test_products_by_blocks_agree_with_float64(length, monkeypatch):
    """Within a block, with a whole number of blocks, and with a rest."""
    monkeypatch.setattr(gradients, "BLOCK", 8 * 64)
    first, second = np.random.default_rng(0).normal(size=(2, 8, length)).astype(np.float32)
    by_blocks = jax.jit(gradients.products_by_blocks, static_argnums=2)
    for other in (first, second):
        found = by_blocks(first, other, other is first)
        expected = first.astype(np.float64) @ other.T.astype(np.float64)
        np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())


def test_gram_of_half_precision_gradients_is_summed_in_float32():
    ones = jnp.ones((TASKS, 3000), jnp.bfloat16)  # bfloat16 can't count beyond 256
    gram = gradients.gram({"a": ones})
    assert gram.dtype == jnp.float32
    np.testing.assert_array_equal(gram, np.full((TASKS, TASKS), 3000.0))


def test_combine_agrees_with_float64_and_keeps_the_dtype(stacked):
    weights = jnp.float32([0.5, -1.0, 3.0])
    found = gradients.combine(stacked, weights)
    for name, x in stacked.items():
        expected = np.tensordot(np.asarray(weights, np.float64), np.asarray(x, np.float64), 1)
        np.testing.assert_allclose(found[name], expected, rtol=1e-5, atol=1e-6)
    half = jax.tree.map(lambda x: x.astype(jnp.bfloat16), stacked)
    assert gradients.combine(half, weights)["kernel"].dtype == jnp.bfloat16


def test_all_finite_sees_one_bad_entry_anywhere():
    all_finite = jax.jit(gradients.all_finite)

    def tree(place, value):
        leaves = np.random.default_rng(0).normal(size=(2, 37)).astype(np.float32)
        leaves.flat[place] = value
        return {"a": leaves[0], "b": [leaves[1]]}

    assert all_finite(tree(0, 3e38))
    for value in (np.nan, np.inf, -np.inf):
        assert not any(all_finite(tree(place, value)) for place in range(74))


def test_scale_multiplies_every_leaf_and_keeps_its_dtype():
    tree = {"a": jnp.ones(3), "b": jnp.full(2, 4.0, jnp.bfloat16)}
    scaled = gradients.scale(tree, jnp.float32(0.5))
    np.testing.assert_array_equal(scaled["a"], 0.5)
    np.testing.assert_array_equal(scaled["b"].astype(jnp.float32), 2.0)
    assert scaled["b"].dtype == jnp.bfloat16


@pytest.mark.parametrize(
    ("tree", "complaint"),
    [
        ({}, "holds no arrays"),
        ({"a": jnp.ones(())}, r"must be float\[K, \.\.\.\]"),
        ({"a": jnp.ones((3, 2)), "b": jnp.ones((2, 2))}, r"`gradients\['b'\]` must be float\[3"),
        ({"a": jnp.ones((3, 2), jnp.complex64)}, "got complex64"),
    ],
)
def test_gradients_that_are_not_stacked_are_refused(tree, complaint):
    with pytest.raises(ValueError, match=complaint):
        gradients.gram(tree)
    with pytest.raises(ValueError, match="must be|holds no"):
        gradients.combine(tree, jnp.ones(3))


def test_selecting_hides_what_absent_tasks_hold(stacked):
    broken = jax.tree.map(lambda x: x.at[1].set(jnp.nan), stacked)
    found = gradients.select(broken, jnp.array([True, False, True]))
    for name, leaf in found.items():
        np.testing.assert_array_equal(leaf[1], 0.0)
        np.testing.assert_array_equal(leaf[::2], stacked[name][::2])


def test_leaves_without_entries_are_finite():
    assert gradients.all_finite({"a": jnp.zeros((0, 3)), "b": jnp.ones(2)})
    assert gradients.all_finite({"a": jnp.zeros(0)})
