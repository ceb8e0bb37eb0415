"""Data parallelism over the devices of one process or of several by `jax.pmap`.

The state goes in and out as one ordinary pytree, and the batch's leading axis is spread over the
devices. One device and eight use the same code. Each process feeds its own devices.
"""

import os
from collections import Counter
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from mtl_jax.weighting.contract import PyTree

AXIS = "devices"


def data_parallel(
    function: Callable[[PyTree, PyTree], PyTree],
    devices: Sequence[jax.Device],
    *,
    donate: bool = False,
    out_axes: int | None = None,
) -> jax.stages.Wrapped:
    """Maps (state, batch) -> outputs over the devices and compiles it.

    Args:
      function: pure function that gets its device's part of the batch and reduces over `AXIS`.
      devices: devices to run on.
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


def one_device(function: Callable[[PyTree, PyTree], PyTree]) -> Callable[[PyTree, PyTree], PyTree]:
    """Returns a function (state, batch) -> outputs of one device that needs no pmap.

    It binds `AXIS` to an axis of length one, so that the function can be called directly, step by
    step in a debugger, or within `jax.jit`. The arrays inside have one more axis, which makes it
    slower than `data_parallel`.
    """
    mapped = jax.vmap(function, in_axes=(None, 0), axis_name=AXIS)

    def call(state: PyTree, batch: PyTree) -> PyTree:
        outputs = mapped(state, jax.tree.map(lambda x: x[None], batch))
        return jax.tree.map(lambda x: x[0], outputs)

    return call


def total(tree: PyTree) -> PyTree:
    """Returns the sum of a pytree over all devices; to be called in a function mapped over them.

    On one device its part is the sum, which saves the copy of all gradients that XLA would make.
    """
    return tree if jax.lax.psum(1, AXIS) == 1 else jax.lax.psum(tree, AXIS)


def join(coordinator: str, num_processes: int | None, process_id: int | None) -> None:
    """Makes this process one of several; must come before anything asks for a device.

    Args:
      coordinator: host:port of process 0, or "auto" where Slurm, Open MPI, Kubernetes or a TPU pod
        knows all three.
      num_processes: number of processes.
      process_id: number of this process, from 0.

    Raises:
      ValueError: if they do not find each other, or the address has no port.
    """
    if coordinator != "auto" and ":" not in coordinator:
        raise ValueError(f"`coordinator`={coordinator}: give HOST:PORT of process 0, or auto")
    try:
        if coordinator == "auto":
            jax.distributed.initialize()
        else:
            jax.distributed.initialize(coordinator, num_processes, process_id)
    except (ValueError, RuntimeError) as error:
        raise ValueError(
            f"`coordinator`={coordinator}: {str(error).strip().splitlines()[0]}; give HOST:PORT of "
            "process 0, `num_processes` and `process_id`, the first two the same for all"
        ) from error


def own_part(batch: PyTree, devices: Sequence[jax.Device]) -> PyTree:
    """Returns the rows of arrays [B, ...] that this process's devices take."""
    own = [i for i, device in enumerate(devices) if device.process_index == jax.process_index()]

    def rows(x: np.ndarray) -> np.ndarray:
        return x.reshape(len(devices), -1, *x.shape[1:])[own].reshape(-1, *x.shape[1:])

    return jax.tree.map(rows, batch)


def shard(batch: PyTree, devices: Sequence[jax.Device]) -> PyTree:
    """Puts arrays [b, ...] of this process as [devices, B / devices, ...] on their devices.

    Args:
      batch: the process's own part of B rows; a single process has all of them.
      devices: devices of all processes.

    Raises:
      ValueError: if the devices don't divide the batch.
    """
    sharding = _sharding(devices, AXIS)
    own = sum(device.process_index == jax.process_index() for device in devices)

    def put(x: np.ndarray) -> jax.Array:
        parts = x.reshape(own, -1, *x.shape[1:])
        return jax.make_array_from_process_local_data(sharding, parts)

    return jax.tree.map(put, batch)


def replicate(tree: PyTree, devices: Sequence[jax.Device]) -> PyTree:
    """Puts a pytree on all of this process's devices, as `data_parallel` returns its outputs.

    A state in the form that a step returns saves a second compilation.
    """
    own = [device for device in devices if device.process_index == jax.process_index()]
    return jax.device_put(tree, _sharding(own))


def across_processes(tree: PyTree) -> PyTree:
    """Makes a pytree that every process has into arrays of all their devices, as orbax needs."""
    if jax.process_count() == 1:
        return tree
    return jax.device_put(jax.device_get(tree), _sharding(jax.devices()))


def _sharding(devices: Sequence[jax.Device], *axes: str) -> jax.sharding.NamedSharding:
    mesh = jax.sharding.Mesh(np.array(devices), (AXIS,))
    return jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(*axes))


def check_devices() -> None:
    """Checks that JAX finds devices of the platform that it should use.

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


def choose_devices(devices: int, *batch_sizes: int) -> list[jax.Device]:
    """Returns the first devices, or with several processes all of them.

    Args:
      devices: number of devices; 0 takes all of them.
      batch_sizes: images per step, which the devices must divide.

    Raises:
      ValueError: if there are fewer, if they don't divide a batch, or for a number of devices other
        than 0 with several processes.
    """
    found = jax.devices()
    if devices and jax.process_count() > 1:
        raise ValueError(f"`devices`={devices}: several processes always use all devices; set 0")
    if not 0 <= devices <= len(found):
        raise ValueError(f"`devices`={devices}: devices here: {len(found)} (0 takes all of them)")
    chosen = found[: devices or len(found)]
    for batch_size in batch_sizes:
        if batch_size < 1 or batch_size % len(chosen):
            raise ValueError(
                f"a batch of {batch_size} does not spread evenly over {len(chosen)} devices: set "
                "`batch_size` and `eval_batch_size` to positive multiples of that, or `devices`"
            )
    return chosen


def kinds(devices: Sequence[jax.Device]) -> str:
    """Returns how many devices of which kind there are, such as `4 x NVIDIA H100 80GB HBM3`."""
    counts = Counter(device.device_kind for device in devices)
    return ", ".join(f"{count} x {kind}" for kind, count in counts.items())


def per_image_keys(key: jax.Array, local_batch: int) -> jax.Array:
    """Returns a PRNG key for each image of this device's part, by its place in the whole batch."""
    first = jax.lax.axis_index(AXIS) * local_batch
    places = first + jnp.arange(local_batch)
    return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, places)
