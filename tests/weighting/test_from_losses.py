"""Making a weighting of a function of the losses."""

import jax.numpy as jnp
import numpy as np
import pytest

from mtl_jax.weighting import Signals, from_losses, from_losses_update, from_total


def step(losses, **changes) -> Signals:
    plain = Signals(jnp.asarray(losses, jnp.float32), None, jnp.array(0, jnp.int32))
    return plain._replace(**changes)


def test_a_function_of_the_losses_is_a_method():
    weighting = from_losses(lambda losses: 2 / losses)
    labelled = jnp.array([True, False, True])
    given = step([0.5, jnp.nan, 4.0], labelled=labelled)
    weights, state, diagnostics = weighting.update(given, weighting.init(3))
    np.testing.assert_array_equal(weights.shared, [4.0, 0.0, 0.5])
    np.testing.assert_array_equal(weights.heads, weights.shared)
    np.testing.assert_array_equal(diagnostics["participation"], labelled)
    assert state == () and diagnostics["fallback"] == 0 and weighting.needs == "losses"


def test_a_total_loss_is_a_method():
    weighting = from_total(lambda losses, takes_part: jnp.sum(losses**2))
    weights, _, _ = weighting.update(step([0.5, 3.0]), weighting.init(2))
    np.testing.assert_array_equal(weights.shared, [1.0, 6.0])


def test_an_update_carries_its_state():
    def update(signals, state):
        return jnp.full_like(signals.losses, state), state + 1, {"seen": state}

    weighting = from_losses_update(update, lambda num_tasks: jnp.zeros((), jnp.float32))
    state = weighting.init(2)
    for count in range(3):
        weights, state, diagnostics = weighting.update(step([1.0, 2.0]), state)
        np.testing.assert_array_equal(weights.shared, [count, count])
        assert diagnostics["seen"] == count
    assert state == 3


def test_a_loss_that_is_not_finite_has_no_weight():
    weighting = from_losses(jnp.ones_like)
    weights, _, diagnostics = weighting.update(step([1.0, jnp.inf]), weighting.init(2))
    np.testing.assert_array_equal(weights.shared, [1.0, 0.0])
    assert diagnostics["fallback"] == 1


def test_a_preference_of_another_length_is_refused():
    for weighting in (
        from_losses(jnp.ones_like, preference=(1.0, 2.0)),
        from_total(lambda losses, takes_part: jnp.sum(losses), preference=(1.0, 2.0)),
    ):
        with pytest.raises(ValueError, match="one number for each of the 3 tasks"):
            weighting.init(3)
