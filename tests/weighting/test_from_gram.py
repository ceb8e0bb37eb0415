import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtl_jax.weighting import Signals, from_gram, from_gram_update
from mtl_jax.weighting.numerics.matrix import combined_norm, cosines, normalize


def inverse_norm(**options):
    """A method of your own: each task's gradient scaled to unit length, and a count of calls."""

    def update(signals, state):
        weights = 1.0 / jnp.sqrt(jnp.diagonal(signals.gram))
        return (
            weights,
            state + 1,
            {"mean_weight": jnp.mean(jnp.where(signals.takes_part, weights, 0.0))},
        )

    return from_gram_update(update, lambda num_tasks: jnp.zeros((), jnp.int32), **options)


def step(gram, **changes) -> Signals:
    gram = jnp.asarray(gram, jnp.float32)
    plain = Signals(jnp.ones(len(gram)), gram, jnp.array(0, jnp.int32))
    return plain._replace(**changes)


def random_gram(seed: int, num_tasks: int, scale: float = 1.0) -> np.ndarray:
    gradients = np.random.default_rng(seed).standard_normal((num_tasks, 30))
    return (scale * gradients @ gradients.T).astype(np.float32)


def test_a_method_of_your_own():
    weighting = inverse_norm()
    gram = random_gram(0, 3)
    weights, state, diagnostics = jax.jit(weighting.update)(step(gram), weighting.init(3))
    expected = 1 / np.sqrt(np.diag(gram))
    np.testing.assert_allclose(weights.heads, expected, rtol=1e-6)
    np.testing.assert_allclose(weights.shared, expected, rtol=1e-6)
    np.testing.assert_allclose(diagnostics["mean_weight"], expected.mean(), rtol=1e-6)
    assert int(state.method) == 1


def test_a_function_of_the_matrix_is_a_method():
    weighting = from_gram(lambda gram: 1 / jnp.sqrt(jnp.diagonal(gram)), plain_heads=True)
    gram = random_gram(0, 3)
    labelled = np.array([True, False, True])
    weights, state, diagnostics = weighting.update(step(gram, labelled=labelled), weighting.init(3))
    expected = 1 / np.sqrt(np.diag(gram)) * labelled
    np.testing.assert_allclose(weights.shared, expected, rtol=1e-6)
    np.testing.assert_array_equal(weights.heads, labelled)
    assert state.method == () and diagnostics["fallback"] == 0


def test_a_preference_of_another_length_is_refused():
    weighting = from_gram(jnp.diagonal, preference=(1.0, 2.0))
    with pytest.raises(ValueError, match="one number for each of the 3 tasks"):
        weighting.init(3)


def test_no_answer_means_the_last_weights_and_state():
    weighting = inverse_norm()
    _, state, good = weighting.update(step(random_gram(0, 2)), weighting.init(2))
    broken = np.array([[1.0, 0.0], [0.0, np.nan]])
    weights, after, diagnostics = weighting.update(step(broken), state)
    assert good["fallback"] == 0 and diagnostics["fallback"] == 1
    jax.tree.map(np.testing.assert_array_equal, weights, state.weights)
    assert int(after.method) == 1
    # What can't be measured leaves the last measurement, so that means over an epoch stay finite.
    np.testing.assert_array_equal(diagnostics["gradient_norm"][0], 1.0)
    np.testing.assert_array_equal(diagnostics["gradient_norm"][1], good["gradient_norm"][1])


@pytest.mark.parametrize("absent", ["zero gradient", "no labels"])
def test_tasks_that_take_no_part(absent):
    weighting = inverse_norm()
    _, state, _ = weighting.update(step(random_gram(0, 3)), weighting.init(3))
    gram = random_gram(1, 3)
    labelled = jnp.array([True, True, absent != "no labels"])
    if absent == "zero gradient":
        gram[2] = gram[:, 2] = 0
    weights, _, diagnostics = weighting.update(step(gram, labelled=labelled), state)
    # A head without labels has no gradient; a head whose gradient stops within it keeps its weight.
    last = 0.0 if absent == "no labels" else state.weights.heads[2]
    expected = [*1 / np.sqrt(np.diag(gram)[:2]), last]
    np.testing.assert_allclose(weights.heads, expected, rtol=1e-6)
    np.testing.assert_array_equal(diagnostics["participation"], [1, 1, 0])
    assert diagnostics["fallback"] == 0


