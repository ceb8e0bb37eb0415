"""What is known of a data set before it is prepared."""

from typing import NamedTuple


class Outline(NamedTuple):
    """What a builder knows of its data set.

    Attributes:
      train: number of training images, those held out included.
      test: number of test images.
      image_size: height and width in pixels.
      class_names: by index; none where no labels are classes.
      entries: names of what an example holds.
    """

    train: int
    test: int
    image_size: tuple[int, int]
    class_names: tuple[str, ...]
    entries: tuple[str, ...]
