"""k-means on a line against all ways to divide the numbers."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtl_jax.weighting.numerics.clusters import cluster_means

means_of = jax.jit(cluster_means, static_argnums=2)


def squares(values: np.ndarray, labels) -> float:
    """The sum of squared distances to the means of the clusters that the labels make."""
    labels = np.array(labels)
    parts = [values[labels == label] for label in set(labels.tolist())]
    return sum(float(np.sum((part - part.mean()) ** 2)) for part in parts)


@pytest.mark.parametrize("clusters", [1, 2, 3, 7])
def test_the_clusters_are_the_best_of_all(clusters):
    rng = np.random.default_rng(0)
    for _ in range(10):
        values = rng.exponential(size=6) ** 3
        takes_part = np.append(rng.permutation([True, True, True, False, True]), True)
        kept = values[takes_part]
        found = np.asarray(means_of(jnp.float32(values), takes_part, clusters), np.float64)
        everything = itertools.product(range(clusters), repeat=len(kept))
        best = min(squares(kept, labels) for labels in everything) if clusters < 7 else 0.0
        cost = np.sum((kept - found[takes_part]) ** 2)
        assert cost == pytest.approx(best, rel=1e-4, abs=1e-9)
        assert len(np.unique(found[takes_part])) <= clusters


def test_equal_numbers_are_one_cluster_and_large_ones_do_not_overflow():
    everyone = np.ones(4, bool)
    np.testing.assert_allclose(means_of(jnp.full(4, 0.7), everyone, 3), 0.7, rtol=1e-6)
    huge = jnp.array([1e30, 3e30, 2.0, 1.0])
    np.testing.assert_allclose(means_of(huge, everyone, 3)[:2], [1e30, 3e30], rtol=1e-6)
    np.testing.assert_array_equal(means_of(jnp.zeros(4), everyone, 2), 0.0)
