import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtl_jax.weighting import Signals, nash

SIZES = (2, 3, 5, 8, 20, 40)


def reference(gram: np.ndarray) -> np.ndarray:
    """The positive root of G a = 1 / a by a damped Newton method in float64."""
    gram = gram.astype(np.float64)
    norms = np.sqrt(np.diag(gram))
    matrix = gram / np.outer(norms, norms)
    a = np.ones(len(gram))
    for _ in range(500):
        gradient = matrix @ a - 1 / a
        step = np.linalg.solve(matrix + np.diag(a**-2.0), -gradient)
        decrement = np.sqrt(-gradient @ step)
        a = a + step / (1 + decrement)
        if decrement < 1e-12:
            return a / norms
    raise AssertionError("the reference does not converge")


def true_residual(gram: np.ndarray, a: np.ndarray) -> float:
    gram, a = gram.astype(np.float64), np.asarray(a, np.float64)
    return np.max(np.abs(a * (gram @ a) - 1))


@functools.cache
def method(num_tasks: int, max_norm: float = 1.0):
    """The first state and the compiled (gram, state) -> outcome."""
    weighting = nash(max_norm=max_norm)
    losses, step = jnp.ones(num_tasks), jnp.array(0, jnp.int32)

    def update(gram, state):
        return weighting.update(Signals(losses, gram, step), state)

    return weighting.init(num_tasks), jax.jit(update)


def first_update(gram: np.ndarray, **options):
    state, update = method(len(gram), **options)
    return update(np.asarray(gram, np.float32), state)


def check_bargain(gram: np.ndarray):
    """One step on a Gram matrix f32[K, K], against the float64 reference."""
    weights, _, diagnostics = first_update(gram)
    a = np.asarray(weights.heads)
    assert a.dtype == np.float32 and np.all(a > 0)
    assert not diagnostics["fallback"]
    assert true_residual(gram, a) <= 1e-4
    np.testing.assert_allclose(a, reference(gram), rtol=5e-5)
    np.testing.assert_allclose(diagnostics["residual"], true_residual(gram, a), atol=1e-9)
    shared = np.asarray(weights.shared, np.float64)
    np.testing.assert_allclose(np.sqrt(shared @ gram @ shared), 1.0, rtol=1e-4)


def products(gradients: np.ndarray) -> np.ndarray:
    return (gradients @ np.swapaxes(gradients, -1, -2)).astype(np.float32)


def conflicting(rng, num_tasks: int, cosine: float) -> np.ndarray:
    """Gradients of various lengths, the first two at this cosine."""
    gradients = rng.standard_normal((num_tasks, num_tasks + 40))
    gradients /= np.linalg.norm(gradients, axis=1, keepdims=True)
    across = rng.standard_normal(num_tasks + 40)
    across -= across @ gradients[0] * gradients[0]
    across /= np.linalg.norm(across)
    gradients[1] = cosine * gradients[0] + math.sqrt(1 - cosine**2) * across
    return gradients * np.exp(rng.uniform(-1, 1, (num_tasks, 1)))


@pytest.mark.parametrize("num_tasks", SIZES)
def test_random_gradients(num_tasks):
    rng = np.random.default_rng(num_tasks)
    for extra in (1, 2, 5, 30, 1000):
        for _ in range(20):
            check_bargain(products(rng.standard_normal((num_tasks, num_tasks + extra))))


@pytest.mark.parametrize("num_tasks", SIZES)
def test_scales(num_tasks):
    rng = np.random.default_rng(num_tasks)
    for scale in np.logspace(-12, 12, 49):
        gradients = rng.standard_normal((num_tasks, num_tasks + 20))
        check_bargain(products(scale**0.5 * gradients))


@pytest.mark.parametrize("num_tasks", SIZES)
@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_norms_far_apart(num_tasks, scale):
    rng = np.random.default_rng(num_tasks)
    norms = scale * np.array([1, 1e4, 1e8])[np.arange(num_tasks) % 3]
    for _ in range(20):
        gradients = rng.standard_normal((num_tasks, num_tasks + 20))
        check_bargain(products(norms[:, None] * gradients))


@pytest.mark.parametrize("num_tasks, seeds", [(2, 400), (3, 400), (5, 400), (20, 50), (40, 30)])
def test_two_tasks_in_strong_conflict(num_tasks, seeds):
    rng = np.random.default_rng(num_tasks)
    for _ in range(seeds):
        check_bargain(products(conflicting(rng, num_tasks, -0.999)))


@pytest.mark.parametrize("num_tasks", [2, 3, 5])
def test_milder_conflicts(num_tasks):
    rng = np.random.default_rng(num_tasks)
    for cosine in np.linspace(-0.99, 0.999, 50):
        check_bargain(products(conflicting(rng, num_tasks, cosine)))


def test_duplicated_tasks_share():
    gradients = np.random.default_rng(0).standard_normal((5, 50))
    gradients[3] = gradients[1]
    gradients[4] = 2 * gradients[1]
    check_bargain(products(gradients))
    check_bargain(np.full((3, 3), 100, np.float32))


GOLDEN = [
    ([[18.0, -22.0], [-22.0, 38.0]], [0.591461, 0.407071]),
    ([[9.0, -2.0], [-2.0, 1.0]], [0.577350, 1.732051]),
    (3 * np.eye(3), [0.577350] * 3),
    (7 * np.eye(4), [0.377964] * 4),
    (
        [[4.0, 1.0, -0.5], [1.0, 2.0, 0.3], [-0.5, 0.3, 0.1]],
        [0.865179, 0.323663, 5.257096],
    ),
    (products(np.random.default_rng(0).standard_normal((3, 20))), [0.256169, 0.371499, 0.234208]),
    (
        products(np.random.default_rng(1).standard_normal((5, 20))),
        [0.398580, 0.235701, 0.287531, 0.213128, 0.209268],
    ),
]


