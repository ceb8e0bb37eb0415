"""The quadratic programs and the methods made of them against SciPy in float64."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize

from mtl_jax.weighting import METHODS, Signals
from mtl_jax.weighting.numerics import quadratic

nonnegative = jax.jit(jax.vmap(quadratic.nonnegative))
SIZES = (2, 3, 10)


def problems(num_tasks: int, *, count: int = 60, kind: str = "random") -> np.ndarray:
    """Gradients f64[count, K, n], of lengths that differ by up to 1e4."""
    rng = np.random.default_rng(num_tasks)
    gradients = rng.standard_normal((count, num_tasks, num_tasks + 3))
    if kind == "opposed":  # cosines of about -0.99 between each two neighbours
        noise = 0.1 * gradients[:, 1:]
        gradients[:, 1:] = noise - gradients[:, :1] * (-1.0) ** np.arange(num_tasks - 1)[:, None]
    if kind == "flat":  # fewer dimensions than tasks
        gradients[..., max(1, num_tasks - 1) :] = 0.0
    lengths = 10.0 ** rng.uniform(-2, 2, (count, num_tasks, 1))
    return gradients * lengths


@functools.cache
def compiled(name: str, num_tasks: int, **options) -> Callable[[jax.Array], tuple[jax.Array, ...]]:
    """Gram matrices f32[count, K, K] -> (weights of a method's first step, its fallbacks)."""
    weighting = METHODS[name](**options)
    state = weighting.init(num_tasks)

    def weigh(gram):
        signals = Signals(jnp.ones(num_tasks), gram, jnp.array(0), jax.random.key(0))
        _, after, diagnostics = weighting.update(signals, state)
        return after.solution, diagnostics["fallback"]

    return jax.jit(jax.vmap(weigh))


def first_weights(name: str, gradients: np.ndarray, **options) -> np.ndarray:
    """Weights f64[count, K] of a method's first step on each of the problems."""
    grams = jnp.asarray(gradients @ gradients.transpose(0, 2, 1), jnp.float32)
    weights, fallback = compiled(name, gradients.shape[1], **options)(grams)
    assert not np.any(fallback)
    return np.asarray(weights, np.float64)


def length(vectors: np.ndarray) -> np.ndarray:
    return np.linalg.norm(vectors, axis=-1)


def combined(weights: np.ndarray, gradients: np.ndarray) -> np.ndarray:
    return np.einsum("pk,pkn->pn", weights, gradients)


def shortest(gradients: np.ndarray) -> np.ndarray:
    """The min-norm point of the simplex by non-negative least squares, weights f64[K].

    With a heavy row of ones it is the x >= 0 that brings G'x to zero and the sum of x to one.
    """
    scale = np.linalg.norm(gradients, axis=1).max()
    rows = np.vstack([gradients.T / scale, np.ones(len(gradients))])
    x, _ = scipy.optimize.nnls(rows, np.append(np.zeros(gradients.shape[1]), 1.0))
    return x / x.sum()


@pytest.mark.parametrize("num_tasks", [1, *SIZES, 40])
def test_nonnegative_least_squares_of_scipy(num_tasks):
    rng = np.random.default_rng(0)
    gradients = problems(num_tasks, count=20)
    right = rng.standard_normal((20, gradients.shape[2]))
    grams = gradients @ gradients.transpose(0, 2, 1)
    linear = -np.einsum("pkn,pn->pk", gradients, right)
    found = np.asarray(nonnegative(jnp.float32(grams), jnp.float32(linear)), np.float64)
    assert np.all(found >= 0)
    for x, rows, target in zip(found, gradients, right, strict=True):
        _, best = scipy.optimize.nnls(rows.T, target)
        assert np.linalg.norm(rows.T @ x - target) <= best * (1 + 1e-4) + 1e-6


def test_a_variable_without_a_diagonal_stays_zero():
    gram = jnp.array([[4.0, 0.0, 1.0], [0.0, 0.0, 0.0], [1.0, 0.0, 2.0]])
    (x,) = nonnegative(gram[None], jnp.array([[-1.0, -1.0, -1.0]]))
    np.testing.assert_allclose(x, [1 / 7, 0.0, 3 / 7], rtol=1e-5)


@pytest.mark.parametrize("kind", ["random", "opposed", "flat"])
@pytest.mark.parametrize("num_tasks", SIZES)
def test_mgda_is_the_shortest_convex_combination(num_tasks, kind):
    gradients = problems(num_tasks, kind=kind)
    weights = first_weights("mgda", gradients)
    np.testing.assert_allclose(weights.sum(1), 1.0, rtol=1e-5)
    assert np.all(weights >= 0)
    best = np.array([length(shortest(rows) @ rows) for rows in gradients])
    found = length(combined(weights, gradients))
    # Short against the shortest single gradient: rounding in float32 leaves 1e-3 of that.
    slack = 2e-3 * length(gradients).min(1)
    assert np.all(found <= best * (1 + 1e-3) + slack)


@pytest.mark.parametrize("normalization", ["l2", "loss", "loss+"])
def test_mgda_divides_the_gradients_first(normalization):
    gradients = problems(3, count=1)
    losses = np.array([0.5, 2.0, 3.0])
    norms = np.linalg.norm(gradients[0], axis=1)
    divisor = {"l2": norms, "loss": losses, "loss+": losses * norms}[normalization]
    weighting = METHODS["mgda"](normalization)
    gram = jnp.float32(gradients[0] @ gradients[0].T)
    signals = Signals(jnp.float32(losses), gram, jnp.array(0), jax.random.key(0))
    weights = weighting.update(signals, weighting.init(3))[0]
    expected = shortest(gradients[0] / divisor[:, None])
    np.testing.assert_allclose(weights.shared, expected, atol=2e-4)


@pytest.mark.parametrize("kind", ["random", "opposed"])
@pytest.mark.parametrize("name", ["upgrad", "dualproj"])
@pytest.mark.parametrize("num_tasks", SIZES)
def test_projections_on_the_dual_cone(num_tasks, name, kind):
    gradients = problems(num_tasks, kind=kind, count=20)

    def project(rows, wanted):
        # v = u + x with x >= 0 and the smallest |G'u + G'x|
        x, _ = scipy.optimize.nnls(rows.T, -rows.T @ wanted)
        return wanted + x

    found = combined(first_weights(name, gradients), gradients)
    for direction, rows in zip(found, gradients, strict=True):
        wanted = np.eye(num_tasks) if name == "upgrad" else np.ones((1, num_tasks))
        expected = sum(project(rows, u) for u in wanted) @ rows
        norms = np.linalg.norm(rows, axis=1)
        np.testing.assert_allclose(direction, expected, atol=2e-3 * norms.max())
        assert np.all(rows @ direction >= -2e-3 * norms * norms.max())  # conflicts with nobody


@pytest.mark.parametrize("name", ["upgrad", "dualproj", "pcgrad", "cagrad"])
def test_without_conflict_the_gradients_are_summed(name):
    gradients = np.abs(problems(3, count=20))
    options = {"c": 0.0} if name == "cagrad" else {}
    np.testing.assert_allclose(first_weights(name, gradients, **options), 1.0, rtol=1e-4)


@pytest.mark.parametrize(
    ("num_tasks", "kind"),
    [(2, "random"), (2, "opposed"), (3, "random"), (3, "opposed"), (10, "opposed")],
)
def test_cagrad_improves_the_worst_task_most(num_tasks, kind):
    gradients = problems(num_tasks, kind=kind, count=12)
    gradients /= np.linalg.norm(gradients, axis=2).max(1)[:, None, None]
    c = 0.4
    found = combined(first_weights("cagrad", gradients, c=c, rescale=0), gradients) / num_tasks
    for direction, rows in zip(found, gradients, strict=True):
        average = rows.mean(0)
        radius = c * np.linalg.norm(average)
        assert np.linalg.norm(direction - average) <= radius * (1 + 1e-3)

        def dual(w, rows=rows, average=average, radius=radius):
            g = w @ rows
            return g @ average + radius * np.linalg.norm(g)

        starts = [np.full(num_tasks, 1 / num_tasks), *np.eye(num_tasks)]
        options = {"ftol": 1e-12, "maxiter": 500}
        simplex = {"type": "eq", "fun": lambda w: w.sum() - 1}
        best = min(
            scipy.optimize.minimize(
                dual, start, method="SLSQP", bounds=[(0, 1)] * num_tasks,
                constraints=simplex, options=options,
            ).fun
            for start in starts
        )  # fmt: skip
        # Strong duality: the best worst improvement is the minimum of the dual.
        assert np.min(rows @ direction) >= best - 1e-3 * radius


@pytest.mark.parametrize("c", [1.0, 1.5, 5.0])
def test_cagrad_may_stand_still_where_no_direction_improves_every_task(c):
    angles = np.deg2rad([90, 210, 330])
    triangle = np.stack([np.cos(angles), np.sin(angles)], 1) * np.array([[1.0], [2.0], [0.5]])
    opposed = np.array([[1.0], [-2.0]])
    for rows in (triangle, opposed):
        # Any other d lowers a task, and d = 0 is within the radius c |g0| of g0.
        np.testing.assert_array_equal(first_weights("cagrad", rows[None], c=c), 0.0)
    # With c below 1, d can't be zero: 0.99 |g0| from g0, towards zero.
    direction = combined(first_weights("cagrad", opposed[None], c=0.99, rescale=0), opposed[None])
    np.testing.assert_allclose(direction, [[2 * -0.5 * 0.01]], rtol=1e-3)


def test_cagrad_with_a_large_radius_still_improves_every_task():
    rows = np.array([[1.0, 0.0], [-0.9, 0.5]])
    direction = combined(first_weights("cagrad", rows[None], c=2.0, rescale=0), rows[None])[0] / 2
    average = rows.mean(0)
    radius = 2.0 * np.linalg.norm(average)
    turns = np.linspace(0, 2 * np.pi, 20_001)
    circle = average + radius * np.stack([np.cos(turns), np.sin(turns)], 1)
    assert np.linalg.norm(direction - average) == pytest.approx(radius, rel=1e-3)
    assert np.min(rows @ direction) >= np.max(np.min(circle @ rows.T, axis=1)) - 1e-3 * radius


def test_bad_options_are_refused():
    with pytest.raises(ValueError, match="mgda's normalization must be one of"):
        METHODS["mgda"]("l1")
    with pytest.raises(ValueError, match="cagrad's c must be finite"):
        METHODS["cagrad"](-0.1)
    with pytest.raises(ValueError, match="cagrad's rescale must be"):
        METHODS["cagrad"](rescale=3)
    with pytest.raises(ValueError, match="not all zero"):
        METHODS["upgrad"]((0.0, 0.0))
    with pytest.raises(ValueError, match="one number for each of the 3 tasks"):
        METHODS["dualproj"]((1.0, 2.0)).init(3)
