"""Weightings that make the gradient themselves against the published steps in float64 NumPy."""

from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtl_jax.weighting import METHODS, Signals, gram

TASKS, STEPS = 3, 5
SHAPES = {"a": (2, 3), "b": (4,)}
SHARED = {key: jax.ShapeDtypeStruct(shape, jnp.float32) for key, shape in SHAPES.items()}
SIZES = {key: int(np.prod(shape)) for key, shape in SHAPES.items()}


def history() -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Losses f64[K] and gradients f64[K, n] of some steps."""
    rng = np.random.default_rng(0)
    lengths = np.array([[0.1], [1.0], [5.0]])
    for _ in range(STEPS):
        yield rng.uniform(0.2, 3.0, TASKS), lengths * rng.standard_normal((TASKS, 10))


def tree_of(rows: np.ndarray) -> dict[str, jax.Array]:
    parts = np.split(rows, np.cumsum(list(SIZES.values()))[:-1], axis=1)
    return {
        key: jnp.float32(part.reshape(TASKS, *SHAPES[key]))
        for key, part in zip(SHAPES, parts, strict=True)
    }


def flat(tree: dict[str, jax.Array]) -> np.ndarray:
    return np.concatenate([np.ravel(tree[key]) for key in SHAPES])


def steps(name: str, **options):
    """Yields losses, gradients, the combined gradient and the weights of the heads of each step."""
    weighting = METHODS[name](**options)
    state, combine = weighting.init(TASKS, SHARED), jax.jit(weighting.combine)
    for step, (losses, rows) in enumerate(history()):
        gradients = tree_of(rows)
        given = Signals(jnp.float32(losses), gram(gradients), jnp.array(step), jax.random.key(step))
        gradient, weights, state, diagnostics = combine(gradients, given, state)
        assert diagnostics["fallback"] == 0
        yield losses, rows, flat(gradient), np.asarray(weights.heads)


def softmax(x: np.ndarray) -> np.ndarray:
    return np.exp(x - x.max()) / np.exp(x - x.max()).sum()


@pytest.mark.parametrize("sigma", [0.0, 0.5])
def test_db_mtl_brings_smoothed_gradients_of_the_logarithms_to_one_length(sigma):
    y = np.zeros((TASKS, 10))
    for step, (losses, rows, found, heads) in enumerate(steps("db_mtl", beta=0.8, sigma=sigma)):
        h = rows / losses[:, None]
        y = h + 0.8 / (step + 1) ** sigma * (y - h)
        lengths = np.linalg.norm(y, axis=1)
        expected = (lengths.max() / lengths) @ y
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(heads, 1 / losses, rtol=1e-6)


def test_moco_learns_weights_on_smoothed_gradients():
    y, w = np.zeros((TASKS, 10)), np.full(TASKS, 1 / TASKS)
    for step, (losses, rows, found, heads) in enumerate(steps("moco", beta=0.6, rho=0.2)):
        h = losses[:, None] * rows / np.linalg.norm(rows, axis=1, keepdims=True)
        y = y - 0.6 / np.sqrt(step + 1) * (y - h)
        w = softmax(w - 0.1 / np.sqrt(step + 1) * (y @ y.T + 0.2 * np.eye(TASKS)) @ w)
        np.testing.assert_allclose(found, w @ y, rtol=1e-4, atol=1e-5)
        np.testing.assert_array_equal(heads, 1.0)


def test_excess_mtl_raises_tasks_that_are_far_from_their_optimum():
    squares, w, first = np.zeros((TASKS, 10)), np.ones(TASKS), None
    for losses, rows, found, heads in steps("excess_mtl", eta=0.5):
        squares += rows**2
        excess = np.sum(rows**2 / np.sqrt(squares + 1e-7), axis=1)
        first = excess if first is None else first
        w = w * np.exp(0.5 * excess / first)
        w *= TASKS / w.sum()
        np.testing.assert_allclose(found, w @ rows, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(heads, w, rtol=1e-4)
        assert len(losses) == TASKS


def test_graddrop_keeps_the_entries_of_one_sign():
    kept = 0
    for _, rows, found, heads in steps("graddrop"):
        positive, negative = np.maximum(rows, 0).sum(0), np.minimum(rows, 0).sum(0)
        chosen = np.isclose(found, positive, atol=1e-5)
        np.testing.assert_allclose(found, np.where(chosen, positive, negative), atol=1e-5)
        kept += chosen.sum()
        np.testing.assert_array_equal(heads, 1.0)
    assert 0 < kept < 10 * STEPS


def test_graddrop_draws_the_sign_with_the_share_of_its_entries():
    rows = np.array([[3.0, 1.0], [-1.0, 2.0], [0.0, -1.0]])
    gradients = jnp.float32(rows)
    weighting = METHODS["graddrop"]()
    state = weighting.init(TASKS, jax.ShapeDtypeStruct((2,), jnp.float32))

    def draw(key):
        given = Signals(jnp.ones(TASKS), gram(gradients), jnp.array(0), key)
        return weighting.combine(gradients, given, state)[0]

    drawn = np.asarray(jax.vmap(draw)(jax.random.split(jax.random.key(0), 4000)))
    share = 0.5 * (1 + rows.sum(0) / np.abs(rows).sum(0))  # 3 / 4 in both
    np.testing.assert_allclose((drawn > 0).mean(0), share, atol=0.03)


def test_graddrop_draws_rare_signs_of_bfloat16_gradients():
    entries = 100_000
    rows = jnp.stack([jnp.ones(entries), jnp.full(entries, -500.0)]).astype(jnp.bfloat16)
    weighting = METHODS["graddrop"]()
    state = weighting.init(2, jax.ShapeDtypeStruct((entries,), jnp.bfloat16))
    given = Signals(jnp.ones(2), gram(rows), jnp.array(0), jax.random.key(0))
    drawn = weighting.combine(rows, given, state)[0]
    assert drawn.dtype == jnp.bfloat16
    # One entry in 501, give or take five standard deviations.
    assert abs(int((drawn > 0).sum()) - entries / 501) < 5 * (entries / 501) ** 0.5
