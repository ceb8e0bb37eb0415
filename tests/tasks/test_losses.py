"""Losses against float64 NumPy and PyTorch, with pixels that have no label."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtl_jax.tasks import depth as depths
from mtl_jax.tasks import losses, segmentation
from mtl_jax.tasks import normals as directions

SHAPE = (2, 5, 7)
CLASSES = 4


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def unit(vectors):
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def log_probabilities(rng):
    logits = rng.normal(size=(*SHAPE, CLASSES))
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


def test_cross_entropy_sums_the_true_class_and_ignores_void(rng):
    log_p = log_probabilities(rng)
    labels = rng.integers(-1, CLASSES, SHAPE)
    expected = -sum(
        log_p[place][labels[place]] for place in np.ndindex(SHAPE) if labels[place] >= 0
    )
    total, count = segmentation.cross_entropy(jnp.float32(log_p), jnp.int32(labels))
    np.testing.assert_allclose(total, expected, rtol=1e-6)
    assert 0 < float(count) == np.sum(labels != -1) < labels.size


def test_cross_entropy_agrees_with_pytorch(rng):
    torch = pytest.importorskip("torch")
    log_p = log_probabilities(rng).astype(np.float32)
    labels = rng.integers(-1, CLASSES, SHAPE)
    expected = torch.nn.functional.nll_loss(
        torch.from_numpy(log_p).permute(0, 3, 1, 2), torch.from_numpy(labels), ignore_index=-1
    )
    total, count = segmentation.cross_entropy(jnp.array(log_p), jnp.int32(labels))
    np.testing.assert_allclose(total / count, expected.numpy(), rtol=1e-6)


def test_absolute_ignores_missing_depth(rng):
    depth, target = rng.uniform(0.5, 9.0, (2, *SHAPE))
    target[rng.random(SHAPE) < 0.3] = 0.0
    known = target != 0
    total, count = depths.absolute(jnp.float32(depth), jnp.float32(target))
    np.testing.assert_allclose(total, np.abs(depth - target)[known].sum(), rtol=1e-6)
    assert 0 < float(count) == known.sum() < known.size


def test_cosine_ignores_missing_normals(rng):
    normals, target = unit(rng.normal(size=(2, *SHAPE, 3)))
    missing = rng.random(SHAPE) < 0.3
    target[missing] = 0.0
    expected = (1.0 - (normals * target).sum(-1))[~missing].sum()
    total, count = directions.cosine(jnp.float32(normals), jnp.float32(target))
    np.testing.assert_allclose(total, expected, rtol=1e-6)
    assert 0 < float(count) == np.sum(~missing) < missing.size


def test_cosine_counts_a_normal_that_lies_along_one_axis():
    target = jnp.array([[[[0.0, 0.0, -1.0]]]])
    assert directions.cosine(-target, target) == (2.0, 1.0)


@pytest.mark.parametrize(
    ("loss", "prediction", "labels"),
    [
        (segmentation.cross_entropy, jnp.full((*SHAPE, CLASSES), -2.0), jnp.full(SHAPE, -1)),
        (depths.absolute, jnp.full(SHAPE, 3.0), jnp.zeros(SHAPE)),
        (directions.cosine, jnp.ones((*SHAPE, 3)), jnp.zeros((*SHAPE, 3))),
    ],
)
def test_nothing_labelled_is_zero_of_zero_with_zero_gradient(loss, prediction, labels):
    (total, count), gradient = jax.value_and_grad(lambda x: loss(x, labels), has_aux=True)(
        prediction
    )
    assert (total, count) == (0.0, 0.0)
    assert not np.any(gradient)


def test_normalize_gives_unit_vectors_of_the_same_direction(rng):
    vectors = rng.normal(size=(50, 3)) * 10.0 ** rng.uniform(-3, 3, (50, 1))
    np.testing.assert_allclose(losses.normalize(jnp.float32(vectors)), unit(vectors), atol=1e-6)


def test_normalize_and_its_gradient_are_finite_at_zero():
    zero = jnp.zeros(3)
    assert not np.any(losses.normalize(zero))
    assert np.all(np.isfinite(jax.jacrev(losses.normalize)(zero)))


def test_gradient_of_normalize_agrees_with_finite_differences(rng):
    x, step = rng.normal(size=3), 1e-6
    expected = np.stack(
        [(unit(x + step * axis) - unit(x - step * axis)) / (2 * step) for axis in np.eye(3)], axis=1
    )
    np.testing.assert_allclose(jax.jacrev(losses.normalize)(jnp.float32(x)), expected, atol=1e-5)


def test_count_is_of_true_entries():
    count = losses.count(jnp.array([[True, False], [True, True]]))
    assert count == 3.0
    assert count.dtype == jnp.float32
