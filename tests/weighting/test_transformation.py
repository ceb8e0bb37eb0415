"""The weightings as optax transformations, over any pytree of parameters."""

from functools import partial

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

PARAMS = {"layers": [jnp.array([1.0, -2.0]), (jnp.array([[0.5]]),)]}
NEED_MORE = ("famo", "modo", "sdmgrad")
# One of each kind runs with the usual tests, all others with the slow ones.
USUAL = {"equal", "uw", "imtl_g", "graddrop"}
ALONE = [
    pytest.param(name, marks=[] if name in USUAL else [pytest.mark.slow])
    for name in METHODS
    if name not in NEED_MORE
]


def losses_of(params):
    a, (b,) = params["layers"]
    return jnp.stack(
        [jnp.sum(a**2), jnp.sum(jnp.sin(a)) + b[0, 0] ** 2, jnp.sum(a) * b[0, 0] + 5.0]
    )


def stacked(rows):
    """Gradients f32[K, 3] as a pytree like PARAMS."""
    rows = jnp.asarray(rows)
    return {"layers": [rows[:, :2], (rows[:, 2:, None],)]}


def flat(gradient):
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(gradient)])


def close(found, expected, **bounds):
    jax.tree.map(partial(np.testing.assert_allclose, **bounds), found, expected)


ROWS = np.float32([[[1.0, 0.2, -0.3], [0.0, 5.0, 1.0], [-0.4, 0.3, 0.8]],
                   [[0.7, -0.1, 0.4], [2.0, 1.0, 0.3], [0.2, -0.6, 0.5]]])  # fmt: skip
LOSSES = np.float32([[1.0, 3.0, 0.5], [0.8, 2.0, 0.6]])
PRESENT = np.array([True, False, True])
# They draw a number, or an order, for each task's place.
DRAWS = {"rlw", "pcgrad", "gradvac"}


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


@pytest.mark.parametrize("name", NEED_MORE)
def test_what_needs_more_is_refused(name):
    with pytest.raises(ValueError, match="call its `update`"):
        combine_tasks(METHODS[name](), num_tasks=3)


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


@pytest.mark.parametrize("name", ALONE)
def test_an_absent_task_is_absent_whatever_it_holds(name):
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


def test_optax_skips_a_step_that_is_not_finite():
    tx = optax.chain(
        combine_tasks("imtl_g", num_tasks=3),
        optax.apply_if_finite(optax.sgd(0.1), max_consecutive_errors=5),
    )
    losses = jnp.array([1.0, jnp.nan, 0.5])
    updates, _ = tx.update(stacked(ROWS[0]), tx.init(PARAMS), PARAMS, losses=losses)
    np.testing.assert_array_equal(flat(updates), 0.0)


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


def by_hand(weights, rows):
    """The combined gradient f32[3]: the last entry belongs to heads."""
    return np.concatenate([weights.shared @ rows[:, :2], weights.heads @ rows[:, 2:]])


HEADS = {
    "a prefix": {"layers": [False, True]},
    "a pytree": {"layers": [False, (True,)]},
    "a function": lambda tree: {"layers": [False, True]},
}


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


@pytest.mark.parametrize(
    ("heads", "complaint"),
    [
        ({"layers": [True, True]}, "leaves no parameter that the tasks share"),
        ({"layers": [0, 1]}, "pytree of booleans.*got a leaf int 0"),
        ({"heads": True}, "pytree of booleans like the parameters.*got the structure"),
    ],
)
def test_a_wrong_mask_is_refused(heads, complaint):
    with pytest.raises(ValueError, match=complaint):
        combine_tasks("equal", num_tasks=3, heads=heads).init(PARAMS)


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


