"""What every method promises, whatever it computes."""

import functools
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtl_jax.weighting import METHODS, Signals

SIZES = (1, 2, 3, 10)

# They draw a number, or an order, for each task's place.
DRAWS = {"rlw", "pcgrad", "gradvac"}
# Their weights may be zero or negative.
SIGNED = {"pbi", "mgda", "pcgrad", "gradvac", "imtl_g", "imtl", "aligned_mtl", "config", "modo"}

# Power of the unit in the weights, where it isn't 0: w_i (G w)_i = 1, (G w)_i = w_i ** (-1 / 2),
# the derivative of log L.
POWERS = {"gram": {"nash": -1.0, "fairgrad": -4.0 / 3.0}, "losses": {"si": -1.0, "stch": -1.0}}


def signals(num_tasks: int, seed: int = 0, **changes) -> Signals:
    rng = np.random.default_rng(seed)
    gradients = rng.standard_normal((num_tasks, 30)).astype(np.float32)
    other = rng.standard_normal((2, num_tasks, 30)).astype(np.float32)
    plain = Signals(
        losses=jnp.asarray(rng.uniform(0.1, 3.0, num_tasks).astype(np.float32)),
        gram=jnp.asarray(gradients @ gradients.T),
        step=jnp.array(0, jnp.int32),
        key=jax.random.key(seed),
        cross=jnp.asarray((gradients + other[0]) @ (gradients + other[1]).T),
    )
    return plain._replace(**changes)


def broken_grams() -> dict[str, np.ndarray]:
    good = np.array([[4.0, 1.0, -0.5], [1.0, 2.0, 0.3], [-0.5, 0.3, 0.1]], np.float32)
    one_zero = good * np.array([1, 0, 1], np.float32)[:, None] * np.array([1, 0, 1], np.float32)
    one_nan, one_inf = good.copy(), good.copy()
    one_nan[1, :] = one_nan[:, 1] = np.nan
    one_inf[1, 1] = np.inf
    opposed = np.array([[1, -1, 0], [-1, 1, 0], [0, 0, 1]], np.float32)
    return {
        "zero": np.zeros((3, 3), np.float32),
        "one task zero": one_zero,
        "opposed": opposed,
        "all equal": np.full((3, 3), 100, np.float32),
        "nan": np.full((3, 3), np.nan, np.float32),
        "one task nan": one_nan,
        "inf": np.full((3, 3), np.inf, np.float32),
        "one task inf": one_inf,
        "not a Gram matrix": -np.eye(3, dtype=np.float32),
        "huge": good * np.float32(1e37),
        "tiny": good * np.float32(1e-37),
    }


def assert_same_kind(after, before):
    assert jax.tree.structure(after) == jax.tree.structure(before)
    for new, old in zip(jax.tree.leaves(after), jax.tree.leaves(before), strict=True):
        assert isinstance(new, jax.Array)
        assert (new.shape, new.dtype, new.weak_type) == (old.shape, old.dtype, old.weak_type)


def assert_finite(tree):
    for leaf in jax.tree.leaves(tree):
        assert np.all(np.isfinite(leaf)), leaf


# Those that combine gradients themselves have tests of their own.
@pytest.fixture(params=[name for name in METHODS if METHODS[name]().combine is None])
def name(request):
    return request.param


@functools.cache
def compiled(name):
    weighting = METHODS[name]()
    return weighting._replace(update=jax.jit(weighting.update))


@pytest.fixture
def weighting(name):
    return compiled(name)


@pytest.mark.parametrize("num_tasks", SIZES)
def test_shapes_and_dtypes(weighting, num_tasks):
    weights, _, diagnostics = weighting.update(signals(num_tasks), weighting.init(num_tasks))
    for part in weights:
        assert part.shape == (num_tasks,) and part.dtype == jnp.float32
    for value in diagnostics.values():
        assert value.dtype == jnp.float32
    assert_finite((weights, diagnostics))


@pytest.mark.parametrize("num_tasks", SIZES)
def test_state_keeps_its_kind(weighting, num_tasks):
    before = weighting.init(num_tasks)
    _, after, first = weighting.update(signals(num_tasks), before)
    assert_same_kind(after, before)
    between = signals(num_tasks, gram=None)
    _, after, second = weighting.update(between, after)
    assert_same_kind(after, before)
    assert_same_kind(second, first)


def test_jit_computes_the_same(name, weighting):
    state = weighting.init(3)
    plain = METHODS[name]().update(signals(3), state)
    fast = weighting.update(signals(3), state)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), plain, fast)


def test_vmap_computes_the_same(weighting):
    state = weighting.init(3)
    several = [signals(3, seed) for seed in range(4)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *several)
    together = jax.vmap(weighting.update, (0, None))(stacked, state)[0]
    for index, alone in enumerate(several):
        expected = weighting.update(alone, state)[0]
        np.testing.assert_allclose(together.shared[index], expected.shared, rtol=1e-5)
        np.testing.assert_allclose(together.heads[index], expected.heads, rtol=1e-5)


