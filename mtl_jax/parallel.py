"""Data parallelism over the local devices by `jax.pmap`.

The state goes in and out as one ordinary pytree, the batch's leading axis is spread over the
devices; one device goes the same way as eight.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

AXIS = "devices"


def data_parallel(
    function: Callable[[Any, Any], Any],
    devices: Sequence[jax.Device],
    *,
    donate: bool = False,
    out_axes: int | None = None,
) -> Callable[[Any, Any], Any]:
    """Maps (state, batch) -> outputs over the devices.

    Args:
      function: pure; sees its device's part of the batch, reduces over `AXIS`.
      devices: on which to run.
      out_axes: None for outputs that agree on all devices; 0 for those that are parts of a batch.
      donate: whether the state's buffers may be reused for the outputs.
    """
    return jax.pmap(
        function,
        axis_name=AXIS,
        in_axes=(None, 0),
        out_axes=out_axes,
        devices=devices,
        donate_argnums=(0,) if donate else (),
    )


def shard(batch: Any, devices: Sequence[jax.Device]) -> Any:
    """Arrays [B, ...] as [devices, B / devices, ...], each part on its device.

    Raises:
      ValueError: if the devices don't divide the batch.
    """
    sharding = _sharding(devices, AXIS)

    def put(x: np.ndarray) -> jax.Array:
        return jax.device_put(x.reshape(len(devices), -1, *x.shape[1:]), sharding)

    return jax.tree.map(put, batch)


def replicate(tree: Any, devices: Sequence[jax.Device]) -> Any:
    """A pytree on all devices, laid out as `data_parallel` returns its outputs.

    A state that goes in as it came out of the step before spares a second compilation.
    """
    return jax.device_put(tree, _sharding(devices))


def _sharding(devices: Sequence[jax.Device], *axes: str) -> jax.sharding.NamedSharding:
    mesh = jax.sharding.Mesh(np.array(devices), (AXIS,))
    return jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(*axes))


def choose_devices(count: int, *batch_sizes: int) -> list[jax.Device]:
    """The first `count` local devices, all of them for 0.

    Args:
      count: of devices.
      batch_sizes: that they must divide.

    Raises:
      ValueError: if there are fewer, or if they don't divide a batch.
    """
    devices = jax.local_devices()
    if not 0 <= count <= len(devices):
        raise ValueError(f"--devices={count}: there are {len(devices)} here (0 takes them all)")
    devices = devices[: count or len(devices)]
    for batch_size in batch_sizes:
        if batch_size < 1 or batch_size % len(devices):
            raise ValueError(
                f"a batch of {batch_size} does not spread evenly over {len(devices)} devices: set "
                "--batch_size and --eval_batch_size to positive multiples of that, or --devices"
            )
    return devices


def per_image_keys(key: jax.Array, local_batch: int) -> jax.Array:
    """A PRNG key for each image of this device's part, by its place in the whole batch."""
    first = jax.lax.axis_index(AXIS) * local_batch
    places = first + jax.numpy.arange(local_batch)
    return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, places)
