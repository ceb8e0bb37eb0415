"""Data parallelism over the devices of one process or of several by `jax.pmap`.

The state goes in and out as one ordinary pytree, the batch's leading axis is spread over the
devices; one device goes the same way as eight. Each process feeds its own devices.
"""

import os
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


def total(tree: Any) -> Any:
    """The sum of a pytree over all devices, to be called in what is mapped over them.

    One device's part is the sum, which spares a copy of all gradients: XLA would make one.
    """
    return tree if jax.lax.psum(1, AXIS) == 1 else jax.lax.psum(tree, AXIS)


def join(coordinator: str, processes: int | None, index: int | None) -> None:
    """Makes this process one of several; must come before anything asks for a device.

    Args:
      coordinator: host:port of process 0, or "auto" where Slurm, Open MPI, Kubernetes or a TPU pod
        tells.
      processes: how many there are; None where that is told.
      index: which one this is; None where that is told.

    Raises:
      ValueError: if they do not find each other, or the address has no port.
    """
    if coordinator != "auto" and ":" not in coordinator:
        raise ValueError(f"--coordinator={coordinator}: give HOST:PORT of process 0, or auto")
    try:
        if coordinator == "auto":
            jax.distributed.initialize()
        else:
            jax.distributed.initialize(coordinator, processes, index)
    except (ValueError, RuntimeError) as error:
        raise ValueError(
            f"--coordinator={coordinator}: {str(error).strip().splitlines()[0]}; give HOST:PORT of "
            "process 0, --num_processes and --process_id, the first two alike for all"
        ) from error


def own_part(batch: Any, devices: Sequence[jax.Device]) -> Any:
    """The rows of arrays [B, ...] that this process's devices take."""
    own = [i for i, device in enumerate(devices) if device.process_index == jax.process_index()]

    def rows(x: np.ndarray) -> np.ndarray:
        return x.reshape(len(devices), -1, *x.shape[1:])[own].reshape(-1, *x.shape[1:])

    return jax.tree.map(rows, batch)


def shard(batch: Any, devices: Sequence[jax.Device]) -> Any:
    """Arrays [b, ...] of this process as [devices, B / devices, ...], each part on its device.

    Args:
      batch: the process's own part of B rows, which of a single process is all of them.
      devices: of all processes.

    Raises:
      ValueError: if the devices don't divide the batch.
    """
    sharding = _sharding(devices, AXIS)
    own = sum(device.process_index == jax.process_index() for device in devices)

    def put(x: np.ndarray) -> jax.Array:
        parts = x.reshape(own, -1, *x.shape[1:])
        return jax.make_array_from_process_local_data(sharding, parts)

    return jax.tree.map(put, batch)


def replicate(tree: Any, devices: Sequence[jax.Device]) -> Any:
    """A pytree on all of this process's devices, laid out as `data_parallel` returns its outputs.

    A state that goes in as it came out of the step before spares a second compilation.
    """
    own = [device for device in devices if device.process_index == jax.process_index()]
    return jax.device_put(tree, _sharding(own))


def across_processes(tree: Any) -> Any:
    """A pytree that every process has, as arrays of all their devices: so orbax wants them."""
    if jax.process_count() == 1:
        return tree
    return jax.device_put(jax.device_get(tree), _sharding(jax.devices()))


def _sharding(devices: Sequence[jax.Device], *axes: str) -> jax.sharding.NamedSharding:
    mesh = jax.sharding.Mesh(np.array(devices), (AXIS,))
    return jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(*axes))


def check_devices() -> None:
    """Makes sure that JAX finds devices of the platform that it is to use.

    Raises:
      ValueError: if it finds none.
    """
    try:
        jax.devices()
    # JAX asserts that the platform that JAX_PLATFORMS names was found.
    except (AssertionError, RuntimeError) as error:
        platforms = os.environ.get("JAX_PLATFORMS")
        advice = (
            f"JAX_PLATFORMS={platforms} asks for one; unset the variable to use what is there"
            if platforms
            else " ".join(str(error).split())[:200]
        )
        raise ValueError(f"JAX finds no device that it could use: {advice}") from error


def choose_devices(count: int, *batch_sizes: int) -> list[jax.Device]:
    """The first `count` devices, all of them for 0; of several processes only all of them.

    Args:
      count: of devices.
      batch_sizes: that they must divide.

    Raises:
      ValueError: if there are fewer, or if they don't divide a batch.
    """
    devices = jax.devices()
    if count and jax.process_count() > 1:
        raise ValueError(f"--devices={count}: of several processes all devices take part; set 0")
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
