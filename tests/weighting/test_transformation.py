"""The weightings as optax transformations, over any pytree of parameters."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint
import pytest

from mtl_jax.weighting import (
    METHODS,
    Signals,
    TaskWeights,
    combine_tasks,
    gram,
    task_gradients,
    weighted_gradient,
)
from tests.weighting.trees import (
    ALONE,
    HEADS,
    LOSSES,
    PARAMS,
    ROWS,
    by_hand,
    close,
    flat,
    losses_of,
    stacked,
)


@pytest.mark.parametrize("name", ALONE)
def test_the_gradient_is_the_weighted_sum(name):
    tx = combine_tasks(METHODS[name](), num_tasks=3)
    losses, gradients = task_gradients(losses_of, PARAMS)
    state = tx.init(PARAMS)
    found, after = jax.jit(tx.update)(gradients, state, PARAMS, losses=losses)
    assert jax.tree.structure(found) == jax.tree.structure(PARAMS)
    assert after.step == 1
    assert jax.tree.structure(after) == jax.tree.structure(state)
    weighting = METHODS[name]()
    if weighting.combine is None:
        key = jax.random.fold_in(jax.random.key(0), 0)
        signals = Signals(losses, gram(gradients), jnp.array(0), key)
        weights = weighting.update(signals, weighting.init(3))[0].shared
        expected = jax.tree.map(lambda g: jnp.tensordot(weights, g, 1), gradients)
        close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("text", ["fixed:task_weights=1+2+3", "rlw"])
def test_a_text_is_the_weighting_that_it_names(text):
    name, options = {"rlw": ("rlw", {})}.get(text, ("fixed", {"task_weights": (1.0, 2.0, 3.0)}))
    losses, gradients = task_gradients(losses_of, PARAMS)
    outcomes = [
        tx.update(gradients, tx.init(PARAMS), losses=losses)[0]
        for weighting in (text, METHODS[name](**options))
        for tx in [combine_tasks(weighting, num_tasks=3, seed=3)]
    ]
    jax.tree.map(np.testing.assert_array_equal, *outcomes)


def test_it_stands_first_in_a_chain():
    weigh = combine_tasks("imtl_g", num_tasks=3)
    rest = optax.chain(optax.clip_by_global_norm(0.1), optax.sgd(1e-2, momentum=0.9))
    tx = optax.chain(combine_tasks("imtl_g", num_tasks=3), rest)
    losses, gradients = task_gradients(losses_of, PARAMS)
    # Other transformations' arguments pass by.
    found, state = tx.update(gradients, tx.init(PARAMS), PARAMS, losses=losses, value=1.0)
    gradient, weighed = weigh.update(gradients, weigh.init(PARAMS), PARAMS, losses=losses)
    expected, _ = rest.update(gradient, rest.init(PARAMS), PARAMS)
    close(found, expected, rtol=1e-6)
    np.testing.assert_array_equal(state[0].weights.shared, weighed.weights.shared)
    # How optax finds parameters in a state, to shard it for example.
    marked = optax.tree_map_params(tx, lambda leaf: None, state)
    assert jax.tree.structure(marked[0]) == jax.tree.structure(state[0])


@pytest.mark.parametrize(
    "name",
    ["imtl_g", "uw", "graddrop"]
    + [pytest.param(x, marks=pytest.mark.slow) for x in ("nash", "gradnorm", "excess_mtl")],
)
def test_the_state_may_be_donated(name):
    tx = combine_tasks(METHODS[name](), num_tasks=3)
    update = jax.jit(tx.update, donate_argnums=1)
    gradients = stacked(ROWS[0])
    _, state = update(gradients, tx.init(PARAMS), losses=LOSSES[0])
    assert update(gradients, state, losses=LOSSES[0])[1].step == 2


IN_GRADIENT_SPACE = {"graddrop", "db_mtl", "moco", "excess_mtl"}


@pytest.mark.parametrize(
    "name",
    ["uw", "graddrop"]
    + [pytest.param(x, marks=pytest.mark.slow) for x in ("nash", "mgda", "gradnorm", "db_mtl")],
)
def test_the_weights_are_constants_for_differentiation(name):
    tx = combine_tasks(METHODS[name](), num_tasks=3)
    state = tx.init(PARAMS)
    losses, gradients = jnp.array(LOSSES[0]), stacked(ROWS[0])

    def total(losses, gradients):
        gradient, after = tx.update(gradients, state, losses=losses)
        return sum(jnp.sum(leaf) for leaf in jax.tree.leaves(gradient)), after.weights.shared

    by_losses, by_gradients = jax.grad(total, (0, 1), has_aux=True)(losses, gradients)[0]
    np.testing.assert_array_equal(by_losses, 0.0)
    weights = jnp.zeros(3) if name in IN_GRADIENT_SPACE else total(losses, gradients)[1]
    for leaf in jax.tree.leaves(by_gradients):
        rest = [1] * (leaf.ndim - 1)
        np.testing.assert_array_equal(leaf, np.broadcast_to(weights.reshape(-1, *rest), leaf.shape))


@pytest.mark.parametrize(
    "name", ["rlw", *(pytest.param(x, marks=pytest.mark.slow) for x in ("nash", "moco"))]
)
def test_it_scans_and_maps_over_seeds(name):
    def run(seed):
        tx = combine_tasks(METHODS[name](), num_tasks=3, seed=seed)

        def step(state, given):
            gradient, state = tx.update(stacked(given[1]), state, losses=given[0])
            return state, gradient

        return jax.lax.scan(step, tx.init(PARAMS), (LOSSES, ROWS))

    state, gradients = jax.vmap(run)(jnp.array([1, 2]))
    single, expected = run(2)
    assert state.weights.shared.shape == (2, 3) and np.all(state.step == 2)
    close(jax.tree.map(lambda x: x[1], (state, gradients)), (single, expected), rtol=1e-5)
    if name == "rlw":
        assert np.all(state.weights.shared[0] != state.weights.shared[1])


def test_a_checkpoint_brings_the_state_back(tmp_path):
    tx = optax.chain(combine_tasks("uw", num_tasks=3), optax.sgd(0.1, momentum=0.9))
    gradients = stacked(ROWS[0])
    _, state = tx.update(gradients, tx.init(PARAMS), losses=LOSSES[0])
    with orbax.checkpoint.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "state", state)
        checkpointer.wait_until_finished()
        back = checkpointer.restore(tmp_path / "state", tx.init(PARAMS))
    assert jax.tree.structure(back) == jax.tree.structure(state)
    expected, found = (tx.update(gradients, x, losses=LOSSES[1])[0] for x in (state, back))
    np.testing.assert_array_equal(flat(found), flat(expected))


@pytest.mark.parametrize("heads", HEADS)
def test_heads_have_weights_of_their_own_and_no_part_in_the_gram_matrix(heads):
    weighting = METHODS["fairgrad"](max_norm=0.1)
    tx = combine_tasks(weighting, num_tasks=3, heads=HEADS[heads])
    found, state = tx.update(stacked(ROWS[0]), tx.init(PARAMS), losses=LOSSES[0])
    signals = Signals(LOSSES[0], gram(ROWS[0][:, :2]), jnp.array(0))
    weights, _, _ = weighting.update(signals, weighting.init(3))
    assert not np.allclose(weights.shared, weights.heads)
    close(state.weights, weights, rtol=1e-6)
    np.testing.assert_allclose(flat(found), by_hand(weights, ROWS[0]), rtol=1e-5, atol=1e-6)


def test_a_method_by_the_gradients_themselves_weighs_the_heads():
    tx = combine_tasks("graddrop", num_tasks=3, heads=HEADS["a prefix"])
    found, state = tx.update(stacked(ROWS[0]), tx.init(PARAMS), losses=LOSSES[0])
    expected = by_hand(state.weights, ROWS[0])
    np.testing.assert_allclose(flat(found)[2:], expected[2:], rtol=1e-6)
    weighting = METHODS["graddrop"]()
    signals = Signals(LOSSES[0], gram(ROWS[0][:, :2]), jnp.array(0))
    signals = signals._replace(key=jax.random.fold_in(jax.random.key(0), 0))
    shared = [jnp.asarray(ROWS[0][:, :2])]
    gradient, *_ = weighting.combine(shared, signals, weighting.init(3, [jnp.zeros(2)]))
    np.testing.assert_array_equal(flat(found)[:2], gradient[0])


def test_integers_and_none_stay_as_they_are():
    params = {"x": jnp.ones(2), "count": jnp.array(7), "none": None, "on": True}
    tx = optax.chain(combine_tasks("imtl_g", num_tasks=2), optax.sgd(0.1))

    def losses_of(params):
        x = params["x"] * jnp.where(params["on"], params["count"].astype(jnp.float32), 0.0)
        return [jnp.sum(x**2), jnp.sum((x - 1) ** 2)]

    @jax.jit
    def step(params, state):
        losses, gradients = task_gradients(losses_of, params)
        updates, state = tx.update(gradients, state, params, losses=losses)
        return gradients, optax.apply_updates(params, updates)

    with jax.numpy_dtype_promotion("standard"):  # optax adds a bool and a bool
        gradients, after = step(params, tx.init(params))
    assert gradients["count"].shape == (2,) and gradients["count"].dtype == jnp.int32
    assert after["count"] == 7 and after["none"] is None and after["on"]
    assert np.all(after["x"] < 1)
    gradient = weighted_gradient(losses_of, params, TaskWeights(jnp.ones(2), jnp.ones(2)))[1]
    assert gradient["count"] == 0 and gradient["none"] is None
    # What JAX itself gives for integers.
    floats = gradients | {"count": np.zeros(2, jax.dtypes.float0)}
    combined = combine_tasks("imtl_g", num_tasks=2)
    found, _ = combined.update(floats, combined.init(params), losses=jnp.ones(2))
    assert found["count"].dtype == jax.dtypes.float0 and found["count"].shape == ()
