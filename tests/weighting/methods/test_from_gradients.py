"""Methods in gradient space against float64 NumPy over several steps."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtl_jax.weighting import METHODS, Signals

NAMES = [name for name in METHODS if METHODS[name]().combine is not None]
SHAPES = {
    "a": jax.ShapeDtypeStruct((2, 3), jnp.float32),
    "b": jax.ShapeDtypeStruct((4,), jnp.float32),
}
LOSSES = np.array([0.3, 2.0, 1.1])


def rows(seed, num_tasks=3):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((num_tasks, 10)) * rng.uniform(0.5, 3.0, (num_tasks, 1))


def tree(flat):
    flat = jnp.float32(flat)
    return {"a": flat[:, :6].reshape(-1, 2, 3), "b": flat[:, 6:]}


def flat(gradient):
    return np.concatenate([np.ravel(gradient["a"]), np.ravel(gradient["b"])]).astype(np.float64)


def signals(g, seed=0, losses=LOSSES, **changes):
    plain = Signals(
        jnp.float32(losses), jnp.float32(g @ g.T), jnp.array(seed), jax.random.key(seed)
    )
    return plain._replace(**changes)


def steps(name, count=5, **options):
    """(gradients, what the method made of them, weights, losses) of some steps."""
    weighting = METHODS[name](**options)
    combine = jax.jit(weighting.combine)
    state = weighting.init(3, SHAPES)
    for seed in range(count):
        g, losses = rows(seed), LOSSES * 0.9**seed
        gradient, weights, state, facts = combine(tree(g), signals(g, seed, losses), state)
        assert facts["fallback"] == 0
        yield g, flat(gradient), weights, losses


def test_graddrop_keeps_one_sign_of_each_entry():
    kept_positive, chance = [], []
    for g, found, _, _ in steps("graddrop", count=60):
        positive, negative = np.maximum(g, 0).sum(0), np.minimum(g, 0).sum(0)
        took = np.isclose(found, positive, atol=1e-5)
        np.testing.assert_allclose(found, np.where(took, positive, negative), atol=1e-5)
        kept_positive.append(took)
        chance.append(0.5 * (1 + g.sum(0) / np.abs(g).sum(0)))
    chance, kept_positive = np.ravel(chance), np.ravel(kept_positive)
    for low, high in ((0.1, 0.4), (0.4, 0.6), (0.6, 0.9)):
        inside = (chance > low) & (chance < high)
        assert kept_positive[inside].mean() == pytest.approx(chance[inside].mean(), abs=0.12)
    assert np.all(kept_positive[chance == 1]) and not np.any(kept_positive[chance == 0])


@pytest.mark.parametrize("sigma", [0.0, 0.5])
def test_db_mtl(sigma):
    y = np.zeros((3, 10))
    for t, (g, found, weights, losses) in enumerate(
        steps("db_mtl", beta=0.7, sigma=sigma), start=1
    ):
        h = g / losses[:, None]
        y = h + 0.7 / t**sigma * (y - h)
        norms = np.linalg.norm(y, axis=1)
        np.testing.assert_allclose(found, (norms.max() / norms) @ y, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(weights.heads, 1 / losses, rtol=1e-5)


def test_moco():
    y, w = np.zeros((3, 10)), np.full(3, 1 / 3)
    options = {"beta": 0.5, "gamma": 0.1, "rho": 0.2}
    for t, (g, found, _, losses) in enumerate(steps("moco", **options), start=1):
        h = g * (losses / np.linalg.norm(g, axis=1))[:, None]
        y -= 0.5 / np.sqrt(t) * (y - h)
        w = w - 0.1 / np.sqrt(t) * (y @ y.T @ w + 0.2 * w)
        w = np.exp(w) / np.exp(w).sum()
        np.testing.assert_allclose(found, w @ y, rtol=1e-4, atol=1e-5)


def test_excess_mtl():
    squares, w, first = np.zeros((3, 10)), np.ones(3), None
    for g, found, weights, _ in steps("excess_mtl", eta=0.3):
        squares += g**2
        excess = (g**2 / np.sqrt(squares + 1e-7)).sum(1)
        first = excess if first is None else first
        w = w * np.exp(0.3 * excess / first)
        w *= 3 / w.sum()
        np.testing.assert_allclose(weights.shared, w, rtol=1e-4)
        np.testing.assert_allclose(found, w @ g, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_a_task_without_labels_leaves_the_others_alone(name):
    weighting = METHODS[name]()
    state, alone = weighting.init(3, SHAPES), weighting.init(2, SHAPES)
    present = np.array([0, 2])
    for seed in range(3):
        g = rows(seed)
        given = signals(g, seed, labelled=jnp.array([True, False, True]))
        given = given._replace(losses=given.losses.at[1].set(jnp.nan))
        g_broken = g.copy()
        g_broken[1] = np.nan
        found, weights, state, facts = weighting.combine(tree(g_broken), given, state)
        pair = signals(g[present], seed, LOSSES[present])
        expected, _, alone, _ = weighting.combine(tree(g[present]), pair, alone)
        np.testing.assert_allclose(flat(found), flat(expected), rtol=1e-4, atol=1e-5)
        for leaf in jax.tree.leaves((weights, state, facts)):
            assert np.all(np.isfinite(leaf))


@pytest.mark.parametrize("name", NAMES)
def test_what_is_not_finite_leaves_the_state_alone(name):
    weighting = METHODS[name]()
    g = rows(0)
    _, _, state, _ = weighting.combine(tree(g), signals(g), weighting.init(3, SHAPES))
    bad = g.copy()
    bad[1, 2] = np.nan
    _, weights, after, facts = weighting.combine(tree(bad), signals(bad), state)
    assert facts["fallback"] == 1
    jax.tree.map(np.testing.assert_array_equal, after.method, state.method)
    assert jax.tree.structure(after) == jax.tree.structure(state)
    for leaf in jax.tree.leaves((weights, after)):
        assert np.all(np.isfinite(leaf))


@pytest.mark.parametrize("name", NAMES)
def test_a_loss_that_is_not_finite_shows_in_the_gradient(name):
    weighting = METHODS[name]()
    given = signals(rows(0), losses=[1.0, np.inf, 2.0])
    start = weighting.init(3, SHAPES)
    found, weights, after, facts = weighting.combine(tree(rows(0)), given, start)
    assert facts["fallback"] == 1
    assert np.any(np.isnan(flat(found)))
    np.testing.assert_array_equal(weights.shared, 1.0)
    jax.tree.map(np.testing.assert_array_equal, after.method, start.method)


@pytest.mark.parametrize("name", NAMES)
def test_a_loss_of_minus_infinity_is_not_taken_for_a_negative_one(name):
    weighting = METHODS[name]()
    given = signals(rows(0), losses=[1.0, -np.inf, 2.0])
    found, _, _, facts = weighting.combine(tree(rows(0)), given, weighting.init(3, SHAPES))
    assert facts["fallback"] == 1
    assert np.any(np.isnan(flat(found)))


@pytest.mark.parametrize("name", NAMES)
def test_without_a_task_there_is_nothing_to_follow(name):
    weighting = METHODS[name]()
    _, _, state, _ = weighting.combine(tree(rows(0)), signals(rows(0)), weighting.init(3, SHAPES))
    nobody = signals(rows(1), labelled=jnp.zeros(3, bool))
    found, _, _, facts = weighting.combine(tree(rows(1)), nobody, state)
    assert facts["fallback"] == 1
    np.testing.assert_array_equal(flat(found), 0.0)


@pytest.mark.parametrize("name", ["db_mtl", "moco"])
def test_a_negative_loss_takes_no_part(name):
    weighting = METHODS[name]()
    start = weighting.init(3, SHAPES)
    negative = signals(rows(0), losses=[1.0, -0.3, 2.0])
    absent = signals(rows(0), losses=[1.0, 1.0, 2.0], labelled=jnp.array([True, False, True]))
    found = weighting.combine(tree(rows(0)), negative, start)
    expected = weighting.combine(tree(rows(0)), absent, start)
    jax.tree.map(np.testing.assert_array_equal, found, expected)
    assert found[1].shared[1] == found[1].heads[1] == 0


@pytest.mark.parametrize("name", NAMES)
def test_nothing_takes_part(name):
    weighting = METHODS[name]()
    zero = np.zeros((3, 10))
    found, weights, _, facts = weighting.combine(
        tree(zero), signals(zero), weighting.init(3, SHAPES)
    )
    assert facts["fallback"] == 1
    np.testing.assert_array_equal(flat(found), 0.0)
    np.testing.assert_array_equal(weights.heads, 1.0)


@pytest.mark.parametrize("name", NAMES)
def test_between_combinations_the_last_weights_hold(name):
    weighting = METHODS[name]()
    g = rows(1)
    _, weights, state, facts = weighting.combine(tree(g), signals(g), weighting.init(3, SHAPES))
    held = weighting.update(signals(g, gram=None), state)
    jax.tree.map(np.testing.assert_array_equal, held, (weights, state, facts))
    with pytest.raises(ValueError, match="needs the shapes"):
        weighting.init(3)


@pytest.mark.parametrize(
    ("name", "options"),
    [("db_mtl", {"beta": 1.0}), ("moco", {"gamma": 0.0}), ("excess_mtl", {"eta": 0.0})],
)
def test_bad_options_are_refused(name, options):
    with pytest.raises(ValueError, match=name):
        METHODS[name](**options)


def test_excess_mtl_goes_on_after_a_task_began_with_almost_no_gradient():
    weighting = METHODS["excess_mtl"]()
    g = rows(0)
    small = g * np.array([[1e-6], [1.0], [1.0]])
    _, _, state, _ = weighting.combine(tree(small), signals(small), weighting.init(3, SHAPES))
    for seed in range(5):
        g = rows(seed)
        found, weights, state, facts = weighting.combine(tree(g), signals(g), state)
        assert facts["fallback"] == 0
        assert np.all(np.isfinite(flat(found)))
        assert np.all(weights.shared > 0)


def test_half_precision_gradients_give_a_half_precision_gradient():
    g = rows(0)
    for name in NAMES:
        half = jax.tree.map(lambda x: x.astype(jnp.bfloat16), tree(g))
        weighting = METHODS[name]()
        found = weighting.combine(half, signals(g), weighting.init(3, SHAPES))[0]
        assert {x.dtype for x in jax.tree.leaves(found)} == {jnp.dtype("bfloat16")}