@pytest.mark.parametrize("gram, expected", GOLDEN)
def test_golden_values(gram, expected):
    weights, _, _ = first_update(gram)
    np.testing.assert_allclose(weights.heads, expected, rtol=1e-4)


def test_golden_direction():
    gradients = np.float32([[-4, 1, 1], [6, 1, 1]])
    weights, _, _ = first_update(products(gradients))
    direction = np.asarray(weights.shared) @ gradients
    np.testing.assert_allclose(direction, [0.0542, 0.7061, 0.7061], atol=1e-4)


@pytest.mark.parametrize("norm", [1e-6, 0.3, 1.0, 5.0, 1e6])
def test_one_task_is_normalized(norm):
    weights, _, diagnostics = first_update(np.full((1, 1), norm**2))
    np.testing.assert_allclose(weights.heads, [1 / norm], rtol=1e-6)
    np.testing.assert_allclose(weights.shared, [1 / norm], rtol=1e-6)
    assert not diagnostics["fallback"]


@pytest.mark.parametrize("limit, length", [(0.1, 0.1), (math.inf, 3**0.5)])
def test_max_norm(limit, length):
    gram = products(np.random.default_rng(0).standard_normal((3, 20)))
    weights, _, _ = first_update(gram, max_norm=limit)
    shared = np.asarray(weights.shared, np.float64)
    np.testing.assert_allclose(np.sqrt(shared @ gram @ shared), length, rtol=1e-5)
    np.testing.assert_allclose(weights.heads, reference(gram), rtol=1e-5)


BROKEN = {
    "opposed": [[1, -1, 0], [-1, 1, 0], [0, 0, 1]],
    "opposed, lengths apart": [[1e-4, -1, 0], [-1, 1e4, 0], [0, 0, 1]],
    "all but opposed": [[1, -0.9999999, 0], [-0.9999999, 1, 0], [0, 0, 1]],
    "three that sum to zero": [[1, -0.5, -0.5], [-0.5, 1, -0.5], [-0.5, -0.5, 1]],
    "nan": [[1, np.nan, 0], [np.nan, np.nan, np.nan], [0, np.nan, 1]],
    "inf": [[1, 0, 0], [0, np.inf, 0], [0, 0, 1]],
    "all inf": np.full((3, 3), np.inf),
    "minus inf": [[1, -np.inf, 0], [-np.inf, np.inf, 0], [0, 0, 1]],
    "not positive semi-definite": [[1, -3, 0], [-3, 1, 0], [0, 0, 1]],
    "all zero": np.zeros((3, 3)),
}


@pytest.mark.parametrize("case", BROKEN)
def test_without_a_solution_the_last_good_weights_return(case):
    fresh, update = method(3, max_norm=math.inf)
    broken = np.asarray(BROKEN[case], np.float32)
    weights, state, diagnostics = update(broken, fresh)
    np.testing.assert_array_equal(weights.heads, np.ones(3))
    assert diagnostics["fallback"] == 1

    gram = products(np.random.default_rng(0).standard_normal((3, 20)))
    good, state, diagnostics = update(gram, state)
    assert diagnostics["fallback"] == 0
    weights, _, diagnostics = update(broken, state)
    jax.tree.map(np.testing.assert_array_equal, weights, good)
    assert diagnostics["fallback"] == 1
    assert all(np.all(np.isfinite(value)) for value in diagnostics.values())


def test_others_bargain_without_a_task_of_zero_gradient():
    gram = products(np.random.default_rng(0).standard_normal((3, 20)))
    gram[1] = gram[:, 1] = 0
    weights, _, diagnostics = first_update(gram)
    np.testing.assert_allclose(weights.heads[::2], reference(gram[::2, ::2]), rtol=1e-5)
    assert weights.heads[1] == 1
    assert diagnostics["fallback"] == 0
    np.testing.assert_array_equal(diagnostics["participation"], [1, 0, 1])


def test_scale_of_a_gradient_does_not_matter():
    # Nash's solution is invariant to the scale of each task: weight times gradient stays.
    gram = products(np.random.default_rng(3).standard_normal((3, 20)))
    scales = np.float32([1e-3, 7.0, 1e5])
    plain, scaled = first_update(gram)[0], first_update(gram * np.outer(scales, scales))[0]
    np.testing.assert_allclose(scaled.heads * scales, plain.heads, rtol=1e-5)


def test_solver_diagnostics():
    gradients = np.random.default_rng(0).standard_normal((3, 20)).astype(np.float32)
    _, _, diagnostics = first_update(products(gradients))
    norms = np.linalg.norm(gradients, axis=1)
    np.testing.assert_allclose(diagnostics["gradient_norm"], norms, rtol=1e-5)
    expected = gradients @ gradients.T / np.outer(norms, norms)
    np.testing.assert_allclose(diagnostics["cosine"], expected, atol=1e-5)
    assert 1 <= diagnostics["iterations"] <= 10


@pytest.mark.parametrize("argument", ["max_norm", "tolerance", "max_weight"])
@pytest.mark.parametrize("value", [0.0, -1.0, math.nan])
def test_bad_arguments(argument, value):
    with pytest.raises(ValueError, match=f"{argument} must be positive"):
        nash(**{argument: value})
