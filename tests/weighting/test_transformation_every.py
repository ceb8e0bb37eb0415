"""The weightings as optax transformations: steps between two updates of the weights."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mtl_jax.weighting import (
    METHODS,
    TaskWeights,
    combine_tasks,
    task_gradients,
    weighted_gradient,
)
from tests.weighting.trees import (
    HEADS,
    LOSSES,
    PARAMS,
    PRESENT,
    ROWS,
    by_hand,
    close,
    flat,
    losses_of,
    stacked,
)


@pytest.mark.parametrize("name", ["imtl_g", "graddrop"])
def test_steps_between_two_updates_follow_the_last_weights(name):
    tx = combine_tasks(METHODS[name](), num_tasks=3, every=2, heads=HEADS["a prefix"])
    always = combine_tasks(METHODS[name](), num_tasks=3, heads=HEADS["a prefix"])
    update = jax.jit(tx.update)
    first, state = update(stacked(ROWS[0]), tx.init(PARAMS), losses=LOSSES[0])
    expected, after = always.update(stacked(ROWS[0]), always.init(PARAMS), losses=LOSSES[0])
    close((first, state), (expected, after), rtol=1e-5)
    # A step between sees other gradients, and a task without labels.
    for labelled in (None, PRESENT):
        rows = ROWS[1].copy()
        if labelled is not None:
            rows[1] = np.nan
        found, between = update(stacked(rows), state, losses=LOSSES[1], labelled=labelled)
        rows[1] = 0.0 if labelled is not None else rows[1]
        np.testing.assert_allclose(flat(found), by_hand(state.weights, rows), rtol=1e-5)
        close(between, state._replace(step=2), rtol=0)
    third, state = update(stacked(ROWS[1]), between, losses=LOSSES[1])
    fresh = after._replace(step=jnp.array(2, jnp.int32))
    close(third, always.update(stacked(ROWS[1]), fresh, losses=LOSSES[1])[0], rtol=1e-5)


@pytest.mark.parametrize("name", ["si", "imtl"])
@pytest.mark.parametrize("step", [1, 2])
def test_a_task_with_a_negative_loss_is_out_of_that_step_alone(name, step):
    """Step 1 is between two updates of a method by the gradients, and step 2 is one of them."""
    tx = combine_tasks(name, num_tasks=3, every=2)
    update, out = jax.jit(tx.update), np.array([False, True, False])
    _, state = update(stacked(ROWS[0]), tx.init(PARAMS), losses=LOSSES[0])
    for _ in range(step - 1):
        _, state = update(stacked(ROWS[0]), state, losses=LOSSES[0])
    losses = np.where(out, -1.0, LOSSES[1])
    left_out = update(stacked(ROWS[1]), state, losses=losses)
    close(left_out[0], update(stacked(ROWS[1]), state, losses=losses, labelled=~out)[0], rtol=1e-6)
    after = left_out[1]
    np.testing.assert_array_equal(after.diagnostics["negative_loss"], out)
    assert after.weights.shared[1] == state.weights.shared[1] != 0
    assert after.weights.heads[1] == state.weights.heads[1] != 0
    # A step with one backward pass follows these weights.
    one = jax.tree.map(lambda x: x[0], stacked(ROWS[1]))
    _, state = tx.update(one, after, losses=LOSSES[1], combined=True)
    assert not np.any(state.diagnostics["negative_loss"])


def test_a_loop_that_counts_anew_computes_weights_again():
    tx = combine_tasks("imtl_g", num_tasks=3, every=4)
    state, computed = tx.init(PARAMS), []
    # It stops after step 5 and goes on with its number 0.
    for number in (*range(6), *range(9)):
        rows = stacked(ROWS[number % 2])
        given = rows if number % 4 == 0 else jax.tree.map(lambda x: x[0], rows)
        _, state = tx.update(given, state, losses=LOSSES[0], combined=number % 4 != 0)
        computed.append(int(state.computed))
    # At its next number 0, step 6, the weights of step 4 are two steps old.
    assert computed == [0] * 4 + [4] * 6 + [10] * 4 + [14]


def test_a_method_by_the_losses_updates_in_every_step():
    once, twice = (combine_tasks("si", num_tasks=3, every=every) for every in (1, 2))
    state = twice.init(PARAMS)._replace(step=jnp.array(1, jnp.int32))
    close(
        once.update(stacked(ROWS[1]), state, losses=LOSSES[1]),
        twice.update(stacked(ROWS[1]), state, losses=LOSSES[1]),
        rtol=0,
    )


@pytest.mark.parametrize("labelled", [None, PRESENT])
def test_one_backward_pass_gives_what_k_of_them_give(labelled):
    heads = HEADS["a prefix"]
    tx = optax.chain(combine_tasks("imtl_g", num_tasks=3, heads=heads, every=2), optax.sgd(0.1))
    losses, gradients = task_gradients(losses_of, PARAMS)
    _, state = tx.update(gradients, tx.init(PARAMS), PARAMS, losses=losses)
    moved = jax.tree.map(lambda x: x + 0.1, PARAMS)
    losses, gradients = task_gradients(losses_of, moved)
    expected = tx.update(gradients, state, moved, losses=losses, labelled=labelled)
    again, gradient = jax.jit(partial(weighted_gradient, losses_of))(
        moved, state[0].weights, labelled=labelled
    )
    with_heads = weighted_gradient(
        losses_of, moved, state[0].weights, heads=heads, labelled=labelled
    )[1]
    np.testing.assert_allclose(again, losses, rtol=1e-6)
    # Without a mask all parameters get the shared weights.
    close(gradient["layers"][0], with_heads["layers"][0], rtol=1e-6)
    found = tx.update(with_heads, state, moved, losses=again, labelled=labelled, combined=True)
    close(found, expected, rtol=1e-5)


def test_a_loss_that_is_not_finite_is_not_hidden_between_two_updates():
    tx = combine_tasks("imtl_g", num_tasks=2)
    weights = TaskWeights(jnp.array([1.0, 0.0]), jnp.ones(2))

    def broken(x):
        return [jnp.sum(x), jnp.sum(x) * 0 + jnp.inf]

    losses, gradient = weighted_gradient(broken, jnp.ones(2), weights)
    assert not np.any(np.isfinite(gradient))
    _, state = tx.update(gradient, tx.init(jnp.ones(2)), losses=losses, combined=True)
    assert state.diagnostics["fallback"] == 1
    gradient = jnp.ones(2)
    _, state = tx.update(gradient, state, losses=jnp.ones(2), combined=True)
    assert state.diagnostics["fallback"] == 0