@pytest.mark.parametrize("matrix", [[[1, 0.5], [-0.5, 1]], [[1, -3], [-3, 1]], [[1, 0], [2, 1]]])
def test_what_is_not_a_gram_matrix_is_a_fallback(matrix):
    weighting = inverse_norm()
    weights, state, diagnostics = weighting.update(step(matrix), weighting.init(2))
    np.testing.assert_array_equal(weights.heads, [1, 1])
    assert diagnostics["fallback"] == 1 and int(state.method) == 0


def test_rounding_does_not_unmake_a_gram_matrix():
    weighting = inverse_norm()
    matrix = np.float32([[4, 2.0001], [1.9999, 1]])  # parallel gradients
    _, _, diagnostics = weighting.update(step(matrix), weighting.init(2))
    assert diagnostics["fallback"] == 0


def test_nobody_takes_part():
    weighting = inverse_norm()
    weights, _, diagnostics = weighting.update(step(np.zeros((2, 2))), weighting.init(2))
    np.testing.assert_array_equal(weights.heads, [1, 1])
    assert diagnostics["fallback"] == 1


@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e12])
def test_max_norm_clips_the_shared_gradient_alone(scale):
    weighting = inverse_norm(max_norm=0.5)
    gram = random_gram(0, 4, scale)
    weights, _, _ = weighting.update(step(gram), weighting.init(4))
    shared = np.asarray(weights.shared, np.float64)
    np.testing.assert_allclose(np.sqrt(shared @ gram @ shared), 0.5, rtol=1e-5)
    np.testing.assert_allclose(weights.heads, 1 / np.sqrt(np.diag(gram)), rtol=1e-6)
    np.testing.assert_allclose(shared / shared[0], weights.heads / weights.heads[0], rtol=1e-5)


def test_max_norm_leaves_short_gradients_alone():
    weighting = inverse_norm(max_norm=100.0)
    weights, _, _ = weighting.update(step(random_gram(0, 4)), weighting.init(4))
    np.testing.assert_array_equal(weights.shared, weights.heads)


def test_max_norm_holds_for_weights_of_an_earlier_step():
    weighting = from_gram(lambda gram: jnp.full_like(gram[0], jnp.nan), max_norm=1.0)
    gram = random_gram(0, 3, 1e6)
    weights, _, _ = weighting.update(step(gram), weighting.init(3))
    shared = np.asarray(weights.shared, np.float64)
    np.testing.assert_allclose(np.sqrt(shared @ gram @ shared), 1.0, rtol=1e-5)


@pytest.mark.parametrize("max_norm", [0.0, -1.0, math.nan])
def test_bad_max_norm(max_norm):
    with pytest.raises(ValueError, match="max_norm must be positive"):
        inverse_norm(max_norm=max_norm)


def test_normalize_loses_no_digit():
    norms = np.float32([1e-14, 3e-5, 0.0, 1.4142, 1.5, 7.0, 3e13])
    gradients = np.random.default_rng(0).standard_normal((7, 20)).astype(np.float32)
    gradients *= norms[:, None]
    gram = gradients @ gradients.T
    matrix, scales = jax.jit(normalize)(gram)
    np.testing.assert_array_equal(np.frexp(scales)[0], 0.5)  # powers of two
    exact = np.asarray(matrix, np.float64) * np.outer(scales, scales).astype(np.float64)
    np.testing.assert_array_equal(exact, gram)
    diagonal = np.delete(np.diag(matrix), 2)
    assert np.all((diagonal > 0.4) & (diagonal < 2.3)) and matrix[2, 2] == 0


def test_cosines():
    gram = np.float32([[4.0, 3.0, 0.0], [3.0, 9.0, 0.0], [0.0, 0.0, 0.0]])
    expected = [[1.0, 0.5, 0.0], [0.5, 1.0, 0.0], [0.0, 0.0, 0.0]]
    np.testing.assert_allclose(cosines(gram), expected, rtol=1e-6)


def test_combined_norm():
    rng = np.random.default_rng(0)
    gradients = rng.standard_normal((5, 20)).astype(np.float32)
    weights = rng.standard_normal(5).astype(np.float32)
    for scale in (1e-12, 1.0, 1e12):
        gram = (gradients @ gradients.T) * np.float32(scale)
        wide = weights.astype(np.float64)
        np.testing.assert_allclose(
            combined_norm(gram, weights), np.sqrt(wide @ gram @ wide), rtol=1e-5
        )
    assert combined_norm(gram, jnp.zeros(5)) == 0