def test_order_of_the_tasks_does_not_matter(name, weighting):
    if name in DRAWS:
        pytest.skip("it draws for each task")
    order = np.array([2, 0, 3, 1])
    state = permuted = weighting.init(4)
    for seed in range(3):
        one = signals(4, seed)
        other = one._replace(
            losses=one.losses[order],
            gram=one.gram[order][:, order],
            cross=one.cross[order][:, order],
        )
        weights, state, _ = weighting.update(one, state)
        swapped, permuted, _ = weighting.update(other, permuted)
        np.testing.assert_allclose(swapped.shared, weights.shared[order], rtol=1e-4)
        np.testing.assert_allclose(swapped.heads, weights.heads[order], rtol=1e-4)


@pytest.mark.parametrize("what", ["gram", "losses"])
def test_weights_follow_the_unit_of_gradients_and_losses_as_documented(name, what):
    if name == "modo":
        pytest.skip("the step of its weights has a unit")
    weighting = METHODS[name](**({"max_norm": np.inf} if name == "fairgrad" else {}))
    before = signals(3)
    after = {key: 4 * getattr(before, key) for key in ("gram", "cross")}  # gradients twice as long
    if what == "losses":
        after = {"losses": 2 * before.losses}
    weights, scaled = (
        weighting.update(given, weighting.init(3))[0].shared
        for given in (before, before._replace(**after))
    )
    factor = 2.0 ** POWERS[what].get(name, 0.0)
    np.testing.assert_allclose(scaled, factor * weights, rtol=2e-4)


def test_nothing_breaks_a_method(name, weighting):
    state = weighting.init(3)
    for case, gram in broken_grams().items():
        given = signals(3, gram=jnp.asarray(gram), cross=jnp.asarray(gram))
        weights, state, diagnostics = weighting.update(given, state)
        for tree in (weights, diagnostics):
            assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(tree)), case
        assert name in SIGNED or all(np.all(part > 0) for part in weights), case
    for loss in (np.nan, np.inf, 0.0, -1.0):
        bad = signals(3)
        outcome = weighting.update(bad._replace(losses=bad.losses.at[1].set(loss)), state)
        assert_finite((outcome[0], outcome[2]))
        state = outcome[1]
    assert_finite(state)


def test_a_task_without_labels_leaves_the_others_alone(name, weighting):
    if name in DRAWS:
        pytest.skip("it draws for each task")
    present = np.array([0, 2])
    state, alone = weighting.init(3), weighting.init(2)
    for seed in range(3):
        full = signals(3, seed)
        # Whatever is reported of a task without labels, it must not matter.
        full = full._replace(
            losses=full.losses.at[1].set(jnp.nan),
            gram=full.gram.at[1, :].set(jnp.nan).at[:, 1].set(5.0),
            cross=full.cross.at[1, :].set(jnp.nan).at[:, 1].set(5.0),
            labelled=jnp.array([True, False, True]),
        )
        pair = full._replace(
            losses=full.losses[present],
            gram=full.gram[present][:, present],
            cross=full.cross[present][:, present],
            labelled=None,
        )
        weights, state, diagnostics = weighting.update(full, state)
        expected, alone, _ = weighting.update(pair, alone)
        np.testing.assert_allclose(weights.shared[present], expected.shared, rtol=1e-5)
        np.testing.assert_allclose(weights.heads[present], expected.heads, rtol=1e-5)
        assert weights.shared[1] == weights.heads[1] == diagnostics["participation"][1] == 0
        assert diagnostics["fallback"] == 0
        assert_finite((weights, diagnostics, state))


def test_the_labels_come_back_with_the_last_weight_between_updates(weighting):
    if not weighting.needs_gram:
        pytest.skip("it updates in every step")
    absent = jnp.array([True, False, True])
    updated, state, _ = weighting.update(signals(3), weighting.init(3))
    _, state, _ = weighting.update(signals(3, seed=1, labelled=absent), state)
    held, _, _ = weighting.update(signals(3, seed=2, gram=None), state)
    assert held.heads[1] == updated.heads[1] != 0
    held, _, _ = weighting.update(signals(3, seed=2, gram=None, labelled=absent), state)
    assert held.shared[1] == held.heads[1] == 0


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("what", ["loss", "gradient"])
def test_a_present_task_that_is_not_finite_is_a_fallback(name, weighting, bad, what):
    if what == "gradient" and not weighting.needs_gram:
        pytest.skip("it does not see the gradients")
    before = signals(3)
    last, state, _ = weighting.update(before, weighting.init(3))
    given = signals(3, seed=1)
    if what == "loss":
        given = given._replace(losses=given.losses.at[1].set(bad))
    else:
        given = given._replace(gram=given.gram.at[1, :].set(bad).at[:, 1].set(bad))
    weights, after, diagnostics = weighting.update(given, state)
    assert diagnostics["fallback"] == 1
    assert_finite((weights, after, diagnostics))
    if weighting.needs_gram:
        # In some methods the limit on the norm is that of this step's gradients.
        np.testing.assert_array_equal(weights.heads, last.heads)
        jax.tree.map(np.testing.assert_array_equal, after.method, state.method)
    else:
        assert weights.shared[1] == 0 and diagnostics["participation"][1] == 0


