"""From a split to training batches on the devices: out of files, host memory or device memory."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mtl_jax import data, parallel
from mtl_jax.tasks import Task

CACHES = ("none", "host", "device")
# Of a device's memory: the rest is for the network and its activations.
LARGEST_SHARE = 0.6


class Feed(NamedTuple):
    """The training batches of a run.

    Attributes:
      at: step -> sharded batch.
      steps_per_epoch: whole batches in the split.
      batch_size: images per step, over all devices.
    """

    at: Callable[[int], Any]
    steps_per_epoch: int
    batch_size: int


def make_feed(
    dataset: data.Dataset,
    tasks: Sequence[Task],
    *,
    cache: str,
    batch_size: int,
    labelled_per_batch: int | None,
    seed: int,
    devices: Sequence[jax.Device],
) -> Feed:
    """Makes the batches of all steps; they are the same ones whatever the cache.

    Args:
      dataset: to draw from.
      tasks: to learn.
      cache: "none": each image is read when its turn comes; "host": all are read first and kept
        decoded; "device": they are kept on every device, where batches are gathered.
      batch_size: images a step, over all devices.
      labelled_per_batch: see `data.labelled_images`.
      seed: of the order.
      devices: to feed.

    Raises:
      ValueError: for an unknown cache, or a split that is too large for a device.
    """
    if cache not in CACHES:
        raise ValueError(f"`cache`={cache}: choose from {', '.join(CACHES)}")
    entries = data.training_entries(tasks)
    per_epoch = data.steps_per_epoch(dataset, batch_size)

    def chosen_at(step: int) -> data.Chosen:
        chosen = data.chosen_at(
            dataset,
            tasks,
            batch_size=batch_size,
            seed=seed,
            step=step,
            labelled=labelled_per_batch,
        )
        return parallel.own_part(chosen, devices)

    if cache != "none":
        dataset = data.in_memory(dataset, entries)
    if cache != "device":

        def load(step: int) -> Any:
            return parallel.shard(data.load(dataset, chosen_at(step), entries), devices)

        return Feed(load, per_epoch, batch_size)
    held = parallel.replicate(fitting(dataset, entries, devices[0]), devices)
    gather = parallel.data_parallel(gather_chosen, devices, out_axes=0)

    def load_on_device(step: int) -> Any:
        chosen = jax.tree.map(lambda x: x.astype(np.int32), chosen_at(step))
        return gather(held, parallel.shard(chosen, devices))

    return Feed(load_on_device, per_epoch, batch_size)


def cached(
    splits: dict[str, data.Dataset], tasks: Sequence[Task], *, cache: str
) -> dict[str, data.Dataset]:
    """Returns the splits, read once into host memory unless `cache` is "none"."""
    if cache == "none":
        return splits
    entries = data.evaluation_entries(tasks)
    return {name: data.in_memory(split, entries) for name, split in splits.items()}


def fitting(
    dataset: data.Dataset, entries: Sequence[str], device: jax.Device
) -> dict[str, np.ndarray]:
    """All examples stacked, if they leave a device room to work.

    Raises:
      ValueError: if not.
    """
    arrays = data.batch_of(dataset.source, entries)
    size = sum(array.nbytes for array in arrays.values())
    limit = (device.memory_stats() or {}).get("bytes_limit")
    if limit is not None and size > LARGEST_SHARE * limit:
        raise ValueError(
            f"`cache`=device: the training images take {size / 2**30:.1f} GiB, and {device} has "
            f"{limit / 2**30:.1f}, which the network needs, too; use `cache`=host"
        )
    return arrays


def gather_chosen(held: dict[str, jax.Array], chosen: data.Chosen) -> dict[str, jax.Array]:
    """The chosen images of this device, as `data.load` gives them."""
    batch = {name: array[chosen.places] for name, array in held.items()}
    if "segmentation" in batch:
        shown = chosen.shown[:, None, None] != 0  # [B, 1, 1]
        void = jnp.full_like(batch["segmentation"], -1)
        batch["segmentation"] = jnp.where(shown, batch["segmentation"], void)
    return batch
