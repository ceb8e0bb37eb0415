"""The weightings in your own loop, over any pytree of parameters."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint
import pytest

from mtl_jax.weighting import METHODS, Signals, balance, gram, task_gradients

PARAMS = {"layers": [jnp.array([1.0, -2.0]), (jnp.array([[0.5]]),)]}
ALONE = [name for name in METHODS if name not in ("famo", "modo", "sdmgrad")]


def losses_of(params):
    a, (b,) = params["layers"]
    return jnp.stack(
        [jnp.sum(a**2), jnp.sum(jnp.sin(a)) + b[0, 0] ** 2, jnp.sum(a) * b[0, 0] + 5.0]
    )


def test_task_gradients_are_those_of_each_loss():
    losses, gradients = jax.jit(lambda p: task_gradients(losses_of, p))(PARAMS)
    np.testing.assert_allclose(losses, losses_of(PARAMS), rtol=1e-6)
    for k in range(3):
        expected = jax.grad(lambda p, k=k: losses_of(p)[k])(PARAMS)
        found = jax.tree.map(lambda g, k=k: g[k], gradients)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), found, expected)


@pytest.mark.parametrize("name", ALONE)
def test_the_gradient_is_the_weighted_sum(name):
    balancer = balance(METHODS[name]())
    losses, gradients = task_gradients(losses_of, PARAMS)
    state = balancer.init(3, PARAMS)
    found, after = jax.jit(balancer.update)(losses, gradients, state)
    assert jax.tree.structure(found) == jax.tree.structure(PARAMS)
    assert after.step == 1
    assert jax.tree.structure(after) == jax.tree.structure(state)
    weighting = METHODS[name]()
    if weighting.combine is None:
        key = jax.random.fold_in(jax.random.key(0), 0)
        signals = Signals(losses, gram(gradients), jnp.array(0), key)
        weights = weighting.update(signals, weighting.init(3))[0].shared
        expected = jax.tree.map(lambda g: jnp.tensordot(weights, g, 1), gradients)
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), found, expected
        )


@pytest.mark.parametrize("text", ["fairgrad:alpha=1,max_norm=inf", "rlw"])
def test_a_text_is_the_weighting_that_it_names(text):
    name, options = {"rlw": ("rlw", {})}.get(text, ("fairgrad", {"alpha": 1.0, "max_norm": np.inf}))
    losses, gradients = task_gradients(losses_of, PARAMS)
    outcomes = [
        one.update(losses, gradients, one.init(3, PARAMS))[0]
        for one in (balance(text, seed=3), balance(METHODS[name](**options), seed=3))
    ]
    jax.tree.map(np.testing.assert_array_equal, *outcomes)


@pytest.mark.parametrize("name", ["famo", "modo", "sdmgrad"])
def test_what_needs_more_is_refused(name):
    with pytest.raises(ValueError, match="call its `update`"):
        balance(METHODS[name]())


@pytest.mark.parametrize("name", ["nash", "gradnorm", "graddrop", "excess_mtl", "uw"])
def test_the_state_may_be_donated(name):
    balancer = balance(METHODS[name]())
    losses, gradients = task_gradients(losses_of, PARAMS)
    update = jax.jit(balancer.update, donate_argnums=2)
    _, state = update(losses, gradients, balancer.init(3, PARAMS))
    assert update(losses, gradients, state)[1].step == 2


def stacked(rows):
    """Gradients f32[K, 3] as a pytree like PARAMS."""
    return {"layers": [rows[:, :2], (rows[:, 2:, None],)]}


def flat(gradient):
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(gradient)])


ROWS = np.float32([[[1.0, 0.2, -0.3], [0.0, 5.0, 1.0], [-0.4, 0.3, 0.8]],
                   [[0.7, -0.1, 0.4], [2.0, 1.0, 0.3], [0.2, -0.6, 0.5]]])  # fmt: skip
LOSSES = np.float32([[1.0, 3.0, 0.5], [0.8, 2.0, 0.6]])
PRESENT = np.array([True, False, True])
# They draw a number, or an order, for each task's place.
DRAWS = {"rlw", "pcgrad", "gradvac"}


@pytest.mark.parametrize("name", ALONE)
def test_an_absent_task_is_absent_whatever_it_holds(name):
    """Two steps with a task without labels are two steps of the problem without that task."""
    balancer = balance(METHODS[name]())
    update = jax.jit(balancer.update)

    def run(loss, entry):
        state, found = balancer.init(3, PARAMS), []
        for rows, losses in zip(ROWS.copy(), LOSSES.copy(), strict=True):
            rows[1], losses[1] = entry, loss
            gradient, state = update(losses, stacked(jnp.array(rows)), state, PRESENT)
            found.append(flat(gradient))
        assert state.weights[1] == state.diagnostics["participation"][1] == 0
        assert state.diagnostics["fallback"] == 0
        return found, state._replace(key=0)

    first, state = run(3.0, 1.0)
    for loss, entry in ((np.nan, np.nan), (np.inf, -np.inf), (0.0, 0.0), (-1.0, 1e30)):
        jax.tree.map(np.testing.assert_array_equal, run(loss, entry), (first, state))
    if name in DRAWS:
        return
    alone = balancer.init(2, PARAMS)
    for rows, losses, found in zip(ROWS, LOSSES, first, strict=True):
        pair = stacked(jnp.array(rows[PRESENT]))
        gradient, alone = update(losses[PRESENT], pair, alone)
        np.testing.assert_allclose(found, flat(gradient), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(state.weights[PRESENT], alone.weights, rtol=1e-4)


@pytest.mark.parametrize("name", ["equal", "uw", "nash", "mgda", "upgrad", "graddrop"])
def test_the_only_task_with_labels_is_followed_alone(name):
    balancer = balance(METHODS[name]())
    state = balancer.init(2, jnp.zeros(2))
    gradients = jnp.array([[1.0, 0.0], [0.0, 5.0]])
    found, state = balancer.update(jnp.ones(2), gradients, state, jnp.array([True, False]))
    np.testing.assert_allclose(found, [0.5 if name == "uw" else 1.0, 0.0], rtol=1e-6)
    np.testing.assert_allclose(state.weights, found, rtol=1e-6)


@pytest.mark.parametrize("name", ALONE)
def test_a_present_task_that_is_not_finite_shows_in_the_gradient_and_the_diagnostics(name):
    balancer = balance(METHODS[name]())
    update = jax.jit(balancer.update)
    _, before = update(LOSSES[0], stacked(jnp.array(ROWS[0])), balancer.init(3, PARAMS))
    assert before.diagnostics["fallback"] == 0
    for what in ("loss", "gradient"):
        for bad in (np.nan, np.inf):
            rows, losses = ROWS[1].copy(), LOSSES[1].copy()
            if what == "loss":
                losses[1] = bad
            else:
                rows[1, 0] = bad
            gradient, after = update(losses, stacked(jnp.array(rows)), before)
            assert not np.all(np.isfinite(flat(gradient)))
            assert after.diagnostics["fallback"] == 1
            kept = after._replace(key=0)
            assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(kept))
    gradient, _ = update(LOSSES[1], stacked(jnp.array(ROWS[1])), after)
    assert np.all(np.isfinite(flat(gradient)))


def test_optax_skips_a_step_that_is_not_finite():
    balancer = balance(METHODS["nash"]())
    optimizer = optax.apply_if_finite(optax.sgd(0.1), max_consecutive_errors=5)
    losses = jnp.array([1.0, jnp.nan, 0.5])
    gradients = stacked(jnp.array(ROWS[0]))
    gradient, _ = balancer.update(losses, gradients, balancer.init(3, PARAMS))
    updates, _ = optimizer.update(gradient, optimizer.init(PARAMS), PARAMS)
    np.testing.assert_array_equal(flat(updates), 0.0)


IN_GRADIENT_SPACE = {"graddrop", "db_mtl", "moco", "excess_mtl"}


@pytest.mark.parametrize("name", ["uw", "si", "nash", "mgda", "gradnorm", "graddrop", "db_mtl"])
def test_the_weights_are_constants_for_differentiation(name):
    balancer = balance(METHODS[name]())
    state = balancer.init(3, PARAMS)
    losses, gradients = jnp.array(LOSSES[0]), stacked(jnp.array(ROWS[0]))

    def total(losses, gradients):
        gradient, after = balancer.update(losses, gradients, state)
        return sum(jnp.sum(leaf) for leaf in jax.tree.leaves(gradient)), after.weights

    by_losses, by_gradients = jax.grad(total, (0, 1), has_aux=True)(losses, gradients)[0]
    np.testing.assert_array_equal(by_losses, 0.0)
    weights = jnp.zeros(3) if name in IN_GRADIENT_SPACE else total(losses, gradients)[1]
    for leaf in jax.tree.leaves(by_gradients):
        rest = [1] * (leaf.ndim - 1)
        np.testing.assert_array_equal(leaf, np.broadcast_to(weights.reshape(-1, *rest), leaf.shape))


@pytest.mark.parametrize("name", ["equal", "rlw", "nash", "moco"])
def test_it_scans_and_maps_over_seeds(name):
    balancer = balance(METHODS[name]())

    def run(scale):
        def step(state, given):
            gradient, state = balancer.update(given[0], stacked(scale * given[1]), state)
            return state, gradient

        return jax.lax.scan(step, balancer.init(3, PARAMS), (LOSSES, jnp.array(ROWS)))

    state, gradients = jax.vmap(run)(jnp.array([1.0, 2.0]))
    single, expected = run(jnp.array(2.0))
    assert state.weights.shape == (2, 3) and single.problem == state.problem
    np.testing.assert_allclose(state.weights[1], single.weights, rtol=1e-5)
    for found, wanted in zip(jax.tree.leaves(gradients), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(found[1], wanted, rtol=1e-5, atol=1e-6)


def test_a_checkpoint_brings_the_state_back(tmp_path):
    balancer = balance(METHODS["uw"]())
    gradients = stacked(jnp.array(ROWS[0]))
    _, state = balancer.update(LOSSES[0], gradients, balancer.init(3, PARAMS))
    with orbax.checkpoint.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "state", state)
        checkpointer.wait_until_finished()
        back = checkpointer.restore(tmp_path / "state", balancer.init(3, PARAMS))
    assert jax.tree.structure(back) == jax.tree.structure(state)
    expected, found = (balancer.update(LOSSES[1], gradients, x)[0] for x in (state, back))
    np.testing.assert_array_equal(flat(found), flat(expected))


@pytest.mark.parametrize(
    ("weighting", "complaint"),
    [
        ("nahs", "'nahs' is unknown: choose from equal, .*nash"),
        ("nash:norm=1", "nash has no option 'norm'"),
        (METHODS["nash"], r"call balance\(nash\(\)\)"),
        (None, "got None"),
    ],
)
def test_anything_but_a_weighting_is_refused(weighting, complaint):
    with pytest.raises(ValueError, match=complaint):
        balance(weighting)


@pytest.mark.parametrize(
    ("num_tasks", "params", "complaint"),
    [
        (0, PARAMS, "at least one task"),
        (2.0, PARAMS, "`num_tasks` must be a whole number.*float 2.0"),
        (PARAMS, 3, "`num_tasks` must be a whole number.*dict"),
        (3, {}, "`params` holds no arrays"),
        (3, {"a": jnp.arange(3)}, r"`params\['a'\]` must be a floating-point array.*int32\[3\]"),
        (3, {"a": jnp.ones(3, jnp.complex64)}, "floating-point array, got complex64"),
        (3, {"a": jax.nn.relu}, r"`params\['a'\]` must be a floating-point array"),
    ],
)
def test_bad_arguments_of_init(num_tasks, params, complaint):
    with pytest.raises(ValueError, match=complaint):
        balance(METHODS["equal"]()).init(num_tasks, params)


GRADIENTS = {"a": jnp.ones((3, 3)), "b": None}
BAD_UPDATES = {
    "two losses": ({"losses": jnp.ones(2)}, r"`losses` must be float\[3\].*num_tasks=3.*\[2\]"),
    "a scalar": ({"losses": jnp.ones(())}, r"`losses` must be float\[3\].*got float32\[\]"),
    "a column": ({"losses": jnp.ones((3, 1))}, r"`losses` must be.*got float32\[3, 1\]"),
    "whole losses": ({"losses": jnp.arange(3)}, r"`losses` must be.*got int32\[3\]"),
    "a pair": ({"losses": (jnp.ones(3), {})}, r"no auxiliary.*got tuple of float32\[3\], dict"),
    "not stacked": ({"gradients": {"a": jnp.ones(3), "b": None}},
                    r"`gradients\['a'\]` must be float\[3, 3\].*got float32\[3\]"),
    "two gradients": ({"gradients": {"a": jnp.ones((2, 3)), "b": None}},
                      r"`gradients\['a'\]` must be float\[3, 3\].*got float32\[2, 3\]"),
    "no gradients": ({"gradients": {}}, "`gradients` holds no arrays"),
    "one leaf more": ({"gradients": {"a": jnp.ones((3, 3)), "b": jnp.ones((3, 1))}},
                      r"like the `params`.*the leaves \['a'\]; got \['a'\], \['b'\]"),
    "other names": ({"gradients": {"c": jnp.ones((3, 3))}}, r"leaves \['a'\]; got \['c'\]"),
    "complex": ({"gradients": {"a": jnp.ones((3, 3), jnp.complex64), "b": None}}, "got complex64"),
    "whole": ({"gradients": {"a": jnp.ones((3, 3), jnp.int32), "b": None}}, "got int32"),
    "labels as numbers": ({"labelled": jnp.ones(3)}, r"`labelled` must be bool\[3\].*float32"),
    "one label": ({"labelled": jnp.array(True)}, r"`labelled` must be bool\[3\].*bool\[\]"),
    "no state": ({"state": ()}, "`state` must be the BalanceState"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_UPDATES)
def test_bad_arguments_of_update(case):
    balancer = balance(METHODS["equal"]())
    changes, complaint = BAD_UPDATES[case]
    state = balancer.init(3, {"a": jnp.ones(3), "b": None})
    given = {"losses": jnp.ones(3), "gradients": GRADIENTS, "state": state} | changes
    with pytest.raises(ValueError, match=complaint):
        jax.eval_shape(lambda: balancer.update(**given))


def test_lists_of_scalars_will_do():
    balancer = balance(METHODS["equal"]())
    state = balancer.init(3, {"a": jnp.ones(3), "b": None})
    losses = [1.0, np.float32(2.0), jnp.array(3.0, jnp.bfloat16)]
    found, _ = balancer.update(losses, GRADIENTS, state, [True, False, True])
    np.testing.assert_array_equal(found["a"], 2.0)
