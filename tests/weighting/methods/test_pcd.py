"""PCD against its program solved by non-negative least squares in float64, and special cases."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize

from mtl_jax.weighting import METHODS, Signals, make

pcd = METHODS["pcd"]
BETA = 0.9


def signals(rows: np.ndarray, **changes) -> Signals:
    plain = Signals(jnp.ones(len(rows)), jnp.float32(rows @ rows.T), jnp.array(0))
    return plain._replace(**changes)


def first(rows, tau=0.02, **options) -> tuple[np.ndarray, dict]:
    """The combined gradient of the first step, and its diagnostics."""
    rows, weighting = np.array(rows, np.float64), pcd(tau, **options)
    weights, _, diagnostics = weighting.update(signals(rows), weighting.init(len(rows)))
    np.testing.assert_array_equal(weights.heads, 1.0)
    return np.asarray(weights.shared, np.float64) @ rows, diagnostics


def solve(rows: np.ndarray, tau: np.ndarray) -> np.ndarray:
    """The nearest point to the first row with h_j . d >= tau_j |h_j|^2 for the other rows."""
    goal, helpers = rows[0], rows[1:]
    if not len(helpers):
        return goal
    missing = tau * np.sum(helpers**2, axis=1) - helpers @ goal
    # With A c = b, m'AA'm / 2 - b'm is |A'm - c|^2 / 2 but for a constant.
    offset = np.linalg.lstsq(helpers, missing, rcond=None)[0]
    multipliers, _ = scipy.optimize.nnls(helpers.T, offset)
    return goal + multipliers @ helpers


def expected(rows: np.ndarray, tau, squares: np.ndarray) -> np.ndarray:
    """The gradient of a step, the first task being primary, from the averages of |g|^2."""
    direction = solve(rows / np.sqrt(squares + 1e-8)[:, None], np.broadcast_to(tau, len(rows) - 1))
    return np.linalg.norm(rows[0]) * direction / np.linalg.norm(direction)


def history(num_tasks: int, steps: int = 3, seed: int = 0) -> np.ndarray:
    """Gradients f64[steps, K, n] of unlike lengths, the helpers' in conflict with the first."""
    rng = np.random.default_rng(seed + num_tasks)
    rows = rng.standard_normal((steps, num_tasks, num_tasks + 10))
    rows[:, 1:] -= rng.uniform(0, 1, (steps, num_tasks - 1, 1)) * rows[:, :1]
    return rows * 10 ** rng.uniform(-1.5, 1.5, (num_tasks, 1)) * rng.uniform(0.5, 2, (steps, 1, 1))


def averages(rows: np.ndarray) -> np.ndarray:
    """The corrected moving averages of |g|^2 after each step, f64[steps, K]."""
    total, found = 0.0, []
    for step, squares in enumerate(np.sum(rows**2, axis=2)):
        total = BETA * total + (1 - BETA) * squares
        found.append(total / (1 - BETA ** (step + 1)))
    return np.array(found)


def check(num_tasks: int, tau) -> None:
    weighting, steps = pcd(tau, beta=BETA), history(num_tasks)
    state, update = weighting.init(num_tasks), jax.jit(weighting.update)
    for rows, squares in zip(steps, averages(steps), strict=True):
        weights, state, diagnostics = update(signals(rows), state)
        assert diagnostics["fallback"] == diagnostics["infeasible"] == 0
        found = np.asarray(weights.shared, np.float64) @ rows
        wanted = expected(rows, tau, squares)
        np.testing.assert_allclose(found, wanted, atol=1e-3 * np.linalg.norm(wanted))
        binding = np.asarray(weights.shared)[1:] > 0
        np.testing.assert_array_equal(diagnostics["binds"], [0, *binding])


@pytest.mark.parametrize("tau", [0.0, 0.3, (0.1, 0.6)])
def test_it_solves_its_program_with_gradients_of_average_length_one(tau):
    check(3, tau)


@pytest.mark.slow
@pytest.mark.parametrize("num_tasks", [1, 2, 5, 8, 12, 40])
def test_it_solves_its_program_for_any_number_of_tasks(num_tasks):
    check(num_tasks, 0.2)
    check(num_tasks, 0.0)


def test_helpers_without_conflict_leave_the_primary_gradient_as_it_is():
    found, diagnostics = first([[1, 0, 0], [1, 1, 0], [1, 0, 1]], tau=0.5)
    np.testing.assert_allclose(found, [1, 0, 0], atol=1e-6)
    np.testing.assert_array_equal(diagnostics["binds"], 0)


def test_a_primary_gradient_of_zero_moves_nothing():
    found, diagnostics = first([[0, 0], [-3, 0], [1, 1]])
    np.testing.assert_array_equal(found, 0)
    assert diagnostics["fallback"] == 0


