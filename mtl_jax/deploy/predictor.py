"""Predictions for photos of any size, as NumPy arrays of the photo's own size."""

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mtl_jax import models
from mtl_jax.models.network import SMALLEST_SIDE
from mtl_jax.tasks import IMAGE, Task, average_mirrored, class_colours
from mtl_jax.tasks.images import COLOURS, divided, in_grey

# What the channels of photos are, by their number.
CONTENT = {1: "grey", 3: "red, green and blue", 4: "red, green, blue and the depth of a sensor"}
# Values that are interpolated at a time: more need more memory and are no faster.
MOST_VALUES = 1 << 22


class Predictor:
    """A trained network, called on photos.

        predictor = mtl_jax.load("runs/rooms-nash-0")
        depth = predictor(photo)["depth"]  # metres, of the photo's height and width

    Photos are resized to about the area of the training images, with their aspect ratio kept, and
    the results are resized back to the size of the photos. The network is compiled once for each
    size and number of photos.

    Attributes:
      network: network with its tasks.
      variables: variables of the network.
      tasks: names of the tasks, in their order.
      units: task name -> what its numbers are: their unit and axes.
      class_names: names of the classes, by index.
      palette: colours uint8[C, 3] of the classes.
      image_size: height and width of the training images.
      channels: channels of the images that the network sees; see `tasks.images`.
      focal_length: of the training images, in widths of the image; None if it is not known.
    """

    def __init__(
        self,
        network: models.Network,
        variables: models.Variables,
        *,
        class_names: Sequence[str],
        image_size: tuple[int, int],
        focal_length: float | None = None,
    ):
        self.network = network = models.trained_at(network, image_size)
        self.variables = variables
        self.tasks = tuple(task.name for task in network.tasks)
        self.units = {task.name: task.unit for task in network.tasks}
        self.class_names = tuple(class_names)
        self.palette = class_colours(len(self.class_names))
        self.image_size = image_size
        self.channels = network.channels
        self.focal_length = focal_length
        self._predict = jax.jit(partial(predict_images, network), static_argnames="flip_test")
        self._enlarge = {
            task.name: jax.jit(partial(enlarge, task), static_argnames=("size", "rows"))
            for task in network.tasks
        }

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Returns height, width and channels of the training images."""
        return (*self.image_size, self.channels)

    def __call__(self, images: Any, *, flip_test: bool = False) -> dict[str, np.ndarray]:
        """Predicts all tasks.

        Args:
          images: uint8[H, W, 3] or uint8[B, H, W, 3], red, green and blue. A network for grey
            images also takes images of one channel, and a network that sees the depth of a sensor
            takes images of four channels; see `tasks.images`.
          flip_test: whether to average the predictions with those of the mirrored photos.

        Returns:
          Task name -> its prediction of the same size, with a batch axis if the images have one:
          `segmentation` i32[..., H, W], the indices of classes; `depth` f32[..., H, W] in metres;
          `normals` f32[..., H, W, 3], unit, with x to the right, y down and z forward;
          `inverse_depth` f32[..., H, W], without a unit.

        Raises:
          ValueError: for images of another type or shape.
        """
        photos = check_photos(images, self.channels)
        size = photos.shape[1:3]
        inner = self.network_size(size)
        shrunk = jnp.stack([shrink(photo, size=inner) for photo in photos])
        predictions = self._predict(self.variables, shrunk, flip_test=flip_test)
        results = {
            task.name: [self._back(task, x, size) for x in predictions[task.name]]
            for task in self.network.tasks
        }
        single = np.ndim(images) == 3
        return {name: each[0] if single else np.stack(each) for name, each in results.items()}

    def network_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """Returns the height and width at which the network sees photos of a size.

        They have about the area of the training images and the aspect of the photo, unless one of
        them would be too small for the network.
        """
        multiple, area = getattr(self.network.trunk, "size_multiple", 1), math.prod(self.image_size)
        least = -(-SMALLEST_SIDE // multiple)
        most = area // (least * multiple**2)
        scale = math.sqrt(area / math.prod(size)) / multiple
        height, width = (multiple * min(most, max(least, round(side * scale))) for side in size)
        return height, width

    def _back(self, task: Task, prediction: jax.Array, size: tuple[int, int]) -> np.ndarray:
        """Returns the result [H, W, ...] of a decoded prediction [h, w, ...], band by band."""
        height, width = size
        channels = math.prod(prediction.shape[2:])
        rows = min(height, max(1, MOST_VALUES // (width * channels)))
        result = None
        for start in range(0, height, rows):
            first = min(start, height - rows)  # all bands have one size
            band = self._enlarge[task.name](prediction, np.int32(first), size=size, rows=rows)
            if result is None:
                result = np.empty((height, *band.shape[1:]), band.dtype)
            result[first : first + rows] = band
        assert result is not None
        return result


def check_photos(images: Any, channels: int) -> np.ndarray:
    """Returns images as a batch uint8[B, H, W, channels].

    Raises:
      ValueError: for another type or shape.
    """
    photos = np.asarray(images)
    accepted = {channels, COLOURS} if channels == 1 else {channels}
    if photos.dtype != np.uint8 or photos.ndim not in (3, 4) or photos.shape[-1] not in accepted:
        raise ValueError(
            f"`images`: {photos.dtype}{list(photos.shape)} given, but photos are "
            f"uint8[H, W, {channels}], in {CONTENT[channels]}, or a batch "
            f"uint8[B, H, W, {channels}]"
        )
    if not photos.size:
        raise ValueError(f"`images`: uint8{list(photos.shape)} has no pixel")
    photos = photos if photos.ndim == 4 else photos[None]
    return photos if photos.shape[-1] == channels else in_grey(photos)


def predict_images(
    network: models.Network,
    variables: models.Variables,
    images: jax.Array,
    *,
    flip_test: bool = False,
) -> dict[str, jax.Array]:
    """Returns decoded predictions [B, h, w, ...] of images f32[B, h, w, C] in 0..1."""

    def decoded(images: jax.Array) -> dict[str, jax.Array]:
        found = models.predict(network, variables, {IMAGE.name: images})
        return {task.name: task.decode(found[task.name]) for task in network.tasks}

    seen = decoded(images)
    if not flip_test:
        return seen
    return average_mirrored(network.tasks, seen, decoded(images[:, :, ::-1]))


@partial(jax.jit, static_argnames="size")
def shrink(photo: jax.Array, *, size: tuple[int, int]) -> jax.Array:
    """Returns a photo u8[H, W, C] as the network takes it, f32[h, w, C] in 0..1.

    As when a data set is prepared, colours are filtered by a triangle as wide as a pixel of the
    smaller image, and depth is that of the nearest pixel.
    """
    colours, depth = divided(IMAGE.decode(photo))
    shape = (*size, colours.shape[-1])
    colours = jax.image.resize(colours, shape, "linear", antialias=True)
    if not depth.shape[-1]:
        return colours
    # In whole numbers: compiled, `jax.image.resize` takes a neighbour where the centre of a new
    # pixel lies between two old ones.
    rows, columns = (
        (2 * np.arange(new) + 1) * old // (2 * new)
        for new, old in zip(size, depth.shape[:2], strict=True)
    )
    return jnp.concatenate([colours, depth[rows[:, None], columns]], axis=-1)


def enlarge(
    task: Task, prediction: jax.Array, first: jax.Array, *, size: tuple[int, int], rows: int
) -> jax.Array:
    """Returns some rows of a decoded prediction [h, w, ...] at another size, in its final form.

    Args:
      first: i32[], the first row.
      size: height and width of the result.
      rows: number of rows.
    """
    height, width, *rest = prediction.shape
    if (height, width) != size:
        # Whole planes are several times faster to interpolate than interleaved channels.
        planes = jnp.moveaxis(prediction.reshape(height, width, -1), -1, 0)  # [C, h, w]
        places = [first + jnp.arange(rows, dtype=jnp.int32), jnp.arange(size[1], dtype=jnp.int32)]
        for axis, place in enumerate(places):
            ratio = prediction.shape[axis] / size[axis]
            position = (place.astype(jnp.float32) + 0.5) * ratio - 0.5
            planes = interpolate(planes, position, axis=axis + 1)
        prediction = task.blend(jnp.moveaxis(planes, 0, -1).reshape(rows, size[1], *rest))
    elif rows < size[0]:
        prediction = jax.lax.dynamic_slice_in_dim(prediction, first, rows)
    return task.sample(prediction)


def interpolate(x: jax.Array, position: jax.Array, *, axis: int) -> jax.Array:
    """Returns values between the entries along an axis, at positions f32[n], linearly."""
    last = x.shape[axis] - 1
    position = jnp.clip(position, 0.0, float(last))
    below = position.astype(jnp.int32)
    part = position - below.astype(jnp.float32)
    part = part.reshape([-1 if i == axis else 1 for i in range(x.ndim)])
    lower = jnp.take(x, below, axis=axis)
    upper = jnp.take(x, jnp.minimum(below + 1, last), axis=axis)
    return lower + part * (upper - lower)
