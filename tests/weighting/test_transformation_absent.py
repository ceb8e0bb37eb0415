"""The weightings as optax transformations: tasks without labels, or that are not finite."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mtl_jax.weighting import (
    METHODS,
    combine_tasks,
)
from tests.weighting.steps import DRAWS
from tests.weighting.trees import ALONE, LOSSES, PARAMS, PRESENT, ROWS, flat, stacked


@pytest.mark.parametrize("name", ALONE)
def test_the_values_of_an_absent_task_have_no_effect(name):
    """Two steps with a task without labels are two steps of the problem without that task."""
    tx = combine_tasks(METHODS[name](), num_tasks=3)
    update = jax.jit(tx.update)

    def run(loss, entry):
        state, found = tx.init(PARAMS), []
        for rows, losses in zip(ROWS.copy(), LOSSES.copy(), strict=True):
            rows[1], losses[1] = entry, loss
            gradient, state = update(stacked(rows), state, losses=losses, labelled=PRESENT)
            found.append(flat(gradient))
        assert state.diagnostics["participation"][1] == state.diagnostics["fallback"] == 0
        assert state.weights.shared[1] == state.weights.heads[1] == 1
        return found, state

    first, state = run(3.0, 1.0)
    for loss, entry in ((np.nan, np.nan), (np.inf, -np.inf), (0.0, 0.0), (-1.0, 1e30)):
        jax.tree.map(np.testing.assert_array_equal, run(loss, entry), (first, state))
    if name in DRAWS:
        return
    two = combine_tasks(METHODS[name](), num_tasks=2)
    alone, update = two.init(PARAMS), jax.jit(two.update)
    for rows, losses, found in zip(ROWS, LOSSES, first, strict=True):
        gradient, alone = update(stacked(rows[PRESENT]), alone, losses=losses[PRESENT])
        np.testing.assert_allclose(found, flat(gradient), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(state.weights.shared[PRESENT], alone.weights.shared, rtol=1e-4)


@pytest.mark.parametrize(
    "name",
    ["equal", "uw", *(pytest.param(x, marks=pytest.mark.slow) for x in ("mgda", "upgrad"))],
)
def test_the_only_task_with_labels_is_followed_alone(name):
    tx = combine_tasks(METHODS[name](), num_tasks=2)
    gradients, labelled = jnp.array([[1.0, 0.0], [0.0, 5.0]]), jnp.array([True, False])
    found, state = tx.update(
        gradients, tx.init(jnp.zeros(2)), losses=jnp.ones(2), labelled=labelled
    )
    weight = 0.5 if name == "uw" else 1.0
    np.testing.assert_allclose(found, [weight, 0.0], rtol=1e-6)
    np.testing.assert_allclose(state.weights.shared, [weight, 1.0], rtol=1e-6)


@pytest.mark.parametrize("name", ALONE)
def test_a_present_task_that_is_not_finite_shows_in_the_gradient_and_the_diagnostics(name):
    tx = combine_tasks(METHODS[name](), num_tasks=3)
    update = jax.jit(tx.update)
    _, before = update(stacked(ROWS[0]), tx.init(PARAMS), losses=LOSSES[0])
    assert before.diagnostics["fallback"] == 0
    for what in ("loss", "gradient"):
        for bad in (np.nan, np.inf):
            rows, losses = ROWS[1].copy(), LOSSES[1].copy()
            if what == "loss":
                losses[1] = bad
            else:
                rows[1, 0] = bad
            gradient, after = update(stacked(rows), before, losses=losses)
            assert not np.all(np.isfinite(flat(gradient)))
            assert after.diagnostics["fallback"] == 1
            assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(after))
    gradient, _ = update(stacked(ROWS[1]), after, losses=LOSSES[1])
    assert np.all(np.isfinite(flat(gradient)))


@pytest.mark.parametrize("name", ["si", "uw", "imtl_g"])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_loss_that_is_not_finite_takes_no_weight_away(name, bad):
    """A loop with one backward pass follows the weights of the step before, which failed."""
    tx = combine_tasks(METHODS[name](), num_tasks=3)
    _, before = tx.update(stacked(ROWS[0]), tx.init(PARAMS), losses=LOSSES[0])
    losses = LOSSES[1].copy()
    losses[1] = bad
    _, after = tx.update(stacked(ROWS[1]), before, losses=losses)
    assert after.weights.shared[1] == before.weights.shared[1] != 0
    assert after.weights.heads[1] == before.weights.heads[1] != 0
    _, first = tx.update(stacked(ROWS[1]), tx.init(PARAMS), losses=losses)
    assert first.weights.shared[1] == first.weights.heads[1] == 1


def test_optax_skips_a_step_that_is_not_finite():
    tx = optax.chain(
        combine_tasks("imtl_g", num_tasks=3),
        optax.apply_if_finite(optax.sgd(0.1), max_consecutive_errors=5),
    )
    losses = jnp.array([1.0, jnp.nan, 0.5])
    updates, _ = tx.update(stacked(ROWS[0]), tx.init(PARAMS), PARAMS, losses=losses)
    np.testing.assert_array_equal(flat(updates), 0.0)
