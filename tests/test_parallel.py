"""Spreading work over devices: nothing may depend on how many there are."""

import functools
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtl_jax import parallel


def test_shard_gives_each_device_its_part_in_order():
    devices = jax.local_devices()
    batch = {"image": np.arange(24).reshape(8, 3), "depth": np.arange(8.0, dtype=np.float32)}
    sharded = parallel.shard(batch, devices)
    assert sharded["image"].shape == (4, 2, 3)
    for shard in sharded["image"].addressable_shards:
        place = devices.index(shard.device)
        np.testing.assert_array_equal(shard.data[0], batch["image"][2 * place : 2 * place + 2])
    assert sharded["depth"].devices() == set(devices)


def test_shard_refuses_a_batch_that_does_not_divide():
    with pytest.raises(ValueError):
        parallel.shard(np.zeros((6, 2)), jax.local_devices())


def test_replicate_puts_all_on_every_device():
    devices = jax.local_devices()[:3]
    state = parallel.replicate(
        {"a": np.arange(3.0, dtype=np.float32), "key": jnp.ones(())}, devices
    )
    for leaf in jax.tree.leaves(state):
        assert leaf.devices() == set(devices)
        assert leaf.is_fully_replicated
    np.testing.assert_array_equal(state["a"], [0.0, 1.0, 2.0])


def test_choose_devices_takes_the_first_ones_or_all():
    assert parallel.choose_devices(2, 4, 8) == jax.local_devices()[:2]
    assert parallel.choose_devices(0, 8) == jax.local_devices()
    assert len(jax.local_devices()) == 4


@pytest.mark.parametrize(
    ("count", "batches", "message"),
    [
        (5, [8], "`devices`=5: devices here: 4"),
        (-1, [8], "`devices`=-1: devices here: 4"),
        (4, [8, 6], "a batch of 6 does not spread evenly over 4 devices"),
        (1, [0], "a batch of 0 .*positive multiples"),
        (1, [-4], "a batch of -4 .*positive multiples"),
    ],
)
def test_choose_devices_refuses(count, batches, message):
    with pytest.raises(ValueError, match=message):
        parallel.choose_devices(count, *batches)


@pytest.mark.parametrize(
    ("found", "text"),
    [
        (["cpu"], "1 x cpu"),
        (["NVIDIA H100"] * 4, "4 x NVIDIA H100"),
        (["NVIDIA L4", "NVIDIA T4", "NVIDIA L4"], "2 x NVIDIA L4, 1 x NVIDIA T4"),
    ],
)
def test_kinds_of_devices_are_counted(found, text):
    assert parallel.kinds([SimpleNamespace(device_kind=kind) for kind in found]) == text


def keys_and_mean(key, batch):
    """What a mapped function sees: each image's key, gathered, and the mean over all images."""
    keys = jax.random.key_data(parallel.per_image_keys(key, len(batch)))
    gathered = jax.lax.all_gather(keys, parallel.AXIS, tiled=True)
    return gathered, jax.lax.pmean(jnp.mean(batch), parallel.AXIS)


@functools.cache
def run_on(count):
    devices = parallel.choose_devices(count)
    batch = parallel.shard(np.arange(8, dtype=np.float32), devices)
    return jax.device_get(parallel.data_parallel(keys_and_mean, devices)(jax.random.key(5), batch))


@pytest.mark.parametrize("count", [1, 2, 4])
def test_every_device_count_gives_the_same(count):
    keys, mean = run_on(count)
    expected = [jax.random.key_data(jax.random.fold_in(jax.random.key(5), i)) for i in range(8)]
    np.testing.assert_array_equal(keys, expected)
    assert len(np.unique(keys, axis=0)) == 8
    assert mean == 3.5


def test_one_device_needs_no_pmap():
    """Neither where the function is called as it is, nor where something else compiles it."""
    batch = np.arange(8, dtype=np.float32)
    expected = run_on(1)
    call = parallel.one_device(keys_and_mean)
    for function in (call, jax.jit(call)):
        keys, mean = function(jax.random.key(5), batch)
        np.testing.assert_array_equal(keys, expected[0])
        assert mean == expected[1]
