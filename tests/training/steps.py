"""Steps of the tiny network, and what they are compared with: gradients of one task at a time."""

import functools

import jax
import numpy as np
import optax

from mtl_jax import data, models, parallel
from tests import fakes, tiny

SGD = optax.sgd(0.1)
SPLIT = data.open_splits(fakes.builder(train=8))["train"]


def make(method="equal", *, devices=1, batch=None, optimizer=SGD, **options):
    """A tiny run's state, compiled steps and first batch; the method by name or itself."""
    devices = jax.local_devices()[:devices]
    state = tiny.fresh_state(method, optimizer)
    if batch is None:
        batch = data.batch_at(SPLIT, tiny.TASKS, batch_size=8, seed=0, step=0)
    options = {"augment": None, **options}
    steps = tiny.steps(
        method, optimizer, batch_size=len(batch["image"]), devices=tuple(devices), **options
    )
    return parallel.replicate(state, devices), steps, parallel.shard(batch, devices)


def separate_gradients(variables, batch):
    """Each task's loss and gradient in all parameters, each by passes of its own."""
    return jax.device_get(_separate_gradients()(variables, batch))


@functools.cache
def _separate_gradients():
    network = tiny.network()

    def loss(params, task, stats, batch):
        batch = data.decode(batch, tiny.TASKS)
        features, _ = models.apply_trunk(network, params["trunk"], stats["trunk"], batch["image"])
        prediction, _ = models.apply_head(
            network, task, params["heads"][task.name], stats["heads"][task.name], features, batch
        )
        total, count = task.loss(prediction, batch)
        return total / count

    def on_device(variables, batch):
        gradient = jax.value_and_grad(loss)
        return [
            gradient(variables.params, task, variables.batch_stats, batch) for task in tiny.TASKS
        ]

    return parallel.data_parallel(on_device, jax.local_devices()[:1])


def flat(tree):
    return np.concatenate([np.ravel(x).astype(np.float64) for x in jax.tree.leaves(tree)])


def applied(before, after):
    """The gradient that SGD followed from one state to the next."""
    return jax.tree.map(lambda a, b: (np.asarray(a) - np.asarray(b)) / 0.1, before, after)


def bargain(gram):
    """Newton's method on the Nash bargain in float64."""
    a = 1 / np.sqrt(np.diag(gram))
    for _ in range(200):
        gradient = gram @ a - 1 / a
        direction = np.linalg.solve(gram + np.diag(1 / a**2), gradient)
        a = a - direction / (1 + np.sqrt(gradient @ direction))
    return a
