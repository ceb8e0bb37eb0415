"""Inverse depth: the errors of the numbers themselves, as the literature judges Cityscapes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtl_jax import data
from mtl_jax.data.augmentation import scale_and_crop
from mtl_jax.tasks import INVERSE_DEPTH, metrics
from mtl_jax.tasks.stored import PARTS_OF_ONE

SHAPE = (3, 6, 8)


@pytest.fixture
def case():
    """Predictions and labels, some of them missing and some of what is almost infinitely far."""
    rng = np.random.default_rng(0)
    predicted, target = rng.uniform(0.01, 0.4, (2, *SHAPE)).astype(np.float32)
    target[rng.random(SHAPE) < 0.3] = 0
    target[0, 0, 0] = 1 / 65535
    return predicted, target


def test_errors_are_those_of_the_numbers_and_not_of_metres(case):
    predicted, target = case
    known = target > 0
    off = np.abs(predicted - target)[known].astype(np.float64)
    sums = jax.jit(INVERSE_DEPTH.tally)(*case)
    found = INVERSE_DEPTH.summarize(metrics.add([sums]))
    expected = {
        "absolute_error": off.mean(),
        "relative_error": (off / target[known]).mean(),
    }
    assert found.keys() == {f"inverse_depth/{name}" for name in expected}
    for name, value in expected.items():
        np.testing.assert_allclose(found[f"inverse_depth/{name}"], value, rtol=1e-5)
    # A single label of almost nothing is enough for this.
    assert found["inverse_depth/relative_error"] > 10
    (profile,) = INVERSE_DEPTH.charts
    pixels, absolute, _ = profile.collect(sums)
    counts = np.histogram(target[known], [*profile.starts, np.inf])[0]
    np.testing.assert_array_equal(pixels, counts)
    np.testing.assert_allclose(absolute.sum(), off.sum(), rtol=1e-5)


def test_the_table_says_that_depth_is_inverse():
    heads = [metric.head for metric in INVERSE_DEPTH.metrics if metric.standard]
    assert heads == ["AbsErr (inverse depth) ↓", "RelErr (inverse depth) ↓"]
    assert not INVERSE_DEPTH.stored.is_distance


def test_predictions_are_linear_as_published_and_kept_positive():
    raw = jnp.linspace(-1, 1, 5)[None, None, :, None]
    predicted = INVERSE_DEPTH.activation(raw, {})
    np.testing.assert_array_equal(predicted, raw[..., 0])
    kept = INVERSE_DEPTH.sample(predicted)
    np.testing.assert_allclose(kept[0, 0], [1 / 65535] * 3 + [0.5, 1.0], rtol=1e-6)


def test_augmentation_divides_by_the_scale_as_published():
    view = {
        "image": jnp.ones((6, 8, 3)),
        "intrinsics": jnp.float32([10, 10, 3.5, 2.5]),
        "inverse_depth": jnp.full((6, 8), 0.3),
    }
    entries = data.entries_of([INVERSE_DEPTH])
    scaled = scale_and_crop(view, entries, jnp.float32(1.5), jnp.zeros(2))
    np.testing.assert_allclose(scaled["inverse_depth"], 0.2, rtol=1e-6)


def test_files_hold_it_as_the_disparity_files_of_cityscapes_do():
    numbers = np.float32([[0.0, 1 / 65535, 0.5], [np.nan, 1.0, 3.0]])
    encoded = PARTS_OF_ONE.encode(numbers, 0)
    assert encoded.dtype == np.uint16
    assert encoded.tolist() == [[0, 1, 32768], [0, 65535, 65535]]
    assert PARTS_OF_ONE.lost(numbers) == 1