# In these logarithms, inverses or ratios of the losses count.
NEEDS_POSITIVE = {
    "si", "gls", "stch", "dwa", "dwa_window", "uw", "imtl_l", "famo", "imtl", "gradnorm",
}  # fmt: skip


def test_a_negative_loss_takes_no_part_where_its_logarithm_or_inverse_would_count(name, weighting):
    given = signals(3)
    negative = given._replace(losses=given.losses.at[1].set(-0.3))
    weights, state, diagnostics = weighting.update(negative, weighting.init(3))
    assert_finite((weights, state, diagnostics))
    assert diagnostics["fallback"] == 0
    if name in NEEDS_POSITIVE:
        absent = given._replace(labelled=jnp.array([True, False, True]))
        expected = weighting.update(absent, weighting.init(3))
        jax.tree.map(np.testing.assert_array_equal, (weights, state, diagnostics), expected)
        assert weights.shared[1] == 0
    else:
        np.testing.assert_array_equal(diagnostics["participation"], 1)
        assert name in SIGNED or 1e-3 < weights.shared[1] < 1e3


@pytest.mark.parametrize("normalization", ["loss", "loss+"])
def test_mgda_by_losses_leaves_out_a_negative_one_and_survives_zero(normalization):
    weighting = METHODS["mgda"](normalization)
    given = signals(3)
    for loss, takes_part in ((-0.3, 0), (0.0, 1)):
        bad = given._replace(losses=given.losses.at[1].set(loss))
        weights, _, diagnostics = weighting.update(bad, weighting.init(3))
        assert diagnostics["participation"][1] == takes_part and diagnostics["fallback"] == 0
        assert weights.shared.sum() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("bad", [-0.1, np.nan, np.inf])
@pytest.mark.parametrize("when", ["before", "after"])
def test_famo_does_not_learn_from_a_loss_without_a_logarithm(bad, when):
    weighting = METHODS["famo"]()
    state, given, losses = weighting.init(3), signals(3), jnp.array([0.1, 0.1, 0.2])
    if when == "before":
        given = given._replace(losses=given.losses.at[1].set(bad))
    else:
        losses = losses.at[1].set(bad)
    after = weighting.follow_up(losses, given, state)
    assert after.value[1] == 0 and after.value[0] != 0
    np.testing.assert_array_equal(after.optimizer[1][0].count, [1, 0, 1])
    assert_finite(after)


def test_all_labelled_is_the_default(weighting):
    state = weighting.init(3)
    implied = weighting.update(signals(3), state)
    spoken = weighting.update(signals(3, labelled=jnp.ones(3, bool)), state)
    jax.tree.map(np.testing.assert_array_equal, implied, spoken)


def test_between_updates_the_last_weights_hold(weighting):
    if not weighting.needs_gram:
        pytest.skip("it updates in every step")
    state = weighting.init(3)
    between = signals(3, seed=1, gram=None)
    weights, state, diagnostics = weighting.update(between, state)
    for part in weights:
        np.testing.assert_array_equal(part, np.ones(3))
    # Nothing has been solved, as where a caller forgets the Gram matrix.
    assert diagnostics.pop("fallback") == 1
    assert all(not np.any(value) for value in diagnostics.values())
    conflict = jnp.array([[4.0, -1.0, -0.5], [-1.0, 2.0, 0.3], [-0.5, 0.3, 0.1]])
    _, state, _ = weighting.update(signals(3, gram=conflict, cross=conflict), state)
    updated = weighting.update(signals(3, gram=conflict, cross=conflict), state)
    held = weighting.update(between, updated[1])
    assert not np.array_equal(held[0].shared, np.ones(3))
    jax.tree.map(np.testing.assert_array_equal, held, updated)


def test_methods_by_losses_do_not_want_the_gram_matrix(weighting):
    if weighting.needs_gram:
        pytest.skip("it needs the Gram matrix")
    state = weighting.init(3)
    with_gram = weighting.update(signals(3), state)
    without = weighting.update(signals(3, gram=None), state)
    jax.tree.map(np.testing.assert_array_equal, with_gram, without)


def test_half_precision_losses(weighting):
    given = signals(3)
    half = given._replace(losses=given.losses.astype(jnp.bfloat16))
    state = weighting.init(3)
    weights, after, _ = weighting.update(half, state)
    assert weights.shared.dtype == weights.heads.dtype == jnp.float32
    assert_same_kind(after, state)


def test_no_tasks(weighting):
    with pytest.raises(ValueError, match="at least one task"):
        weighting.init(0)


def test_stands_alone_and_imports_quietly():
    program = (
        "import sys, mtl_jax.weighting;"
        "print(*(m for m in sys.modules if m.startswith('mtl_jax.') and 'weighting' not in m))"
    )
    command = [sys.executable, "-W", "error:JAXopt:DeprecationWarning", "-c", program]
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout.strip() == ""
