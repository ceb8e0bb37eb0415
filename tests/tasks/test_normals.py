"""Normals: loss and metrics against naive NumPy over all pixels."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtl_jax.tasks import metrics
from mtl_jax.tasks import normals as task
from tests.tasks import cases

tally = jax.jit(task.tally)


@pytest.fixture
def rng():
    return np.random.default_rng(1)


def total(tally, *arrays):
    return metrics.add([tally(*arrays)])


def test_cosine_ignores_missing_normals(rng):
    normals, target = cases.unit(rng.normal(size=(2, *cases.SHAPE, 3)))
    missing = rng.random(cases.SHAPE) < 0.3
    target[missing] = 0.0
    expected = (1.0 - (normals * target).sum(-1))[~missing].sum()
    total, count = task.cosine(jnp.float32(normals), jnp.float32(target))
    np.testing.assert_allclose(total, expected, rtol=1e-6)
    assert 0 < float(count) == np.sum(~missing) < missing.size


def test_cosine_counts_a_normal_that_lies_along_one_axis():
    target = jnp.array([[[[0.0, 0.0, -1.0]]]])
    assert task.cosine(-target, target) == (2.0, 1.0)


def angles(normals, target):
    """Degrees in float64, of the pixels that have a normal."""
    normals, target = np.asarray(normals, np.float64), np.asarray(target, np.float64)
    normals, target = (x[np.any(target != 0, axis=-1)] for x in (normals, target))
    cosine = (normals * target).sum(-1)
    cosine /= np.linalg.norm(normals, axis=-1) * np.linalg.norm(target, axis=-1)
    return np.degrees(np.arccos(np.clip(cosine, -1.0, 1.0)))


def test_normals_metrics_agree_with_numpy(rng):
    normals, target = cases.normals_case(rng)
    results = task.summarize(total(tally, normals, target))
    expected = angles(normals, target)
    assert results["normals/mean"] == pytest.approx(expected.mean(), rel=1e-5)
    assert results["normals/median"] == pytest.approx(np.median(expected), abs=0.01)
    for limit in (11.25, 22.5, 30):
        assert results[f"normals/within_{limit:g}"] == np.mean(expected < limit)


def test_median_lies_between_the_two_middle_pixels():
    # Four angles far apart: the median of an even number is the mean of the two in the middle.
    degrees = np.array([[[3.0, 10.0, 50.0, 170.0]]])
    radians = np.radians(degrees)
    normals = np.stack([np.sin(radians), 0 * radians, -np.cos(radians)], -1)
    target = np.broadcast_to([0.0, 0.0, -1.0], normals.shape)
    sums = total(tally, jnp.float32(normals), jnp.float32(target))
    assert task.summarize(sums)["normals/median"] == pytest.approx(30.0, abs=0.01)


def test_tiny_and_opposite_angles_keep_their_precision():
    tiny = np.radians(0.02)
    normals = jnp.float32([[[[np.sin(tiny), 0.0, -np.cos(tiny)], [0.0, 0.0, 1.0]]]])
    target = jnp.float32([[[[0.0, 0.0, -1.0], [0.0, 0.0, -1.0]]]])
    sums = tally(normals, target)
    assert float(sums["angle"]) == pytest.approx(180.02, abs=1e-4)


def test_a_normal_that_predicts_no_direction_is_a_right_angle_off():
    sums = tally(jnp.zeros((1, 1, 1, 3)), jnp.float32([[[[0.6, 0.0, -0.8]]]]))
    assert float(sums["angle"]) == pytest.approx(90.0)
    assert not np.any(sums["within"])
