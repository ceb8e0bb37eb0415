"""Facts about a data set that are known before it is prepared."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from mtl_jax.data.stream import Stream


class Outline(NamedTuple):
    """Facts about a data set that need none of its files.

    Attributes:
      train: number of training images in its files, including those held out.
      test: number of test images.
      image_size: height and width in pixels.
      class_names: by index; none where no labels are classes.
      channels: channels of the images: 1, 3 or 4.
      entries: names of the entries of its examples, without those that are missing everywhere.
      data: text that changes with the files of a user's own set; "" for a set that its settings
        determine.
      advice: name of an entry that it lacks -> how to add it.
      stream: training images that are made while training; None if those of the files are trained
        on.
    """

    train: int
    test: int
    image_size: tuple[int, int]
    class_names: tuple[str, ...]
    channels: int
    entries: tuple[str, ...]
    data: str = ""
    advice: Mapping[str, str] = MappingProxyType({})
    stream: Stream | None = None

    def images(self, *, validation: int) -> int:
        """Returns the number of images per epoch when `validation` images are held out."""
        return self.train - validation if self.stream is None else self.stream.images
