import jax.numpy as jnp
import numpy as np

from mtl_jax.weighting import Signals, equal


def test_every_weight_is_one():
    weighting = equal()
    given = Signals(jnp.array([5.0, 0.1]), None, jnp.array(7, jnp.int32))
    weights, state, diagnostics = weighting.update(given, weighting.init(2))
    np.testing.assert_array_equal(weights.shared, [1.0, 1.0])
    np.testing.assert_array_equal(weights.heads, [1.0, 1.0])
    assert state == ()
    np.testing.assert_array_equal(diagnostics["participation"], [1.0, 1.0])
    assert diagnostics["fallback"] == 0
    assert weighting.needs == "losses"
