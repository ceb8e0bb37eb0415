"""Every method in programs of float64, and with gradients in bfloat16."""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtl_jax.weighting import METHODS, Signals, Weighting, gram

TASKS, SIZE = 3, 40


@pytest.fixture(params=METHODS)
def weighting(request) -> Weighting:
    return METHODS[request.param]()


@pytest.fixture
def float64() -> Iterator[None]:
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", False)


def step(weighting: Weighting, losses: Any, gradients: Any, state: Any) -> tuple:
    """(gradient or None, weights, state, diagnostics) of a step, as a loop computes them."""
    matrix = gram(gradients)
    signals = Signals(losses, matrix, jnp.array(0), jax.random.key(0), cross=matrix)
    if weighting.combine is None:
        return None, *weighting.update(signals, state)
    return weighting.combine(gradients, signals, state)


def given(dtype: Any, *, rounded: Any = jnp.bfloat16) -> tuple[jax.Array, jax.Array]:
    """Losses and gradients of a type, all numbers of which the type `rounded` can hold, too."""
    rng = np.random.default_rng(0)
    losses = jnp.asarray(rng.uniform(0.2, 2.0, TASKS), rounded)
    gradients = jnp.asarray(rng.standard_normal((TASKS, SIZE)), rounded)
    return losses.astype(dtype), gradients.astype(dtype)


def initial(weighting: Weighting, dtype: Any) -> Any:
    return weighting.init(TASKS, jax.ShapeDtypeStruct((SIZE,), dtype))


def dtypes(tree: Any) -> list:
    return [leaf.dtype for leaf in jax.tree.leaves(tree)]


@pytest.mark.parametrize(
    "dtype",
    [
        "float64",
        *(pytest.param(other, marks=pytest.mark.slow) for other in ("float32", "bfloat16")),
    ],
)
@pytest.mark.usefixtures("float64")
def test_weights_and_state_have_the_same_types_in_any_program(weighting, dtype):
    state = initial(weighting, dtype)
    losses, gradients = given(dtype)
    gradient, weights, after, diagnostics = jax.eval_shape(
        lambda *arguments: step(weighting, *arguments), losses, gradients, state
    )
    assert set(dtypes((weights, diagnostics))) == {np.dtype("float32")}
    assert dtypes(after) == dtypes(state)
    assert np.dtype("float64") not in dtypes(after)
    assert gradient is None or gradient.dtype == dtype


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float64", "bfloat16"])
def test_weights_are_those_of_float32(weighting, dtype):
    expected = step(weighting, *given("float32"), initial(weighting, "float32"))
    jax.config.update("jax_enable_x64", dtype == "float64")
    try:
        found = step(weighting, *given(dtype), initial(weighting, dtype))
    finally:
        jax.config.update("jax_enable_x64", False)
    for part, other in zip(found[1], expected[1], strict=True):
        np.testing.assert_allclose(part, other, rtol=1e-3, atol=1e-4)
    if found[0] is not None:
        coarse = 0.02 if dtype == "bfloat16" else 1e-4
        scale = np.abs(expected[0]).max()
        differences = np.asarray(found[0], np.float64) - np.asarray(expected[0], np.float64)
        assert np.median(np.abs(differences)) <= coarse * scale
