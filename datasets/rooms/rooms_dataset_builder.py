"""TFDS builder of `rooms`: it renders its own data, and needs neither a download nor TensorFlow."""

import dataclasses
import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import tensorflow_datasets as tfds

from datasets import preparing
from datasets.rooms import endless
from datasets.rooms.primitives import CLASS_NAMES
from datasets.rooms.render import render_batch, stored
from datasets.streaming import StreamingBuilder, tensor
from mtl_jax.data import Stream

# Views rendered at a time, or fewer where a batch would have more pixels than this.
BATCH, BATCH_PIXELS = 8, 600_000
# After compression a view takes about 7 bytes per pixel, of 15.
BYTES_PER_PIXEL = 7
# Test scenes are counted from here, so that no number of training examples reaches them.
FIRST_TEST_INDEX = 1 << 30
# Most training views that are prepared if a training run renders its own.
SAMPLE = 200


@dataclasses.dataclass(eq=False, kw_only=True)
class RoomsConfig(tfds.core.BuilderConfig):
    """Size and look of the images, size of the splits, and the seed that all rooms come from.

    `stream` is the number of views that a training run renders per epoch, 0 if it reads them.
    """

    height: int
    width: int
    train: int
    test: int
    seed: int
    stream: int
    textures: bool
    light: bool

    def look(self) -> dict[str, Any]:
        """Returns the keyword arguments that the images are rendered with."""
        names = ("height", "width", "textures", "light")
        return {name: getattr(self, name) for name in names}


def config(
    height: int = 96,
    width: int = 128,
    train: int = 1000,
    test: int = 200,
    seed: int = 0,
    stream: bool = False,
    textures: bool = True,
    light: bool = True,
) -> RoomsConfig:
    """Returns a config, named by what differs from the default, as in `240x320-5000+500-seed1`.

    The name is that of the prepared views, and says nothing about those rendered in training.

    Args:
      height: of the images in pixels, 16..1024.
      width: of the images in pixels, 16..1024.
      train: number of training views, at least 1.
      test: number of test views, at least 1.
      seed: 0..2**31 - 1; another seed makes other rooms.
      stream: whether a training run renders `train` new views per epoch. At most `SAMPLE` views are
        then prepared.
      textures: whether surfaces have patterns; otherwise each has a single colour.
      light: whether the rooms are lit, with shading and shadows; otherwise a surface looks the same
        wherever it is.

    Raises:
      ValueError: for a number out of these ranges.
    """
    for name, value in (("height", height), ("width", width)):
        _check(name, value, 16, 1024)
    for name, value in (("train", train), ("test", test)):
        _check(name, value, 1, FIRST_TEST_INDEX)
    _check("seed", seed, 0, 2**31 - 1)
    prepared = min(train, SAMPLE) if stream else train
    return _config(
        height, width, prepared, test, seed, train if stream else 0, bool(textures), bool(light)
    )


# TFDS distinguishes its own configs from a user's by identity, so equal choices are one object.
@functools.cache
def _config(
    height: int,
    width: int,
    train: int,
    test: int,
    seed: int,
    stream: int,
    textures: bool,
    light: bool,
) -> RoomsConfig:
    name = f"{height}x{width}"
    if (train, test) != (1000, 200):
        name += f"-{train}+{test}"
    if seed:
        name += f"-seed{seed}"
    name += "" if textures else "-plain"
    name += "" if light else "-unlit"
    return RoomsConfig(
        name=name,
        description=f"{train} training and {test} test views of "
        f"{height} x {width} pixels, seed {seed}.",
        height=height,
        width=width,
        train=train,
        test=test,
        seed=seed,
        stream=stream,
        textures=textures,
        light=light,
    )


def _check(name: str, value: int, low: int, high: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise ValueError(f"rooms: {name} must be a whole number in {low}..{high}, got {value!r}")


def prepare(builder: "Builder", manual_dir: str | Path | None = None) -> None:
    """Renders the set if necessary; leaves nothing behind on failure.

    Args:
      builder: of any config; its data_dir is where the set goes.
      manual_dir: not used, since nothing is downloaded.

    Raises:
      ValueError: in one line, for a data_dir that holds something else.
      OSError: in one line, for a data_dir that can't be written or a full disk.
    """
    del manual_dir
    preparing.prepare(builder, bytes_per_pixel=BYTES_PER_PIXEL)


class Builder(StreamingBuilder):
    """Indoor rooms with exact segmentation, depth, normals and a right-hand view."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First release."}
    BUILDER_CONFIGS = [config()]

    def _info(self) -> tfds.core.DatasetInfo:
        shape = (self.builder_config.height, self.builder_config.width)
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict(
                {
                    "image": tensor((*shape, 3), np.uint8),
                    "image_right": tensor((*shape, 3), np.uint8),
                    "segmentation": tensor(shape, np.int8),
                    "depth": tensor(shape, np.float16),
                    "normals": tensor((*shape, 3), np.float16),
                    "intrinsics": tfds.features.Tensor(shape=(4,), dtype=np.float32),
                    "baseline": tfds.features.Tensor(shape=(), dtype=np.float32),
                }
            ),
            supervised_keys=None,
            # The order is that of the indices; rooms are random in any case.
            disable_shuffling=True,
            metadata=tfds.core.MetadataDict(class_names=list(CLASS_NAMES)),
        )

    def split_sizes(self) -> dict[str, int]:
        """Returns the number of views of each split."""
        chosen = self.builder_config
        return {"train": chosen.train, "test": chosen.test}

    def stream(self) -> Stream | None:
        """Returns the views that a training run renders; None if it reads them."""
        chosen = self.builder_config
        maker = functools.partial(endless.maker, data_seed=chosen.seed, **chosen.look())
        return Stream(chosen.stream, maker) if chosen.stream else None

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator]:
        del dl_manager  # nothing to download
        first = {"train": 0, "test": FIRST_TEST_INDEX}
        sizes = self.split_sizes()
        return {split: self._generate_examples(first[split], sizes[split]) for split in sizes}

    def _generate_examples(self, first: int, count: int) -> Iterator[tuple[int, dict[str, Any]]]:
        chosen = self.builder_config
        batch = max(1, min(BATCH, BATCH_PIXELS // (chosen.height * chosen.width)))
        for start in range(0, count, batch):
            # The last batch may go past the end, so that one shape is compiled once.
            indices = np.arange(first + start, first + start + batch, dtype=np.int32)
            views = render_batch(chosen.seed, indices, **chosen.look())
            views = jax.device_get(stored(views))
            for row in range(min(batch, count - start)):
                yield start + row, {name: array[row] for name, array in views.items()}
