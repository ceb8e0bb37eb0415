"""Forward and backward passes of a batch, reduced over the devices."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from mtl_jax import models, parallel
from mtl_jax.models import Network, Variables
from mtl_jax.tasks import Batch, Task, with_predictions
from mtl_jax.weighting import gradients
from mtl_jax.weighting.contract import PyTree


class Backward(NamedTuple):
    """Results of the heads' backward passes.

    Attributes:
      losses: f32[K], means over the labelled pixels of the whole batch.
      counts: f32[K], the number of those pixels.
      cotangents: gradients of the losses at this device's features, leaves [K, ...].
      gradients: task name -> gradient of its loss in its own head's parameters.
      batch_stats: new running statistics, of the heads alone by task name or of the network.
    """

    losses: jax.Array
    counts: jax.Array
    cotangents: PyTree
    gradients: dict[str, PyTree]
    batch_stats: dict[str, PyTree]

    @property
    def labelled(self) -> jax.Array:
        """Returns whether the batch has labels of each task, bool[K]."""
        return self.counts > 0


def differentiate(
    network: Network, variables: Variables, batch: Batch, divisors: jax.Array | None = None
) -> tuple[gradients.Pullback, Backward]:
    """Makes one forward pass and backward passes through the heads, but not yet through the trunk.

    Args:
      batch: decoded, of this device.
      divisors: f32[K], what the sums of the losses are divided by; None for `Backward.counts`.

    Returns:
      The trunk's pullback on this device's images, and the results of the heads' backward passes.
    """
    params, batch_stats = variables
    features, pullback, trunk_stats = jax.vjp(
        lambda trunk: models.apply_trunk(network, trunk, batch_stats["trunk"], batch["image"]),
        params["trunk"],
        has_aux=True,
    )
    backward = backward_heads(network, variables, features, batch, divisors)
    new_stats = {"trunk": trunk_stats, "heads": backward.batch_stats}
    return pullback, backward._replace(batch_stats=new_stats)


def backward_heads(
    network: Network,
    variables: Variables,
    features: PyTree,
    batch: Batch,
    divisors: jax.Array | None,
) -> Backward:
    """Makes forward and backward passes through each head alone, by its own task's loss."""
    params, batch_stats = variables.params["heads"], variables.batch_stats["heads"]
    predictions, pullbacks, new_stats = {}, {}, {}
    for task in network.tasks:

        def predict(head: PyTree, features: PyTree, task: Task = task) -> tuple[jax.Array, PyTree]:
            stats = batch_stats[task.name]
            return models.apply_head(network, task, head, stats, features, batch)

        name = task.name
        predictions[name], pullbacks[name], new_stats[name] = jax.vjp(
            predict, params[name], features, has_aux=True
        )
    seen = with_predictions(batch, network.tasks, predictions)
    losses, counts, cotangents, grads = [], [], [], {}
    for i, task in enumerate(network.tasks):
        value_and_gradient = jax.value_and_grad(local_loss, has_aux=True)
        divisor = None if divisors is None else divisors[i]
        (loss, count), gradient = value_and_gradient(predictions[task.name], task, seen, divisor)
        grads[task.name], cotangent = pullbacks[task.name](gradient)
        losses.append(loss)
        counts.append(count)
        cotangents.append(cotangent)
    losses, grads = parallel.total((jnp.stack(losses), grads))
    stacked = jax.tree.map(lambda *each: jnp.stack(each), *cotangents)
    return Backward(losses, jnp.stack(counts), stacked, grads, new_stats)


def local_loss(
    prediction: jax.Array, task: Task, batch: Batch, divisor: jax.Array | None = None
) -> tuple[jax.Array, jax.Array]:
    """Returns this device's part of a task's mean loss, and the labels on all devices.

    Args:
      divisor: f32[], what the sum of the loss is divided by; None for the labels on all devices.
    """
    total, count = task.loss(prediction, batch)
    count = parallel.total(count)
    return total / (divisors_of(count) if divisor is None else divisor), count


def divisors_of(counts: jax.Array) -> jax.Array:
    """Returns what sums of losses are divided by: their counts, or 1 where there is no label."""
    return jnp.where(counts > 0, counts, 1.0)


def forward_losses(network: Network, variables: Variables, batch: Batch) -> jax.Array:
    """Returns the losses f32[K] that `differentiate` finds, by a forward pass alone."""
    params, batch_stats = variables
    features, _ = models.apply_trunk(network, params["trunk"], batch_stats["trunk"], batch["image"])
    predictions = {}
    for task in network.tasks:
        head, stats = params["heads"][task.name], batch_stats["heads"][task.name]
        predictions[task.name], _ = models.apply_head(network, task, head, stats, features, batch)
    seen = with_predictions(batch, network.tasks, predictions)
    losses = [local_loss(predictions[task.name], task, seen)[0] for task in network.tasks]
    return parallel.total(jnp.stack(losses))


def trunk_gradients(pullback: gradients.Pullback, backward: Backward) -> PyTree:
    """Returns all K gradients of the trunk over all devices, leaves [K, ...]."""
    each = gradients.pull_back(pullback, backward.cotangents)
    return parallel.total(each)


def feature_gram(backward: Backward) -> jax.Array:
    """Returns inner products f32[K, K] of the losses' gradients at the whole batch's features."""
    # Each image has its own features, so the devices' matrices can be summed here.
    return parallel.total(gradients.gram(backward.cotangents))


def thirds(batch: Batch) -> list[dict[str, jax.Array]]:
    """Divides a batch in three, each part with every third image.

    Each part then holds the same images on any number of devices, and where the labelled images of
    a batch stand first, three of them are enough for each part to have one.
    """
    return [jax.tree.map(lambda x, first=first: x[first::3], batch) for first in range(3)]
