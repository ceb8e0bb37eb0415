"""Rooms without end: the batches of a training, rendered on its devices, each of new rooms."""

from collections.abc import Callable, Collection, Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from datasets.rooms import render
from mtl_jax import parallel
from mtl_jax.tasks import Batch

# The rooms of a prepared set have numbers below 2**31, so that this is none of theirs.
SERIES = 2**32 - 1


def renderer(
    entries: Collection[str],
    devices: Sequence[jax.Device],
    *,
    data_seed: int,
    height: int,
    width: int,
) -> Callable[[int, int, np.ndarray], Batch]:
    """Returns the function that renders batches; see `mtl_jax.data.Stream`.

    Args:
      entries: names of what the batches must hold; without `image_right` they cost half as much.
      devices: devices, each of which renders its part of a batch.
      data_seed: of the data set.
      height, width: of the pictures in pixels.
    """
    cameras = 2 if "image_right" in entries else 1
    stages = render.stages(height=height, width=width, cameras=cameras)

    def scenes(numbers, places):
        return stages.scenes(keys(data_seed, *numbers, places))

    def on_devices(stage):
        return parallel.data_parallel(lambda _, batch: stage(*batch), devices, out_axes=0)

    first = parallel.data_parallel(scenes, devices, out_axes=0)
    looks, radiances, develop = map(on_devices, stages[1:])

    def make(seed: int, epoch: int, places: np.ndarray) -> Batch:
        own = parallel.own_part(places.astype(np.int32), devices)
        numbers = np.int32(seed), np.int32(epoch)
        rooms, noise_keys = first(numbers, parallel.shard(own, devices))
        surfaces = looks((), (rooms,))
        colours = radiances((), (rooms, surfaces))
        views = develop((), (noise_keys, rooms, surfaces, colours))
        return {name: views[name] for name in entries}

    return make


def keys(data_seed: int, seed: jax.Array, epoch: jax.Array, places: jax.Array) -> jax.Array:
    """Returns the keys [B] of the rooms at places i32[B] of an epoch of a training.

    Args:
      data_seed: of the data set.
      seed: i32[], of the training.
      epoch: i32[], from 0.
      places: from 0.
    """
    key = jax.random.key(data_seed)
    for number in (SERIES, seed, epoch):
        key = jax.random.fold_in(key, number)
    return jax.vmap(partial(jax.random.fold_in, key))(places)
