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
      entries: names of what an example holds, of which something is known.
      data: differs if the files of a set of one's own do; "" for a set that its settings determine.
      advice: name of an entry that it lacks -> how the data set can have it.
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
        """Returns the number of images of an epoch, if that many are held out."""
        return self.train - validation if self.stream is None else self.stream.images
