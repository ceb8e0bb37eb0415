"""Every bad argument of a weighting is refused by a line that names it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtl_jax.weighting import METHODS, Signals

SHARED = jax.ShapeDtypeStruct((2,), jnp.float32)
GOOD = Signals(
    losses=jnp.ones(3),
    gram=jnp.eye(3),
    step=jnp.array(0),
    key=jax.random.key(0),
    labelled=jnp.ones(3, bool),
    cross=jnp.eye(3),
)
STATELESS = {"equal", "fixed", "rlw", "si", "gls", "pbi", "uw_so"}


def trace(name, signals, num_tasks=3, **options):
    weighting = METHODS[name](**options)
    state = weighting.init(num_tasks, SHARED)
    return jax.eval_shape(lambda: weighting.update(signals, state))


@pytest.mark.parametrize(
    ("name", "changes", "complaint"),
    [
        ("equal", {"losses": jnp.ones((3, 1))}, r"`losses` must be float\[K\].*float32\[3, 1\]"),
        ("si", {"losses": jnp.arange(3)}, r"`losses` must be.*int32\[3\]"),
        ("si", {"losses": jnp.ones(0)}, r"`losses` must be.*float32\[0\]"),
        ("uw", {"losses": {"a": 1.0}}, "`losses` must be.*dict"),
        ("nash", {"gram": jnp.eye(2)}, r"`gram` must be float\[3, 3\].*float32\[2, 2\]"),
        ("nash", {"gram": jnp.ones(3)}, r"`gram` must be float\[3, 3\].*float32\[3\]"),
        ("nash", {"gram": jnp.eye(3, dtype=jnp.complex64)}, "`gram` must be.*complex64"),
        ("modo", {"cross": None}, "`cross` is missing"),
        ("sdmgrad", {"cross": jnp.eye(2)}, r"`cross` must be float\[3, 3\]"),
        ("nash", {"labelled": jnp.ones(3, jnp.int32)}, r"`labelled` must be bool\[3\].*int32"),
        ("dwa", {"labelled": jnp.ones(2, bool)}, r"`labelled` must be bool\[3\].*bool\[2\]"),
        ("rlw", {"key": None}, "`key` is missing.*draws"),
        ("pcgrad", {"key": None}, "`key` is missing.*draws"),
        ("gradvac", {"key": jax.random.split(GOOD.key)}, "`key` must be one PRNG key"),
        ("rlw", {"key": 0}, "`key` must be one PRNG key.*got int 0"),
        ("dwa", {"step": None}, "`step` must be an integer scalar.*got None"),
        ("stch", {"step": jnp.zeros(())}, r"`step` must be an integer.*float32\[\]"),
    ],
)
def test_a_bad_signal_is_named(name, changes, complaint):
    with pytest.raises(ValueError, match=complaint) as raised:
        trace(name, GOOD._replace(**changes))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("name", [name for name in METHODS if name not in STATELESS])
def test_another_number_of_tasks_than_the_states_is_refused(name):
    with pytest.raises(ValueError, match="`losses` must be float.1.*num_tasks=1|`state` must be"):
        trace(name, GOOD, num_tasks=1)


@pytest.mark.parametrize("name", ["uw", "nash", "db_mtl"])
def test_the_state_of_something_else_is_refused(name):
    weighting = METHODS[name]()
    for state in ((), None, METHODS["famo"]().init(3)):
        with pytest.raises(ValueError, match="`state` must be"):
            weighting.update(GOOD, state)
    with pytest.raises(ValueError, match="`signals` must be Signals"):
        weighting.update(GOOD.losses, weighting.init(3, SHARED))


@pytest.mark.parametrize("name", ["fixed", "pbi"])
def test_a_preference_of_another_number_of_tasks_is_refused(name):
    weighting = METHODS[name]((1.0, 2.0))
    with pytest.raises(ValueError, match="one number for each of the 3 tasks"):
        weighting.update(GOOD, weighting.init(2))


def test_gradients_of_other_parameters_are_refused():
    weighting = METHODS["db_mtl"]()
    state = weighting.init(3, SHARED)
    with pytest.raises(ValueError, match=r"`state` must be.*float32\[3, 2\], not float32\[3, 5\]"):
        weighting.combine(jnp.ones((3, 5)), GOOD, state)
    with pytest.raises(ValueError, match=r"`gradients` must be float\[3, ...\].*float32\[2\]"):
        weighting.combine(jnp.ones(2), GOOD, state)
    with pytest.raises(ValueError, match="`gram` is missing"):
        weighting.combine(jnp.ones((3, 2)), GOOD._replace(gram=None), state)


def test_losses_after_the_step_are_checked():
    weighting = METHODS["famo"]()
    with pytest.raises(ValueError, match="`losses` must be|`state` must be"):
        weighting.follow_up(jnp.ones(2), GOOD, weighting.init(3))


@pytest.mark.parametrize("num_tasks", [0, -1, 2.0, None, "3"])
def test_a_wrong_number_of_tasks_is_refused(num_tasks):
    for name in ("equal", "nash", "db_mtl"):
        with pytest.raises(ValueError, match="num_tasks"):
            METHODS[name]().init(num_tasks, SHARED)


def test_a_method_that_draws_wants_no_key_between_updates():
    weighting = METHODS["pcgrad"]()
    between = GOOD._replace(gram=None, key=None)
    weights, _, _ = weighting.update(between, weighting.init(3))
    np.testing.assert_array_equal(weights.shared, 1.0)


def test_numpy_arrays_lists_and_keys_of_the_old_style_will_do():
    plain = Signals([1.0, np.float32(2.0), jnp.array(3.0)], np.eye(3), 0)
    weights, _, _ = METHODS["nash"]().update(plain, METHODS["nash"]().init(3))
    np.testing.assert_allclose(weights.heads, 1.0, rtol=1e-5)
    trace("rlw", GOOD._replace(key=jax.random.PRNGKey(0)))


@pytest.mark.parametrize("name", ["si", "uw", "nash", "fairgrad", "upgrad", "gradnorm"])
def test_the_weights_have_no_derivative(name):
    weighting = METHODS[name]()
    state = weighting.init(3)

    def total(losses, gram):
        return jnp.sum(weighting.update(GOOD._replace(losses=losses, gram=gram), state)[0].shared)

    for slope in jax.grad(total, (0, 1))(GOOD.losses, GOOD.gram):
        np.testing.assert_array_equal(slope, 0.0)
