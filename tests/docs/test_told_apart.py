"""The script that says which weightings of a sweep differ from equal weights."""

import numpy as np
import pytest
from scipy import stats

from tests.docs import scripts


@pytest.fixture(scope="module")
def script():
    return scripts.load("told_apart")


def test_the_pooled_error_is_that_of_two_paired_columns(script):
    equal, other = np.array([1.0, 4.0, 2.0]), np.array([2.0, 3.0, 7.0])
    found = script.compare({"other": other}, equal)
    paired = stats.ttest_rel(other, equal)
    np.testing.assert_allclose(np.mean(found.differences["other"]) / found.error, paired.statistic)
    np.testing.assert_allclose(found.threshold, stats.t.ppf(0.975, 2))


def test_chance_is_seldom_a_difference_and_a_shift_always_is(script):
    rng, wrong = np.random.default_rng(0), 0
    for _ in range(200):
        seeds = 3.0 * rng.normal(size=3)
        gains = {str(index): seeds + rng.normal(size=3) for index in range(20)}
        gains["shifted"] = seeds + rng.normal(size=3) + 10.0
        found = script.compare(gains, seeds + rng.normal(size=3))
        assert "shifted" in found.different(1)
        wrong += len(found.different(1)) > 1 or len(found.different(-1)) > 0
    assert wrong <= 20


def test_ranks_are_of_each_seed(script):
    values = {
        "a": {"depth/absolute_error": np.array([1.0, 2.0]), "segmentation/miou": np.array([9, 9])},
        "b": {"depth/absolute_error": np.array([2.0, 1.0]), "segmentation/miou": np.array([8, 8])},
    }
    found = script.ranks(values)
    np.testing.assert_allclose(found["a"], [1.0, 1.5])
    np.testing.assert_allclose(found["b"], [2.0, 1.5])
