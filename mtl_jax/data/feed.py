"""From a split to training batches on the devices, out of files, host memory or device memory."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mtl_jax import parallel
from mtl_jax.data import batches
from mtl_jax.data.batches import Arrays, Chosen
from mtl_jax.data.splits import Dataset
from mtl_jax.data.stream import Make
from mtl_jax.tasks import Batch, Entry, Task

CACHES = ("none", "host", "device")
# Largest fraction of a device's memory for images; the rest is for the network and activations.
LARGEST_SHARE = 0.6


class Feed(NamedTuple):
    """The batches of a training run.

    Attributes:
      at: step -> its sharded batch, always the same one.
      steps_per_epoch: number of whole batches of the split's images, see `batches.steps_per_epoch`.
      batch_size: images per step, over all devices.
    """

    at: Callable[[int], Batch]
    steps_per_epoch: int
    batch_size: int


def make_feed(
    dataset: Dataset,
    tasks: Sequence[Task],
    *,
    cache: str,
    batch_size: int,
    labelled_per_batch: int | None,
    seed: int,
    devices: Sequence[jax.Device],
) -> Feed:
    """Makes the feed of a training run; its batches are the same for every cache.

    Args:
      dataset: the split to train on, or one with a stream of images that are trained on instead.
      cache: "none" reads each image when it is needed; "host" reads all first and keeps them in
        host memory; "device" keeps them on every device, where batches are gathered.
      batch_size: images per step, over all devices.
      labelled_per_batch: see `batches.chosen_at`.
      seed: seed of the order.
      devices: devices, each of which takes an equal part of a batch.

    Raises:
      ValueError: for an unknown cache, a batch size that gives no step, or a split that is too
        large for a device.
    """
    if cache not in CACHES:
        raise ValueError(f"`cache`={cache}: choose from {', '.join(CACHES)}")
    names = batches.training_entries(tasks)
    if dataset.stream is not None:
        make = dataset.stream.maker(names, devices)
        return stream_feed(make, dataset.stream.images, batch_size=batch_size, seed=seed)
    number = batches.steps_per_epoch(dataset, batch_size)

    def chosen_at(step: int) -> Chosen:
        chosen = batches.chosen_at(
            dataset,
            tasks,
            batch_size=batch_size,
            seed=seed,
            step=step,
            labelled_per_batch=labelled_per_batch,
        )
        return parallel.own_part(chosen, devices)

    if cache != "none":
        dataset = batches.in_memory(dataset, names)
    if cache != "device":

        def read(step: int) -> Batch:
            return parallel.shard(batches.load(dataset, tasks, chosen_at(step)), devices)

        return Feed(read, number, batch_size)
    held = parallel.replicate(fitting(dataset, names, devices[0]), devices)
    withheld = [entry for entry in batches.entries_of(tasks).values() if entry.withheld]

    def gather_chosen(held: Batch, chosen: Chosen) -> dict[str, jax.Array]:
        return hide({name: array[chosen.places] for name, array in held.items()}, chosen, withheld)

    gather = parallel.data_parallel(gather_chosen, devices, out_axes=0)

    def gathered(step: int) -> Batch:
        chosen = jax.tree.map(lambda x: x.astype(np.int32), chosen_at(step))
        return gather(held, parallel.shard(chosen, devices))

    return Feed(gathered, number, batch_size)


def stream_feed(make: Make, images: int, *, batch_size: int, seed: int) -> Feed:
    """Makes the feed of batches that are made one after the other.

    Args:
      make: makes a batch.
      images: number of images in an epoch.
      batch_size: images per step, over all devices.
      seed: seed of the images.

    Raises:
      ValueError: for a batch size that gives no step.
    """
    number = batches.steps_per_epoch(range(images), batch_size)

    def made(step: int) -> Batch:
        epoch, index = divmod(step, number)
        return make(seed, epoch, index * batch_size + np.arange(batch_size))

    return Feed(made, number, batch_size)


def cached(
    splits: Mapping[str, Dataset], tasks: Sequence[Task], *, cache: str
) -> dict[str, Dataset]:
    """Returns the splits, read once into host memory unless `cache` is "none"."""
    if cache == "none":
        return dict(splits)
    names = batches.evaluation_entries(tasks)
    return {name: batches.in_memory(split, names) for name, split in splits.items()}


def fitting(dataset: Dataset, entries: Sequence[str], device: jax.Device) -> Arrays:
    """Returns these entries of all examples, stacked.

    Raises:
      ValueError: if they leave too little memory on a device.
    """
    arrays = batches.batch_of(dataset.source, entries)
    size = sum(array.nbytes for array in arrays.values())
    limit = (device.memory_stats() or {}).get("bytes_limit")
    if limit is not None and size > LARGEST_SHARE * limit:
        raise ValueError(
            f"`cache`=device: the training images take {size / 2**30:.1f} GiB, and {device} has "
            f"{limit / 2**30:.1f}, which the network needs, too; use `cache`=host"
        )
    return arrays


def hide(batch: Batch, chosen: Chosen, withheld: Sequence[Entry]) -> dict[str, jax.Array]:
    """Returns a stored batch without the withheld labels that it must not show; for use in jit."""
    hidden = dict(batch)
    for entry in withheld:
        if entry.name in batch:
            labels = batch[entry.name]
            shown = jnp.expand_dims(chosen.shown != 0, range(1, labels.ndim))  # [B, 1, ...]
            hidden[entry.name] = jnp.where(shown, labels, jnp.full_like(labels, entry.missing))
    return hidden