def test_two_opposed_helpers_have_no_constraints():
    for tau in (1e-3, 0.02, 1.0):
        found, diagnostics = first([[1, 1], [0, 1], [0, -2]], tau)
        np.testing.assert_allclose(found, [1, 1], rtol=1e-6)
        assert diagnostics["infeasible"] == 1 and not np.any(diagnostics["binds"])
    # With tau = 0 they need no more than a direction at right angles to both.
    found, diagnostics = first([[1, 1], [0, 1], [0, -2]], 0.0)
    np.testing.assert_allclose(found, [np.sqrt(2), 0], atol=1e-3)
    assert diagnostics["infeasible"] == 0


def test_opposed_tasks_go_the_helpers_way_or_stand_still():
    found, _ = first([[1, 0], [-3, 0]], tau=0.02)
    np.testing.assert_allclose(found, [-1, 0], atol=1e-4)
    found, diagnostics = first([[1, 0], [-3, 0]], tau=0.0)
    np.testing.assert_array_equal(found, 0)
    assert diagnostics["fallback"] == 0


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_leaves_the_averages_alone(bad):
    weighting = pcd()
    good = signals(history(3)[0])
    weights, state, _ = weighting.update(good, weighting.init(3))
    broken = good._replace(gram=good.gram.at[1, :].set(bad).at[:, 1].set(bad))
    last, after, diagnostics = weighting.update(broken, state)
    assert diagnostics["fallback"] == 1
    np.testing.assert_array_equal(last.shared, weights.shared)
    jax.tree.map(np.testing.assert_array_equal, after.method, state.method)


def test_the_primary_task_is_chosen_by_its_place():
    rows = history(4)[0]
    tau = (0.1, 0.3, 0.5)
    wanted, _ = first(rows, tau)
    order = [1, 2, 0, 3]
    found, _ = first(rows[order], (0.1, 0.3, 0.5), primary=2)
    np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-4)


def test_helpers_without_labels_have_no_constraint_and_keep_their_average():
    rows = history(3)
    weighting, pair = pcd(0.5), pcd(0.5)
    state, alone = weighting.init(3), pair.init(2)
    absent = jnp.array([True, False, True])
    for step in rows[:2]:
        given = signals(step, labelled=absent)
        given = given._replace(gram=given.gram.at[1].set(jnp.nan))
        weights, state, _ = weighting.update(given, state)
        expected, alone, _ = pair.update(signals(step[[0, 2]]), alone)
        np.testing.assert_allclose(np.delete(weights.shared, 1), expected.shared, rtol=1e-5)
        assert weights.shared[1] == weights.heads[1] == 0
    np.testing.assert_array_equal(state.method.count, [2, 0, 2])


def test_without_labels_the_first_other_task_takes_the_primary_tasks_place():
    rows = history(3)[0]
    weighting, pair = pcd(0.5, primary=1), pcd(0.5)
    given = signals(rows, labelled=jnp.array([True, False, True]))
    weights, state, diagnostics = weighting.update(given, weighting.init(3))
    expected, _, _ = pair.update(signals(rows[[0, 2]]), pair.init(2))
    np.testing.assert_allclose(np.delete(weights.shared, 1), expected.shared, rtol=1e-5)
    assert diagnostics["fallback"] == 0
    # With its labels the task leads again.
    weights, _, _ = weighting.update(signals(rows), state)
    length = np.linalg.norm(np.asarray(weights.shared) @ rows)
    assert length == pytest.approx(np.linalg.norm(rows[1]), rel=1e-4)


def test_tau_may_be_one_number_or_one_per_helper():
    rows = history(3)[0]
    equal, _ = first(rows, 0.3)
    for tau in ((0.3,), (0.3, 0.3)):
        np.testing.assert_array_equal(first(rows, tau)[0], equal)
    given = signals(rows)
    for text, tau in (("pcd:tau=0.3", 0.3), ("pcd:tau=0.1+0.6", (0.1, 0.6))):
        chosen = make(text)
        weights, _, _ = chosen.update(given, chosen.init(3))
        np.testing.assert_array_equal(
            np.asarray(weights.shared, np.float64) @ rows, first(rows, tau)[0]
        )


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"tau": 1.5}, "pcd's tau must be 0 to 1, got 1.5"),
        ({"tau": ()}, "tau must be 0 to 1"),
        ({"tau": (0.1, np.nan)}, "tau must be 0 to 1"),
        ({"primary": -1}, "primary must be at least 0"),
        ({"beta": 1.0}, "beta must be 0 to 1"),
        ({"eps": -1.0}, "eps must be finite"),
        ({"primary": 3}, "primary must be below 3"),
        ({"tau": (0.1, 0.2, 0.3)}, "tau must be one number, or 2, one per helper"),
    ],
)
def test_bad_options_are_refused(options, complaint):
    with pytest.raises(ValueError, match=complaint):
        pcd(**options).init(3)
