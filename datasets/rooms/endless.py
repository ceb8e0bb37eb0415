"""Endless rooms: the batches of a training run, rendered on its devices, each of new rooms."""

from collections.abc import Collection, Sequence
from functools import partial

import jax
import numpy as np

from datasets.rooms.render import make_renderer, stored
from mtl_jax import parallel
from mtl_jax.data.stream import Make
from mtl_jax.tasks import Batch

# The rooms of a prepared set have numbers below 2**31, so none of them has this one.
SERIES = 2**32 - 1


def maker(
    entries: Collection[str],
    devices: Sequence[jax.Device],
    *,
    data_seed: int,
    height: int,
    width: int,
    textures: bool = True,
    light: bool = True,
) -> Make:
    """Makes the function that renders batches; see `mtl_jax.data.Stream`.

    Args:
      entries: names of the entries of a batch; without `image_right` it costs half as much.
      devices: devices, each of which renders its part of a batch.
      data_seed: of the data set.
      height, width: of the images in pixels.
      textures, light: as in `datasets.rooms.render.render`.
    """
    cameras = 2 if "image_right" in entries else 1
    look = {"cameras": cameras, "textures": textures, "light": light}
    renderer = make_renderer(tuple(devices), height=height, width=width, **look)
    keys_of = parallel.data_parallel(partial(keys, data_seed), devices, out_axes=0)
    store = parallel.data_parallel(lambda _, views: stored(views), devices, out_axes=0)

    def make(seed: int, epoch: int, places: np.ndarray) -> Batch:
        own = parallel.own_part(places.astype(np.int32), devices)
        numbers = np.int32(seed), np.int32(epoch)
        views = store((), renderer(keys_of(numbers, parallel.shard(own, devices))))
        return {name: views[name] for name in entries}

    return make


def keys(data_seed: int, numbers: tuple[jax.Array, jax.Array], places: jax.Array) -> jax.Array:
    """Returns the keys [B] of rooms that a training run renders.

    Args:
      data_seed: of the data set.
      numbers: seed of the training run, i32[], and epoch, i32[].
      places: i32[B], in the epoch.
    """
    key = jax.random.key(data_seed)
    for number in (SERIES, *numbers):
        key = jax.random.fold_in(key, number)
    return jax.vmap(partial(jax.random.fold_in, key))(places)
