"""The best clusters of a few numbers: k-means on a line, exact by dynamic programming."""

import jax
import jax.numpy as jnp
import numpy as np


def cluster_means(values: jax.Array, takes_part: jax.Array, clusters: int) -> jax.Array:
    """Returns for each number the mean of its cluster, f32[K].

    The clusters, at most as many as given, have the smallest sum of squared distances to their
    means. On a line they are intervals of the sorted numbers.

    Args:
      values: f32[K], not negative.
      takes_part: bool[K]; the others' values are ignored, and their means are arbitrary.
      clusters: at least 1.
    """
    size = len(values)
    if clusters >= size:
        return values
    order = jnp.argsort(jnp.where(takes_part, values, jnp.inf))
    kept = takes_part[order]
    largest = jnp.max(jnp.where(takes_part, values, 0.0))
    # Divided out: the squares could overflow.
    ordered = jnp.where(kept, values[order] / jnp.where(largest > 0, largest, 1.0), 0.0)
    cost, mean = _intervals(ordered, kept)
    # best[j] is the cost of the first j numbers in the clusters so far, begins[j] where the last
    # of them begins.
    best = jnp.where(jnp.arange(size + 1) == 0, 0.0, jnp.inf)
    begins = []
    for _ in range(clusters):
        through = best[:, None] + cost  # [begin, end]
        begins.append(jnp.argmin(through, axis=0))
        best = jnp.min(through, axis=0)
    end, places = jnp.array(size), jnp.arange(size)
    means = jnp.zeros_like(values)
    for begin in reversed(begins):
        means = jnp.where((begin[end] <= places) & (places < end), mean[begin[end], end], means)
        end = begin[end]
    return largest * jnp.zeros_like(values).at[order].set(means)


def _intervals(ordered: jax.Array, kept: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns cost and mean f32[K + 1, K + 1] of the numbers from `begin` to before `end`."""
    size = len(ordered)
    edges, places = np.arange(size + 1), np.arange(size)
    inside = (edges[:, None, None] <= places) & (places < edges[:, None])  # [begin, end, place]
    weight = (jnp.asarray(inside) & kept).astype(jnp.float32)
    number = jnp.maximum(jnp.sum(weight, axis=2), 1.0)
    mean = jnp.sum(weight * ordered, axis=2) / number
    cost = jnp.sum(weight * jnp.square(ordered - mean[..., None]), axis=2)
    return jnp.where(edges[:, None] <= edges, cost, jnp.inf), mean
