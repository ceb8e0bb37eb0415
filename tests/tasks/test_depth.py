"""Depth: loss and metrics against naive NumPy over all pixels."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtl_jax.tasks import depth as task
from mtl_jax.tasks import metrics
from tests.tasks import cases

tally = jax.jit(task.tally)


@pytest.fixture
def rng():
    return np.random.default_rng(1)


def total(tally, *arrays):
    return metrics.add([tally(*arrays)])


def test_absolute_ignores_missing_depth(rng):
    depth, target = rng.uniform(0.5, 9.0, (2, *cases.SHAPE))
    target[rng.random(cases.SHAPE) < 0.3] = 0.0
    known = target != 0
    total, count = task.absolute(jnp.float32(depth), jnp.float32(target))
    np.testing.assert_allclose(total, np.abs(depth - target)[known].sum(), rtol=1e-6)
    assert 0 < float(count) == known.sum() < known.size


def test_depth_metrics_agree_with_numpy(rng):
    depth, target = cases.depth_case(rng)
    results = task.summarize(total(tally, depth, target))
    depth, target = np.asarray(depth, np.float64), np.asarray(target, np.float64)
    d, t = depth[target > 0], target[target > 0]
    ratio = np.maximum(d / t, t / d)
    expected = {
        "depth/absolute_error": np.mean(np.abs(d - t)),
        "depth/relative_error": np.mean(np.abs(d - t) / t),
        "depth/rmse": np.sqrt(np.mean((d - t) ** 2)),
        "depth/delta1": np.mean(ratio < 1.25),
        "depth/delta2": np.mean(ratio < 1.25**2),
        "depth/delta3": np.mean(ratio < 1.25**3),
    }
    assert results == pytest.approx(expected, rel=1e-6)
    assert 0 < results["depth/delta1"] < results["depth/delta2"] < results["depth/delta3"] < 1


def test_sums_of_a_large_batch_are_as_exact_as_those_of_small_ones():
    # A float32 sum that runs through a million pixels one by one loses three digits.
    rng = np.random.default_rng(2)
    target = jnp.float32(rng.uniform(0.5, 9.0, (8, 288, 384)))
    depth = jnp.float32(rng.uniform(0.5, 9.0, target.shape))
    error = np.abs(np.asarray(depth, np.float64) - np.asarray(target, np.float64))
    sums = tally(depth, target)
    assert float(sums["absolute"]) == pytest.approx(error.sum(), rel=2e-6)
    assert float(sums["squared"]) == pytest.approx((error**2).sum(), rel=2e-6)
