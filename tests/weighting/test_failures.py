"""What every method promises about tasks that are absent, impossible or not finite."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtl_jax.weighting import METHODS, gram
from tests.weighting.steps import (
    DRAWS,
    SHAPES,
    SIGNED,
    SIZE,
    Step,
    advance,
    assert_close,
    assert_finite,
    step,
)


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


def broken_steps(weighting) -> dict[str, Step]:
    """Steps with impossible or extreme gradients; only their matrix where they are not read."""
    if weighting.combine is None:
        return {
            case: step(3, gram=jnp.asarray(matrix), cross=jnp.asarray(matrix))
            for case, matrix in broken_grams().items()
        }
    good = step(3)
    rows = {
        "zero": jnp.zeros((3, SIZE)),
        "one task zero": good.gradients.at[1].set(0.0),
        "opposed": good.gradients.at[1].set(-good.gradients[0]),
        "all equal": jnp.ones((3, SIZE)),
        "nan": jnp.full((3, SIZE), jnp.nan),
        "one task nan": good.gradients.at[1, 2].set(jnp.nan),
        "inf": jnp.full((3, SIZE), jnp.inf),
        "one task inf": good.gradients.at[1, 2].set(jnp.inf),
        "huge": 1e18 * good.gradients,
        "tiny": 1e-18 * good.gradients,
    }
    return {case: step(3, gram=gram(g))._replace(gradients=g) for case, g in rows.items()}


# In these logarithms, inverses or ratios of the losses count.
NEEDS_POSITIVE = {
    "si", "gls", "stch", "dwa", "dwa_window", "uw", "imtl_l", "famo", "imtl", "gradnorm", "db_mtl",
    "moco", "uw_so", "igb", "go4align", "ldc_mtl",
}  # fmt: skip


def test_nothing_breaks_a_method(name, weighting):
    state = weighting.init(3, SHAPES)
    for case, given in broken_steps(weighting).items():
        weights, state, diagnostics = advance(weighting, given, state)
        for tree in (weights, diagnostics):
            assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(tree)), case
        assert name in SIGNED or all(np.all(part > 0) for part in weights), case
    losses = step(3).signals.losses
    for loss in (np.nan, np.inf, 0.0, -1.0):
        given = step(3, losses=losses.at[1].set(loss))
        weights, state, diagnostics = advance(weighting, given, state)
        assert_finite((weights, diagnostics))
    assert_finite(state)


@pytest.mark.parametrize(
    "num_tasks", [3, *(pytest.param(k, marks=pytest.mark.slow) for k in (8, 40))]
)
def test_a_task_without_labels_leaves_the_others_alone(name, weighting, num_tasks):
    if name in DRAWS:
        pytest.skip("it draws for each task")
    if name == "sdmgrad" and num_tasks == 40:
        pytest.skip("its long steps amplify rounding")
    present = np.delete(np.arange(num_tasks), 1)
    state = weighting.init(num_tasks, SHAPES)
    alone = weighting.init(num_tasks - 1, SHAPES)
    for seed in range(3):
        pair = step(num_tasks, seed).choose(present)
        # Nothing that is reported of a task without labels may matter.
        full = step(num_tasks, seed).set_row(1, jnp.nan)
        full = full.change(
            losses=full.signals.losses.at[1].set(jnp.nan),
            gram=full.signals.gram.at[:, 1].set(5.0),
            cross=full.signals.cross.at[:, 1].set(5.0),
            labelled=jnp.arange(num_tasks) != 1,
        )
        weights, state, diagnostics = advance(weighting, full, state)
        expected, alone, _ = advance(weighting, pair, alone)
        assert_close(weights.shared[present], expected.shared, rtol=1e-5)
        assert_close(weights.heads[present], expected.heads, rtol=1e-5)
        assert weights.shared[1] == weights.heads[1] == diagnostics["participation"][1] == 0
        assert diagnostics["fallback"] == 0
        assert_finite((weights, diagnostics, state))


# What each method that divides a whole among the tasks gives to each of them.
SHARES = {
    "go4align": lambda state: np.exp(state),
    "modo": lambda state: state.method,
    "sdmgrad": lambda state: state.method,
    "moco": lambda state: state.method.weights,
    "excess_mtl": lambda state: state.method.weights,
}


@pytest.mark.parametrize("name", SHARES)
def test_a_task_without_labels_keeps_its_share_of_the_whole(name):
    weighting, absent = METHODS[name](), jnp.array([True, False, True])

    def share(state):
        shares = np.asarray(SHARES[name](state), np.float64)
        return shares[1] / shares.sum()

    _, state, _ = advance(weighting, step(3), weighting.init(3, SHAPES))
    before = share(state)
    for seed in range(1, 4):
        _, state, _ = advance(weighting, step(3, seed, labelled=absent), state)
    assert share(state) == pytest.approx(before, rel=1e-4)
    _, state, _ = advance(weighting, step(3, 4), state)
    assert share(state) != pytest.approx(before, rel=1e-6)


@pytest.mark.parametrize("name", ["modo", "sdmgrad"])
def test_the_other_tasks_keep_their_balance_where_one_is_absent(name):
    weighting = METHODS[name](**({"rho": 0.0} if name == "modo" else {"pull": 0.0}))
    state = weighting.init(3)._replace(method=jnp.array([0.15, 0.8, 0.05]))
    # Gradients without inner products leave the weights as they are.
    given = step(3, cross=jnp.zeros((3, 3)), labelled=jnp.array([True, False, True]))
    weights, after, _ = advance(weighting, given, state)
    np.testing.assert_allclose(weights.shared, [0.75, 0.0, 0.25], rtol=1e-5)
    np.testing.assert_allclose(after.method / after.method.sum(), state.method, rtol=1e-5)


def test_the_labels_come_back_with_the_last_weight_between_updates(weighting):
    if weighting.needs == "losses":
        pytest.skip("it updates in every step")
    absent = jnp.array([True, False, True])
    updated, state, _ = advance(weighting, step(3), weighting.init(3, SHAPES))
    _, state, _ = advance(weighting, step(3, seed=1, labelled=absent), state)
    held, _, _ = advance(weighting, step(3, seed=2, gram=None), state)
    # The last combination, made without the task, left its head a weight of 1.
    assert held.heads[1] == (updated.heads[1] if weighting.combine is None else 1) != 0
    held, _, _ = advance(weighting, step(3, seed=2, gram=None, labelled=absent), state)
    assert held.shared[1] == held.heads[1] == 0


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("what", ["loss", "gradient"])
def test_a_present_task_that_is_not_finite_is_a_fallback(name, weighting, bad, what):
    if what == "gradient" and weighting.needs == "losses":
        pytest.skip("it does not see the gradients")
    last, state, _ = advance(weighting, step(3), weighting.init(3, SHAPES))
    given = step(3, seed=1)
    if what == "loss":
        given = given.change(losses=given.signals.losses.at[1].set(bad))
    else:
        given = given.set_row(1, bad)
    weights, after, diagnostics = advance(weighting, given, state)
    assert diagnostics["fallback"] == 1
    assert_finite((weights, after, diagnostics))
    if weighting.needs == "losses":
        assert weights.shared[1] == 0 and diagnostics["participation"][1] == 0
    else:
        # In some methods the limit on the norm is that of this step's gradients.
        np.testing.assert_array_equal(weights.heads, last.heads)
        if name == "cr_mogm":
            after, state = after.inner, state.inner
        jax.tree.map(np.testing.assert_array_equal, after.method, state.method)


def test_a_negative_loss_takes_no_part_where_its_logarithm_or_inverse_would_count(name, weighting):
    given = step(3)
    negative = given.change(losses=given.signals.losses.at[1].set(-0.3))
    weights, state, diagnostics = advance(weighting, negative, weighting.init(3, SHAPES))
    assert_finite((weights, state, diagnostics))
    assert diagnostics["fallback"] == 0
    if name in NEEDS_POSITIVE:
        absent = given.change(labelled=jnp.array([True, False, True]))
        expected = advance(weighting, absent, weighting.init(3, SHAPES))
        np.testing.assert_array_equal(diagnostics.pop("negative_loss"), [0, 1, 0])
        np.testing.assert_array_equal(expected[2].pop("negative_loss"), 0)
        jax.tree.map(np.testing.assert_array_equal, (weights, state, diagnostics), expected)
        assert weights.shared[1] == 0
    else:
        assert "negative_loss" not in diagnostics
        np.testing.assert_array_equal(diagnostics["participation"], 1)
        assert name in SIGNED or 1e-3 < weights.shared[1] < 1e3


def test_no_loss_makes_a_weight_of_more_than_a_million(name, weighting):
    state = weighting.init(3, SHAPES)
    for seed, losses in enumerate(
        ([0.0, 1.0, 2.0], [1e-20, 1e-30, 3.0], [5.0, -2.0, 1e-7], [-1e-9, -3.0, 1e-12], [0.0] * 3)
    ):
        for _ in range(2):
            given = step(3, seed, losses=jnp.array(losses))
            weights, state, diagnostics = advance(weighting, given, state)
            assert_finite((weights, state, diagnostics))
            assert all(np.all(np.abs(part) < 3.1e6) for part in weights)


@pytest.mark.parametrize("normalization", ["loss", "loss+"])
def test_mgda_by_losses_leaves_out_a_negative_one_and_survives_zero(normalization):
    weighting = METHODS["mgda"](normalization)
    given = step(3)
    for loss, takes_part in ((-0.3, 0), (0.0, 1)):
        bad = given.change(losses=given.signals.losses.at[1].set(loss))
        weights, _, diagnostics = advance(weighting, bad, weighting.init(3, SHAPES))
        assert diagnostics["participation"][1] == takes_part and diagnostics["fallback"] == 0
        assert weights.shared.sum() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("bad", [-0.1, np.nan, np.inf])
@pytest.mark.parametrize("when", ["before", "after"])
def test_famo_does_not_learn_from_a_loss_without_a_logarithm(bad, when):
    weighting = METHODS["famo"]()
    state, given, losses = weighting.init(3), step(3).signals, jnp.array([0.1, 0.1, 0.2])
    if when == "before":
        given = given._replace(losses=given.losses.at[1].set(bad))
    else:
        losses = losses.at[1].set(bad)
    after = weighting.follow_up(losses, given, state)
    assert after.value[1] == 0 and after.value[0] != 0
    np.testing.assert_array_equal(after.optimizer[1][0].count, [1, 0, 1])
    assert_finite(after)