@pytest.mark.parametrize("labelled", [None, np.array([PRESENT, PRESENT[[2, 0, 1]]])])
@pytest.mark.parametrize("name", ["imtl_g", pytest.param("uw", marks=pytest.mark.slow)])
def test_devices_weigh_the_mean_of_their_gradients(name, labelled):
    tx = combine_tasks(METHODS[name](), num_tasks=3, axis_name="devices")
    alone = combine_tasks(METHODS[name](), num_tasks=3)
    state, gradients = tx.init(PARAMS), jax.vmap(stacked)(ROWS)
    update = jax.pmap(
        lambda gradients, losses, labelled: tx.update(
            gradients, state, losses=losses, labelled=labelled
        ),
        axis_name="devices",
        devices=jax.devices()[:2],
    )
    found, after = update(gradients, LOSSES, labelled)
    share = np.ones((2, 3)) if labelled is None else labelled
    share = np.float32(share / share.sum(axis=0))
    mean = stacked(np.einsum("dk,dkn->kn", share, ROWS))
    expected = alone.update(mean, state, losses=(share * LOSSES).sum(axis=0))
    for device in range(2):
        close(jax.tree.map(lambda x, d=device: x[d], (found, after)), expected, rtol=1e-4)

    def losses_of(x, rows, losses):
        return losses + rows @ x

    one = jax.pmap(
        lambda rows, losses, labelled: weighted_gradient(
            partial(losses_of, rows=rows, losses=losses), jnp.zeros(3), state.weights,
            labelled=labelled, axis_name="devices",
        ),
        axis_name="devices",
        devices=jax.devices()[:2],
    )  # fmt: skip
    losses, gradient = one(ROWS, LOSSES, labelled)
    np.testing.assert_allclose(gradient[0], flat(mean_of(mean)), rtol=1e-5)
    np.testing.assert_allclose(losses[1], (share * LOSSES).sum(axis=0), rtol=1e-6)


@pytest.mark.slow
def test_devices_may_be_those_of_shard_map():
    mesh = jax.make_mesh((2,), ("devices",), axis_types=(jax.sharding.AxisType.Auto,))
    tx = combine_tasks("nash", num_tasks=3, axis_name="devices")
    alone = combine_tasks("nash", num_tasks=3)

    def step(x, inputs, tx):
        losses, gradients = task_gradients(lambda x: jnp.mean((inputs - x) ** 2, axis=0), x)
        return tx.update(gradients, tx.init(x), x, losses=losses)

    specs = jax.sharding.PartitionSpec(), jax.sharding.PartitionSpec("devices")
    sharded = jax.shard_map(
        partial(step, tx=tx), mesh=mesh, in_specs=specs, out_specs=specs[0], check_vma=False
    )
    x, inputs = jnp.array([1.0, 2.0, -1.0]), jnp.concatenate(jnp.array(ROWS))[:4]
    found, expected = jax.jit(sharded)(x, inputs), step(x, inputs, alone)
    close((found[0], found[1].weights), (expected[0], expected[1].weights), rtol=1e-5)


def mean_of(gradients):
    """The sum of the tasks' gradients: all weights are one before the first update."""
    return jax.tree.map(lambda g: jnp.sum(g, axis=0), gradients)


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


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"weighting": "nahs"}, "'nahs' is unknown: choose from equal, .*nash"),
        ({"weighting": "nash:norm=1"}, "nash has no option 'norm'"),
        ({"weighting": METHODS["nash"]}, r"call combine_tasks\(nash\(\), ...\)"),
        ({"weighting": None}, "got None"),
        ({"num_tasks": 0}, "at least one task"),
        ({"num_tasks": 2.0}, "`num_tasks` must be a whole number.*float 2.0"),
        ({"num_tasks": PARAMS}, "`num_tasks` must be a whole number.*dict"),
        ({"every": 0}, "`every` must be a whole number of at least 1, got int 0"),
        ({"every": 2.0}, "`every` must be a whole number of at least 1, got float 2.0"),
    ],
)
def test_bad_arguments(changes, complaint):
    given = {"weighting": "equal", "num_tasks": 3} | changes
    with pytest.raises(ValueError, match=complaint):
        combine_tasks(given.pop("weighting"), **given)


