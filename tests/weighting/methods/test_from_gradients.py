"""Making a weighting of a function of the gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtl_jax.weighting import Signals, TaskWeights, from_gradients, from_gradients_update, gram

SHAPES = {"a": jax.ShapeDtypeStruct((2,), jnp.float32)}
ROWS = {"a": jnp.array([[1.0, 5.0], [2.0, -1.0], [4.0, 1.0]])}


def step(gradients, **changes) -> Signals:
    plain = Signals(jnp.array([1.0, 2.0, 3.0]), gram(gradients), jnp.array(0, jnp.int32))
    return plain._replace(**changes)


def median(gradients):
    return jax.tree.map(lambda g: jnp.median(g, axis=0), gradients)


def test_a_function_of_the_gradients_is_a_method():
    weighting = from_gradients(median)
    state = weighting.init(3, SHAPES)
    gradient, weights, state, diagnostics = weighting.combine(ROWS, step(ROWS), state)
    np.testing.assert_array_equal(gradient["a"], [2.0, 1.0])
    np.testing.assert_array_equal(weights.heads, 1.0)
    assert state.method == () and diagnostics["fallback"] == 0
    assert weighting.needs == "gradients"


def test_what_a_method_sees_of_an_absent_task_is_zero():
    weighting = from_gradients(median)
    broken = {"a": ROWS["a"].at[1].set(jnp.nan)}
    given = step(broken, labelled=jnp.array([True, False, True]))
    gradient, weights, _, _ = weighting.combine(broken, given, weighting.init(3, SHAPES))
    np.testing.assert_array_equal(gradient["a"], [1.0, 1.0])
    np.testing.assert_array_equal(weights.shared, [1.0, 0.0, 1.0])


def test_an_update_carries_its_state_unless_the_step_fails():
    def update(gradients, signals, state):
        total = jax.tree.map(lambda g: jnp.sum(g, axis=0), gradients)
        memory = jax.tree.map(jnp.add, state, total)
        return memory, TaskWeights(shared=signals.losses, heads=signals.losses), memory

    def init(num_tasks, shared):
        return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shared)

    weighting = from_gradients_update(update, init)
    state = weighting.init(3, SHAPES)
    for count in (1, 2):
        gradient, weights, state, _ = weighting.combine(ROWS, step(ROWS), state)
        np.testing.assert_array_equal(gradient["a"], [7.0 * count, 5.0 * count])
    np.testing.assert_array_equal(weights.shared, [1.0, 2.0, 3.0])
    given = step(ROWS, losses=jnp.array([1.0, jnp.inf, 3.0]))
    gradient, _, after, diagnostics = weighting.combine(ROWS, given, state)
    assert diagnostics["fallback"] == 1 and not np.any(np.isfinite(gradient["a"]))
    jax.tree.map(np.testing.assert_array_equal, after.method, state.method)


def test_the_shapes_of_the_parameters_are_needed():
    with pytest.raises(ValueError, match="`shared` is missing"):
        from_gradients(median).init(3)
