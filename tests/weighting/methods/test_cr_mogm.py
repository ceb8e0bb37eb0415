"""CR-MOGM's average around methods of every kind."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtl_jax.weighting import (
    METHODS,
    Signals,
    combine_tasks,
    cr_mogm,
    famo,
    make,
    nash,
    si,
    task_gradients,
)
from mtl_jax.weighting.methods.cr_mogm import AverageState

DECAY = 0.7


def signals(step: int, **changes) -> Signals:
    rng = np.random.default_rng(step)
    rows = rng.standard_normal((3, 20))
    losses = jnp.float32(rng.uniform(0.2, 2.0, 3))
    gram = jnp.float32(rows @ rows.T)
    plain = Signals(losses, gram, jnp.array(step), jax.random.key(step), cross=gram)
    return plain._replace(**changes)


@pytest.mark.parametrize("name", ["nash", "si", "rlw", "upgrad", "gradnorm", "modo"])
def test_weights_are_the_average_of_those_of_the_method(name):
    alone, averaged = METHODS[name](), cr_mogm(METHODS[name](), decay=DECAY)
    state, own = averaged.init(3), alone.init(3)
    expected = None
    for step in range(5):
        weights, own, diagnostics = alone.update(signals(step), own)
        found, state, same = averaged.update(signals(step), state)
        new = [np.asarray(part, np.float64) for part in weights]
        if expected is None:
            expected = new
        expected = [DECAY * old + (1 - DECAY) * v for old, v in zip(expected, new, strict=True)]
        np.testing.assert_allclose(found.shared, expected[0], rtol=1e-5)
        np.testing.assert_allclose(found.heads, expected[1], rtol=1e-5)
        jax.tree.map(np.testing.assert_array_equal, same, diagnostics)
    jax.tree.map(np.testing.assert_array_equal, state.inner, own)


def test_without_decay_it_is_the_method():
    alone, averaged = nash(), cr_mogm(decay=0.0)
    state, own = averaged.init(3), alone.init(3)
    for step in range(3):
        weights, own, _ = alone.update(signals(step), own)
        found, state, _ = averaged.update(signals(step), state)
        jax.tree.map(np.testing.assert_array_equal, found, weights)


def test_an_absent_task_and_a_failed_step_leave_the_average_alone():
    for weighting in (cr_mogm(), cr_mogm(si())):
        _, state, _ = weighting.update(signals(0), weighting.init(3))
        given = signals(1, labelled=jnp.array([True, False, True]))
        weights, after, _ = weighting.update(given, state)
        assert weights.shared[1] == weights.heads[1] == 0
        assert after.weights.shared[1] == state.weights.shared[1] != 0
        assert after.weights.shared[0] != state.weights.shared[0]
        given = signals(1, losses=jnp.array([1.0, jnp.nan, 1.0]))
        weights, after, diagnostics = weighting.update(given, state)
        assert diagnostics["fallback"] == 1 and np.all(np.isfinite(weights.shared))
        assert after.weights.shared[1] == state.weights.shared[1]
    # A task that comes late starts with its first weight.
    weighting = cr_mogm(si(), decay=0.5)
    given = signals(0, labelled=jnp.array([True, False, True]))
    _, state, _ = weighting.update(given, weighting.init(3))
    weights, state, _ = weighting.update(signals(1), state)
    np.testing.assert_allclose(weights.shared[1], 1 / signals(1).losses[1], rtol=1e-6)


def test_a_weight_of_zero_is_not_taken_for_an_absent_task():
    """Of two gradients in one direction, `mgda` gives the longer one the weight zero."""
    weighting, both = cr_mogm(METHODS["mgda"](), decay=0.5), jnp.array([True, True])
    one = both.at[1].set(False)

    def given(gram, labelled):
        gram = None if gram is None else jnp.array(gram)
        return Signals(jnp.ones(2), gram, jnp.array(0), labelled=labelled)

    _, state, _ = weighting.update(given([[1.0, 0.0], [0.0, 1.0]], both), weighting.init(2))
    weights, state, _ = weighting.update(given([[1.0, 2.0], [2.0, 9.0]], both), state)
    np.testing.assert_allclose(weights.shared, [0.75, 0.25], rtol=1e-5)
    # Its gradient is zero: its head is trained with the average.
    weights, _, _ = weighting.update(given([[1.0, 0.0], [0.0, 0.0]], both), state)
    np.testing.assert_allclose(weights.heads, [0.875, 0.25], rtol=1e-5)
    # It has labels again, between two updates.
    weights, state, _ = weighting.update(given([[1.0, 2.0], [2.0, 9.0]], one), state)
    np.testing.assert_allclose(weights.shared, [0.875, 0.0], rtol=1e-5)
    weights, _, _ = weighting.update(given(None, both), state)
    np.testing.assert_allclose(weights.shared, [0.875, 0.25], rtol=1e-5)


def test_the_losses_after_the_step_reach_the_method():
    weighting = cr_mogm(famo())
    _, state, _ = weighting.update(signals(0), weighting.init(3))
    after = weighting.follow_up(jnp.array([0.1, 0.5, 0.4]), signals(0), state)
    assert isinstance(after, AverageState) and np.any(after.inner.value != 0)
    assert cr_mogm().follow_up is None


def test_it_is_chosen_by_its_text():
    for text, weighting in (
        ("cr_mogm", cr_mogm()),
        ("cr_mogm:method=dwa:steps_per_epoch=2+temperature=0.5,decay=0.5", None),
        ("cr_mogm:method=dwa:temperature=0.5,decay=0.5", None),
    ):
        made = make(text, steps_per_epoch=2)
        if weighting is None:
            weighting = cr_mogm(METHODS["dwa"](2, temperature=0.5), decay=0.5)
        state, other = made.init(3), weighting.init(3)
        for step in range(6):
            found, state, _ = made.update(signals(step), state)
            expected, other, _ = weighting.update(signals(step), other)
            np.testing.assert_array_equal(found.shared, expected.shared)


def test_it_works_in_a_loop_of_your_own():
    tx, x = combine_tasks("cr_mogm:method=mgda,decay=0.8", num_tasks=2), jnp.array([3.0, 2.0])

    def losses_of(x):
        return jnp.stack([jnp.sum((x - 1) ** 2), 2 * jnp.sum((x + 1) ** 2)])

    @jax.jit
    def step(x, state):
        losses, gradients = task_gradients(losses_of, x)
        gradient, state = tx.update(gradients, state, x, losses=losses)
        return x - 0.05 * gradient, state

    state = tx.init(x)
    for _ in range(200):
        x, state = step(x, state)
    np.testing.assert_allclose(x[0], x[1], atol=0.05)  # on the Pareto front
    assert -1.01 < x[0] < 1.01


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("cr_mogm:decay=1", "decay must be 0 to 1"),
        ("cr_mogm:method=graddrop", "makes the gradient itself"),
        ("cr_mogm:method=bogus", "'bogus' is unknown"),
        ("cr_mogm:method=fairgrad:beta=1", "fairgrad has no option 'beta'"),
    ],
)
def test_what_cannot_be_averaged_is_refused(text, complaint):
    with pytest.raises(ValueError, match=complaint):
        make(text)


def test_a_function_in_place_of_a_weighting_is_refused():
    with pytest.raises(ValueError, match="must be a Weighting such as uw.., got function"):
        cr_mogm(nash)
    with pytest.raises(ValueError, match="`state` must be what"):
        cr_mogm().update(signals(0), nash().init(3))
