"""Endless training images, made on the devices in front of each step."""

from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple

import jax
import numpy as np

from mtl_jax.tasks import Batch

# (seed of a training run, epoch, places i64[B] in that epoch) -> a batch in stored types, spread
# over the devices as by `parallel.shard`.
Make = Callable[[int, int, np.ndarray], Batch]


class Stream(NamedTuple):
    """Training images that are made when they are needed, new ones in every epoch.

    They replace those of the split `train` in training alone: the classes are counted and images
    held out from that split, as for any data set.

    Attributes:
      images: number of images in an epoch.
      maker: (names of entries, devices) -> the function that makes batches with these entries. An
        image depends only on seed, epoch and its place in the epoch, not on the batch or the
        devices, and has all labels.
    """

    images: int
    maker: Callable[[Collection[str], Sequence[jax.Device]], Make]
