"""Weightings by the Gram matrix against the same done to the gradients themselves, in float64."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtl_jax.weighting import METHODS, Signals, Weighting
from mtl_jax.weighting.methods.pcgrad import walk

LOSSES = np.array([0.3, 2.0, 1.1, 0.7])


def gradients(seed: int = 0, num_tasks: int = 4, size: int = 6) -> np.ndarray:
    """Conflicting gradients of unlike lengths, f64[K, n]."""
    rng = np.random.default_rng(seed)
    return rng.standard_normal((num_tasks, size)) * rng.uniform(0.5, 3.0, (num_tasks, 1))


def signals(rows, seed=0, **changes) -> Signals:
    gram = jnp.float32(rows @ rows.T)
    losses = jnp.float32(np.resize(LOSSES, len(rows)))
    plain = Signals(losses, gram, jnp.array(seed), jax.random.key(seed), cross=gram)
    return plain._replace(**changes)


@functools.cache
def compiled(name, **options) -> Weighting:
    weighting = METHODS[name](**options)
    return weighting._replace(update=jax.jit(weighting.update))


def first_weights(name, rows, **options) -> np.ndarray:
    weighting = compiled(name, **options)
    _, state, diagnostics = weighting.update(signals(rows), weighting.init(len(rows)))
    assert diagnostics["fallback"] == 0
    return np.asarray(state.solution, np.float64)


def orders(key, num_tasks) -> list[list[int]]:
    """In which order each task meets the others."""

    def note(i, carry, j):
        return carry[0].at[carry[1]].set(j), carry[1] + 1

    start = (jnp.zeros((num_tasks, num_tasks), jnp.int32), jnp.zeros(num_tasks, jnp.int32))
    met, count = walk(note, key, jnp.ones(num_tasks, bool), start)
    np.testing.assert_array_equal(count, num_tasks - 1)
    return [list(np.asarray(row[: num_tasks - 1])) for row in met]


def test_every_task_meets_every_other_once_in_an_order_of_its_own():
    found = orders(jax.random.key(3), 6)
    for i, row in enumerate(found):
        assert sorted(row) == [j for j in range(6) if j != i]
    assert len({tuple(np.argsort(row)) for row in found}) > 1


@pytest.mark.parametrize("seed", range(4))
def test_pcgrad_is_surgery_on_the_gradients(seed):
    rows = gradients(seed)
    expected = 0
    for i, order in enumerate(orders(jax.random.key(0), 4)):
        g = rows[i].copy()
        for j in order:
            g -= min(g @ rows[j], 0.0) / (rows[j] @ rows[j]) * rows[j]
        expected = expected + g
    np.testing.assert_allclose(first_weights("pcgrad", rows) @ rows, expected, atol=1e-4)


def test_gradvac_turns_gradients_to_their_usual_cosine():
    weighting = compiled("gradvac", beta=0.3)
    state, targets = weighting.init(4), np.zeros((4, 4))
    for seed in range(5):
        rows = gradients(seed)
        weights, state, _ = weighting.update(signals(rows, seed), state)
        expected = 0
        for i, order in enumerate(orders(jax.random.key(seed), 4)):
            g = rows[i].copy()
            for j in order:
                a, b = np.linalg.norm(g), np.linalg.norm(rows[j])
                cosine, target = g @ rows[j] / (a * b), targets[i, j]
                if cosine < target:
                    sines = np.sqrt(1 - cosine**2), np.sqrt(1 - target**2)
                    g += a * (target * sines[0] - cosine * sines[1]) / (b * sines[1]) * rows[j]
                    assert g @ rows[j] / (np.linalg.norm(g) * b) == pytest.approx(target)
                targets[i, j] = 0.7 * target + 0.3 * cosine
            expected = expected + g
        np.testing.assert_allclose(weights.shared @ rows, expected, atol=2e-4)


@pytest.mark.parametrize("seed", range(4))
def test_imtl_g_has_equal_projections_and_weights_of_sum_one(seed):
    rows = gradients(seed)
    weights = first_weights("imtl_g", rows)
    assert weights.sum() == pytest.approx(1, rel=1e-4)
    units = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    projections = units @ (weights @ rows)
    np.testing.assert_allclose(projections, projections[0], rtol=1e-3)


# Unit gradients that sum to zero.
BALANCED = {
    "two tasks, one parameter": np.array([[1.0], [-2.0]]),
    "two tasks": np.outer([1.0, -1.7], np.random.default_rng(0).standard_normal(7)),
    "three tasks": np.array([[0.0, 2.0], [np.sqrt(0.75), -0.5], [-0.5 * np.sqrt(0.75), -0.25]]),
}


@pytest.mark.parametrize("case", BALANCED)
def test_imtl_g_is_the_published_formula_where_the_unit_gradients_sum_to_zero(case):
    rows = BALANCED[case]
    units = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    apart, units_apart = rows[0] - rows[1:], units[0] - units[1:]
    rest = rows[0] @ units_apart.T @ np.linalg.inv(apart @ units_apart.T)
    expected = np.array([1 - rest.sum(), *rest])
    np.testing.assert_allclose(first_weights("imtl_g", rows), expected, rtol=1e-5)
    np.testing.assert_allclose(expected @ rows, 0.0, atol=1e-6)


@pytest.mark.parametrize("case", BALANCED)
def test_config_has_no_direction_where_the_unit_gradients_sum_to_zero(case):
    np.testing.assert_array_equal(first_weights("config", BALANCED[case]), 0.0)


def test_inverse_norm_brings_all_gradients_to_one_length():
    rows = gradients(5) * np.array([[1e-6], [1.0], [1e7], [30.0]])
    weights = first_weights("inverse_norm", rows)
    assert weights.sum() == pytest.approx(4, rel=1e-6)
    lengths = weights * np.linalg.norm(rows, axis=1)
    np.testing.assert_allclose(lengths, 4 / np.sum(1 / np.linalg.norm(rows, axis=1)), rtol=1e-5)


def test_imtl_is_both_of_its_parts():
    both = compiled("imtl", learning_rate=0.1)
    part_l = compiled("imtl_l", learning_rate=0.1)
    state, state_l = both.init(4), part_l.init(4)
    for seed in range(4):
        rows = gradients(seed)
        weights, state, _ = both.update(signals(rows), state)
        scales, state_l, _ = part_l.update(signals(rows), state_l)
        scale = np.asarray(scales.shared, np.float64)
        expected = scale * first_weights("imtl_g", rows * scale[:, None])
        np.testing.assert_allclose(weights.shared, expected, rtol=1e-3)


@pytest.mark.parametrize("scale", ["min", "median", "rmse"])
def test_aligned_mtl_gives_all_singular_values_the_same_size(scale):
    rows = gradients(1)
    left, values, right = np.linalg.svd(rows, full_matrices=False)
    # Of four, the published code takes the third largest for the median.
    size = {"min": values.min(), "median": np.sort(values)[1],
            "rmse": np.sqrt(np.mean(values**2))}[scale]  # fmt: skip
    expected = (size * left @ right).sum(0)
    found = first_weights("aligned_mtl", rows, scale=scale) @ rows
    np.testing.assert_allclose(found, expected, atol=1e-3)


def test_aligned_mtl_leaves_out_directions_without_length():
    rows = np.array([[2.0, 0.0], [0.0, 1.0], [2.0, 0.0]])
    found = first_weights("aligned_mtl", rows) @ rows
    # Of the twin gradients' singular values, sqrt(8), 1 and 0, the smallest is 1.
    np.testing.assert_allclose(found, [np.sqrt(2), 1.0], atol=1e-4)


@pytest.mark.parametrize(("length", "expected"), [(1e-3, [1e-3, 1e-3, 1.0]), (1e-4, [1, 1, 0])])
def test_aligned_mtl_leaves_out_a_gradient_that_is_far_shorter_than_the_others(length, expected):
    rows = np.diag([1.0, 1.0, length])
    np.testing.assert_allclose(first_weights("aligned_mtl", rows), expected, rtol=1e-4)


@pytest.mark.parametrize("preference", [None, (1.0, 2.0, 0.5, 1.0)])
def test_config_has_the_wanted_cosines(preference):
    rows = gradients(2)
    direction = first_weights("config", rows, preference=preference) @ rows
    units = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    cosines = units @ direction / np.array(preference or np.ones(4))
    np.testing.assert_allclose(cosines, cosines[0], rtol=1e-3)
    length = (rows @ direction).sum() / np.linalg.norm(direction)
    assert np.linalg.norm(direction) == pytest.approx(length, rel=1e-4)


@pytest.mark.parametrize(
    ("alpha", "num_tasks"),
    [(0.3, 10), (0.3, 1), (0.5, 3), (2.0, 2), (2.0, 10), (5.0, 1), (5.0, 3)],
)
def test_fairgrad_solves_its_equation(alpha, num_tasks):
    rng = np.random.default_rng(num_tasks)
    for scale in (1e-4, 1.0, 1e4):
        rows = scale * rng.standard_normal((num_tasks, num_tasks + 2))
        rows *= 10 ** rng.uniform(-1, 1, (num_tasks, 1))
        weights = first_weights("fairgrad", rows, alpha=alpha)
        assert np.all(weights > 0)
        found = weights ** (1 / alpha) * (rows @ rows.T @ weights)
        np.testing.assert_allclose(found, 1.0, atol=2e-3)


@pytest.mark.parametrize("alpha", [0.7, 2.0])
@pytest.mark.parametrize("ratio", [1e-6, 1.0, 1e6])
def test_fairgrad_solves_strong_conflict_but_not_exact_opposition(alpha, ratio):
    cosine = -0.99
    rows = np.array([[1.0, 0.0], ratio * np.array([cosine, np.sqrt(1 - cosine**2)])])
    weights = first_weights("fairgrad", rows, alpha=alpha)
    found = weights ** (1 / alpha) * (rows @ rows.T @ weights)
    np.testing.assert_allclose(found, 1.0, atol=1e-2)
    weighting = compiled("fairgrad", alpha=alpha)
    opposed = signals(np.array([[1.0], [-ratio]]))
    weights, _, diagnostics = weighting.update(opposed, weighting.init(2))
    assert diagnostics["fallback"] == 1
    np.testing.assert_array_equal(weights.heads, 1.0)


def test_fairgrad_of_one_is_nash():
    rows = gradients(3)
    np.testing.assert_array_equal(
        first_weights("fairgrad", rows, alpha=1.0), first_weights("nash", rows)
    )


def test_gradnorm_lessens_the_imbalance_of_the_norms():
    rows = gradients()
    norms = np.linalg.norm(rows, axis=1)
    weighting = compiled("gradnorm", alpha=1.5, learning_rate=0.01)
    first = signals(rows)
    weights, state, _ = weighting.update(first, weighting.init(4))
    np.testing.assert_allclose(weights.shared, 1.0)

    logits = np.asarray(state.method.logits.value, np.float64)
    losses = LOSSES * np.array([0.5, 0.9, 1.1, 0.7])
    rates = losses / LOSSES
    rates /= rates.mean()

    def weights_of(z):
        return 4 * np.exp(z) / np.exp(z).sum()

    wanted = (weights_of(logits) * norms).mean() * rates**1.5

    def imbalance(z):
        return np.abs(weights_of(z) * norms - wanted).sum()

    def moment(state):
        return np.asarray(state.method.logits.optimizer[0].mu, np.float64)

    weights, after, _ = weighting.update(first._replace(losses=jnp.float32(losses)), state)
    np.testing.assert_allclose(weights.shared, weights_of(logits), rtol=1e-5)
    gradient = (moment(after) - 0.9 * moment(state)) / 0.1  # what Adam was given
    each = 1e-6 * np.eye(4)
    slopes = [(imbalance(logits + e) - imbalance(logits - e)) / 2e-6 for e in each]
    np.testing.assert_allclose(gradient, slopes, rtol=1e-3, atol=1e-4)


def on_simplex(x):
    """The nearest point of the simplex, by bisection of what is taken off every entry."""
    low, high = x.min() - 1, x.max()
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if np.maximum(x - middle, 0).sum() > 1 else (low, middle)
    return np.maximum(x - low, 0)


def parts(seed):
    """Gradients of three parts of a batch, f64[3, K, n]."""
    rows = gradients(seed)
    return rows + 0.3 * np.random.default_rng(seed).standard_normal((3, *rows.shape))


def test_modo_takes_one_step_of_the_weights():
    weighting = compiled("modo", gamma=0.05, rho=0.1)
    state, expected = weighting.init(4), np.full(4, 0.25)
    for seed in range(5):
        one, two, three = parts(seed)
        cross = one @ two.T
        given = signals(three, seed, cross=jnp.float32(cross))
        weights, state, _ = weighting.update(given, state)
        expected = on_simplex(expected - 0.05 * (cross @ expected + 0.1 * expected))
        np.testing.assert_allclose(weights.shared, expected, atol=1e-4)


def test_sdmgrad_takes_some_steps_with_momentum():
    options = {"pull": 0.4, "learning_rate": 0.5, "momentum": 0.5, "iterations": 6}
    weighting = compiled("sdmgrad", **options)
    state, inner = weighting.init(4), np.full(4, 0.25)
    for seed in range(4):
        one, two, three = parts(seed)
        cross = one @ two.T / np.linalg.norm(three, axis=1).mean() ** 2
        given = signals(three, seed, cross=jnp.float32(one @ two.T))
        weights, state, _ = weighting.update(given, state)
        velocity = np.zeros(4)
        for _ in range(6):
            velocity = 0.5 * velocity + cross @ (inner + 0.4 * np.full(4, 0.25))
            inner = on_simplex(inner - 0.5 * velocity)
        expected = (inner + 0.4 * 0.25) / 1.4
        np.testing.assert_allclose(weights.shared, expected, atol=1e-3)


def test_an_entry_of_the_state_that_is_not_finite_is_a_fallback():
    weighting = compiled("gradnorm")
    _, state, _ = weighting.update(signals(gradients()), weighting.init(4))
    bad = signals(gradients())
    bad = bad._replace(gram=bad.gram.at[1, 1].set(jnp.inf))
    _, after, diagnostics = weighting.update(bad, state)
    assert diagnostics["fallback"] == 1
    jax.tree.map(np.testing.assert_array_equal, after.method, state.method)


@pytest.mark.parametrize(
    ("name", "options", "complaint"),
    [
        ("gradvac", {"beta": 1.5}, "beta must be 0 to 1"),
        ("imtl", {"learning_rate": 0.0}, "learning_rate must be positive"),
        ("aligned_mtl", {"scale": "max"}, "scale must be one of min, median, rmse"),
        ("config", {"preference": (0.0,)}, "config's preference must be"),
        ("fairgrad", {"alpha": 0.0}, "alpha must be positive"),
        ("gradnorm", {"alpha": -1.0}, "alpha must be finite"),
        ("gradnorm", {"learning_rate": 0.0}, "learning_rate must be positive"),
        ("modo", {"gamma": 0.0}, "modo's gamma must be positive"),
        ("sdmgrad", {"momentum": 1.0}, "sdmgrad's momentum must be 0 to 1"),
    ],
)
def test_bad_options_are_refused(name, options, complaint):
    with pytest.raises(ValueError, match=complaint):
        METHODS[name](**options)


PLAIN_HEADS = {
    "cagrad", "upgrad", "dualproj", "pcgrad", "gradvac", "imtl_g", "imtl", "aligned_mtl", "config",
    "modo", "sdmgrad",
}  # fmt: skip


WITH_HEADS = ["nash", "fairgrad", "mgda", "gradnorm", "inverse_norm"]


@pytest.mark.parametrize("name", [*WITH_HEADS, *sorted(PLAIN_HEADS)])
def test_heads_have_the_weights_only_where_a_method_is_a_weighted_sum_of_losses(name):
    # Two long, conflicting gradients and a short one against their sum.
    rows = np.array([[10.0, 1.0, 0.0], [-9.0, 3.0, 0.0], [-1.0, -1.0, 0.2]])
    weighting = compiled(name)
    weights, state, _ = weighting.update(signals(rows), weighting.init(3))
    weights, state, _ = weighting.update(signals(rows, 1), state)
    expected = np.ones(3) if name in PLAIN_HEADS else state.solution
    np.testing.assert_array_equal(weights.heads, expected)
    assert not np.allclose(weights.shared, 1.0, atol=1e-3)


@pytest.mark.parametrize("name", ["modo", "sdmgrad"])
@pytest.mark.parametrize("bad", [np.inf, np.nan])
def test_products_that_are_not_finite_leave_the_state_alone(name, bad):
    weighting = compiled(name)
    _, state, _ = weighting.update(signals(gradients(0)), weighting.init(4))
    broken = signals(gradients(1))
    broken = broken._replace(cross=broken.cross.at[0, 1].set(bad))
    _, after, diagnostics = weighting.update(broken, state)
    assert diagnostics["fallback"] == 1
    np.testing.assert_array_equal(after.method, state.method)


@pytest.mark.parametrize("name", ["pcgrad", "gradvac"])
def test_a_program_in_float64_is_no_obstacle(name):
    expected = compiled(name).update(signals(gradients(0)), compiled(name).init(4))[0]
    jax.config.update("jax_enable_x64", True)
    try:
        weighting = METHODS[name]()
        found = jax.jit(weighting.update)(signals(gradients(0)), weighting.init(4))[0]
    finally:
        jax.config.update("jax_enable_x64", False)
    np.testing.assert_allclose(found.shared, expected.shared, rtol=1e-5)