@pytest.mark.parametrize(
    ("params", "complaint"),
    [
        ({"a": jnp.ones(3, jnp.complex64)}, "floating-point array, got complex64"),
        ({"a": jax.nn.relu}, r"`params\['a'\]` must be a floating-point array"),
        ({"a": jnp.arange(3)}, "`params` holds no arrays"),
    ],
)
def test_bad_parameters(params, complaint):
    with pytest.raises(ValueError, match=complaint):
        combine_tasks("equal", num_tasks=3).init(params)


GRADIENTS = {"a": jnp.ones((3, 4)), "b": None}
BAD_UPDATES = {
    "no losses": ({"losses": None}, r"`losses` is missing.*update\(gradients, .*losses=losses\)"),
    "two losses": ({"losses": jnp.ones(2)}, r"`losses` must be float\[3\].*num_tasks=3.*\[2\]"),
    "a scalar": ({"losses": jnp.ones(())}, r"`losses` must be float\[3\].*got float32\[\]"),
    "a column": ({"losses": jnp.ones((3, 1))}, r"`losses` must be.*got float32\[3, 1\]"),
    "whole losses": ({"losses": jnp.arange(3)}, r"`losses` must be.*got int32\[3\]"),
    "a pair": ({"losses": (jnp.ones(3), {})}, r"no auxiliary.*got tuple of float32\[3\], dict"),
    "not stacked": ({"gradients": {"a": jnp.ones(4), "b": None}},
                    r"`gradients\['a'\]` must be float\[3, 4\].*got float32\[4\]"),
    "wrong axis": ({"gradients": {"a": jnp.ones((4, 3)), "b": None}},
                   r"`gradients\['a'\]` must be float\[3, 4\].*leading axis.*got float32\[4, 3\]"),
    "two gradients": ({"gradients": {"a": jnp.ones((2, 4)), "b": None}},
                      r"`gradients\['a'\]` must be float\[3, 4\].*got float32\[2, 4\]"),
    "no parameters": ({"gradients": {"a": jnp.ones((2, 4)), "b": None}, "params": None},
                      r"`gradients\['a'\]` must be float\[3, ...\].*got float32\[2, 4\]"),
    "no gradients": ({"gradients": {}}, "`gradients` holds no arrays"),
    "one leaf more": ({"gradients": {"a": jnp.ones((3, 4)), "b": jnp.ones((3, 1))}},
                      r"like the `params`.*the leaves \['a'\]; got \['a'\], \['b'\]"),
    "other names": ({"gradients": {"c": jnp.ones((3, 4))}}, r"leaves \['a'\]; got \['c'\]"),
    "complex": ({"gradients": {"a": jnp.ones((3, 4), jnp.complex64), "b": None}}, "got complex64"),
    "combined": ({"combined": True}, r"one gradient.*got `gradients\['a'\]` float32\[3, 4\]"),
    "labels as numbers": ({"labelled": jnp.ones(3)}, r"`labelled` must be bool\[3\].*float32"),
    "one label": ({"labelled": jnp.array(True)}, r"`labelled` must be bool\[3\].*bool\[\]"),
    "no state": ({"state": ()}, "`state` must be the CombineTasksState"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_UPDATES)
def test_bad_arguments_of_update(case):
    tx = combine_tasks("equal", num_tasks=3)
    changes, complaint = BAD_UPDATES[case]
    params = {"a": jnp.ones(4), "b": None}
    given = {"gradients": GRADIENTS, "state": tx.init(params), "params": params}
    given |= {"losses": jnp.ones(3)} | changes
    first = [given.pop(name) for name in ("gradients", "state", "params")]
    with pytest.raises(ValueError, match=complaint) as raised:
        jax.eval_shape(lambda: tx.update(*first, **given))
    assert "\n" not in str(raised.value)


def test_lists_of_scalars_will_do():
    tx = combine_tasks("equal", num_tasks=3)
    state = tx.init({"a": jnp.ones(4), "b": None})
    losses = [1.0, np.float32(2.0), jnp.array(3.0, jnp.bfloat16)]
    found, _ = tx.update(GRADIENTS, state, losses=losses, labelled=[True, False, True])
    np.testing.assert_array_equal(found["a"], 2.0)
