"""The passes of a step over parts of its batch, one part after the other, to save memory.

A part's losses are sums over its labelled pixels. They and their gradients add up over the parts
before the labels of the whole batch divide them, so that the results are those of passes over the
whole batch. What differs is batch normalisation: it takes the statistics of each part, and the
running statistics are updated by each part in turn, as gradient accumulation does everywhere.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from mtl_jax import parallel
from mtl_jax.models import Network, Variables
from mtl_jax.tasks import Batch
from mtl_jax.training import passes
from mtl_jax.training.passes import Backward
from mtl_jax.weighting import gradients
from mtl_jax.weighting.contract import PyTree

# (variables, part of a batch) -> (sums, new running statistics).
OfPart = Callable[[Variables, Batch], tuple[PyTree, PyTree]]


def trunk_gradients(
    network: Network, variables: Variables, batch: Batch, parts: int
) -> tuple[Backward, PyTree]:
    """Returns the heads' results and all K gradients of the trunk over all devices.

    Args:
      batch: decoded, of this device.
      parts: number of parts, which divides the batch.
    """
    if parts == 1:
        pullback, backward = passes.differentiate(network, variables, batch)
        return backward, passes.trunk_gradients(pullback, backward)
    ones = jnp.ones(len(network.tasks))

    def of_part(variables: Variables, part: Batch) -> tuple[PyTree, PyTree]:
        pullback, backward = passes.differentiate(network, variables, part, ones)
        each = gradients.pull_back(pullback, backward.cotangents)
        return (_sums(backward), each), backward.batch_stats

    (sums, each), stats = _over_parts(of_part, variables, batch, parts)
    backward = _mean(network, sums, stats)
    return backward, _divided(parallel.total(each), passes.divisors_of(backward.counts))


def head_results(
    network: Network, variables: Variables, batch: Batch, parts: int, *, at_features: bool
) -> tuple[Backward, jax.Array | None]:
    """Returns the heads' results and, if `at_features`, the Gram matrix f32[K, K] at the features.

    Under jit, XLA drops the results that the caller does not use.
    """
    ones = jnp.ones(len(network.tasks))

    def of_part(variables: Variables, part: Batch) -> tuple[PyTree, PyTree]:
        _, backward = passes.differentiate(network, variables, part, ones)
        # Each image has its own features, so the parts' matrices can be summed.
        products = passes.feature_gram(backward) if at_features else None
        return (_sums(backward), products), backward.batch_stats

    (sums, products), stats = _over_parts(of_part, variables, batch, parts)
    backward = _mean(network, sums, stats)
    if products is not None:
        divisors = passes.divisors_of(backward.counts)
        products = products / divisors[:, None] / divisors
    return backward, products


def weighted_gradient(
    network: Network,
    variables: Variables,
    batch: Batch,
    parts: int,
    counts: jax.Array,
    weights: jax.Array,
) -> tuple[PyTree, Backward]:
    """Returns the trunk's gradient of the weighted sum over all devices, and the heads' results.

    Args:
      counts: f32[K], labelled pixels of the whole batch, from `head_results`.
      weights: f32[K].
    """

    def of_part(variables: Variables, part: Batch) -> tuple[PyTree, PyTree]:
        divisors = passes.divisors_of(counts)
        pullback, backward = passes.differentiate(network, variables, part, divisors)
        (own,) = pullback(gradients.combine(backward.cotangents, weights))
        return (own, backward.losses, backward.gradients), backward.batch_stats

    (own, losses, heads), stats = _over_parts(of_part, variables, batch, parts)
    return parallel.total(own), Backward(losses, counts, None, heads, stats)


def forward_losses(network: Network, variables: Variables, batch: Batch, parts: int) -> jax.Array:
    """Returns the losses f32[K] of the batch by a forward pass alone."""
    if parts == 1:
        return passes.forward_losses(network, variables, batch)
    backward, _ = head_results(network, variables, batch, parts, at_features=False)
    return backward.losses


def cross_gram(
    network: Network, variables: Variables, first: Batch, second: Batch, parts: int
) -> tuple[jax.Array, jax.Array, Variables]:
    """Returns inner products of the trunk's gradients on one share of a batch with another's.

    Each share has its own passes, in parts, and batch statistics; the running statistics are
    updated by both.

    Returns:
      cross f32[K, K], which tasks both shares have labels of (bool[K]), and the variables with
      their new running statistics.
    """
    each, labelled = [], []
    for share in (first, second):
        backward, found = trunk_gradients(network, variables, share, parts)
        each.append(found)
        labelled.append(backward.labelled)
        variables = variables._replace(batch_stats=backward.batch_stats)
    return gradients.inner_products(*each), labelled[0] & labelled[1], variables


def _over_parts(
    of_part: OfPart, variables: Variables, batch: Batch, parts: int
) -> tuple[PyTree, PyTree]:
    """Returns the sums of all parts, and the running statistics after the last of them."""
    # As `passes.thirds`: where the labelled images stand first, each part gets some of them.
    stacked = jax.tree.map(lambda x: jnp.stack([x[i::parts] for i in range(parts)]), batch)
    first = jax.tree.map(lambda x: x[0], stacked)

    def add(carry: tuple[PyTree, PyTree], part: Batch) -> tuple[tuple[PyTree, PyTree], None]:
        # Where the loop is unrolled, XLA could otherwise run several parts at the same time.
        (sums, stats), part = jax.lax.optimization_barrier((carry, part))
        more, stats = of_part(variables._replace(batch_stats=stats), part)
        return (jax.tree.map(jnp.add, sums, more), stats), None

    shapes, _ = jax.eval_shape(of_part, variables, first)
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
    # Inside a loop, XLA's convolutions on CPU take more than ten times as long.
    unroll = jax.default_backend() == "cpu"
    carry, _ = jax.lax.scan(add, (zeros, variables.batch_stats), stacked, unroll=unroll)
    return carry


def _sums(backward: Backward) -> PyTree:
    return backward.losses, backward.counts, backward.gradients


def _mean(network: Network, sums: PyTree, batch_stats: PyTree) -> Backward:
    """Returns the results of the whole batch from its sums, without cotangents."""
    losses, counts, heads = sums
    divisors = passes.divisors_of(counts)
    heads = {
        task.name: jax.tree.map(lambda x, i=i: x / divisors[i], heads[task.name])
        for i, task in enumerate(network.tasks)
    }
    return Backward(losses / divisors, counts, None, heads, batch_stats)


def _divided(each: PyTree, divisors: jax.Array) -> PyTree:
    return jax.tree.map(lambda x: x / gradients.per_task(divisors, x), each)
