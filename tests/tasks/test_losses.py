"""What the losses of all tasks share."""

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


@pytest.mark.parametrize(
    ("loss", "prediction", "labels"),
    [
        (segmentation.cross_entropy, jnp.full((*SHAPE, CLASSES), -2.0), jnp.full(SHAPE, -1)),
        (segmentation.focal, jnp.full((*SHAPE, CLASSES), -2.0), jnp.full(SHAPE, -1)),
        (segmentation.dice, jnp.full((*SHAPE, CLASSES), -2.0), jnp.full(SHAPE, -1)),
        (depths.absolute, jnp.full(SHAPE, 3.0), jnp.zeros(SHAPE)),
        (depths.scale_invariant, jnp.full(SHAPE, 3.0), jnp.zeros(SHAPE)),
        (depths.berhu, jnp.full(SHAPE, 3.0), jnp.zeros(SHAPE)),
        (directions.cosine, jnp.ones((*SHAPE, 3)), jnp.zeros((*SHAPE, 3))),
    ],
)
def test_nothing_labelled_is_zero_of_zero_with_zero_gradient(loss, prediction, labels):
    (total, count), gradient = jax.value_and_grad(lambda x: loss(x, labels), has_aux=True)(
        prediction
    )
    assert (total, count) == (0.0, 0.0)
    assert not np.any(gradient)


def test_no_loss_is_negative_but_for_rounding(rng):
    classes = jnp.asarray(rng.integers(0, CLASSES, SHAPE))
    metres = jnp.asarray(rng.uniform(0.5, 9.0, SHAPE), jnp.float32)
    vectors = jnp.asarray(unit(rng.standard_normal((*SHAPE, 3))), jnp.float32)
    logits = 50 * jax.nn.one_hot(classes, CLASSES)
    # Losses, how an output becomes a prediction, labels, and the output that is right.
    cases = (
        ((depths.absolute, depths.scale_invariant, depths.berhu), jnp.abs, metres, metres),
        ((directions.cosine,), losses.normalize, vectors, vectors),
        (
            (segmentation.cross_entropy, segmentation.focal, segmentation.dice),
            jax.nn.log_softmax,
            classes,
            logits,
        ),
    )
    for functions, activation, labels, right in cases:
        noise = jnp.asarray(rng.standard_normal(right.shape), jnp.float32)
        for loss in functions:
            for output in (right, right + noise, noise):
                total, count = loss(activation(output), labels)
                assert total / count > -1e-6


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
