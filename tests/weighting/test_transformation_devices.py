"""The weightings as optax transformations: the gradients of several devices."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtl_jax.weighting import (
    METHODS,
    combine_tasks,
    task_gradients,
    weighted_gradient,
)
from tests.weighting.trees import LOSSES, PARAMS, PRESENT, ROWS, close, flat, stacked


@pytest.mark.parametrize("labelled", [None, np.array([PRESENT, PRESENT[[2, 0, 1]]])])
@pytest.mark.parametrize("name", ["imtl_g", pytest.param("uw", marks=pytest.mark.slow)])
def test_devices_weigh_the_mean_of_their_gradients(name, labelled):
    tx = combine_tasks(METHODS[name](), num_tasks=3, axis_name="devices")
    alone = combine_tasks(METHODS[name](), num_tasks=3)
    state, gradients = tx.init(PARAMS), jax.vmap(stacked)(ROWS)
    update = jax.pmap(
        lambda gradients, losses, labelled: tx.update(
            gradients, state, losses=losses, labelled=labelled
        ),
        axis_name="devices",
        devices=jax.devices()[:2],
    )
    found, after = update(gradients, LOSSES, labelled)
    share = np.ones((2, 3)) if labelled is None else labelled
    share = np.float32(share / share.sum(axis=0))
    mean = stacked(np.einsum("dk,dkn->kn", share, ROWS))
    expected = alone.update(mean, state, losses=(share * LOSSES).sum(axis=0))
    for device in range(2):
        close(jax.tree.map(lambda x, d=device: x[d], (found, after)), expected, rtol=1e-4)

    def losses_of(x, rows, losses):
        return losses + rows @ x

    one = jax.pmap(
        lambda rows, losses, labelled: weighted_gradient(
            partial(losses_of, rows=rows, losses=losses), jnp.zeros(3), state.weights,
            labelled=labelled, axis_name="devices",
        ),
        axis_name="devices",
        devices=jax.devices()[:2],
    )  # fmt: skip
    losses, gradient = one(ROWS, LOSSES, labelled)
    np.testing.assert_allclose(gradient[0], flat(mean_of(mean)), rtol=1e-5)
    np.testing.assert_allclose(losses[1], (share * LOSSES).sum(axis=0), rtol=1e-6)


@pytest.mark.slow
def test_devices_may_be_those_of_shard_map():
    mesh = jax.make_mesh((2,), ("devices",), axis_types=(jax.sharding.AxisType.Auto,))
    tx = combine_tasks("nash", num_tasks=3, axis_name="devices")
    alone = combine_tasks("nash", num_tasks=3)

    def step(x, inputs, tx):
        losses, gradients = task_gradients(lambda x: jnp.mean((inputs - x) ** 2, axis=0), x)
        return tx.update(gradients, tx.init(x), x, losses=losses)

    specs = jax.sharding.PartitionSpec(), jax.sharding.PartitionSpec("devices")
    sharded = jax.shard_map(
        partial(step, tx=tx), mesh=mesh, in_specs=specs, out_specs=specs[0], check_vma=False
    )
    x, inputs = jnp.array([1.0, 2.0, -1.0]), jnp.concatenate(jnp.array(ROWS))[:4]
    found, expected = jax.jit(sharded)(x, inputs), step(x, inputs, alone)
    close((found[0], found[1].weights), (expected[0], expected[1].weights), rtol=1e-5)


def mean_of(gradients):
    """The sum of the tasks' gradients: all weights are one before the first update."""
    return jax.tree.map(lambda g: jnp.sum(g, axis=0), gradients)
