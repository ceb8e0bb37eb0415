"""Augmentation inside the jitted step: flip, scale-and-crop, colour jitter.

Each image has its own key, derived from (seed, step, place in the batch), so the result does not
depend on how the batch is spread over devices.
"""

from collections.abc import Callable, Mapping, Sequence

import jax
import jax.numpy as jnp

from mtl_jax.data.batches import entries_of
from mtl_jax.tasks import Batch, Entry, Task, images

# One key per image, a batch and the tasks that read it -> the batch changed at random.
Augment = Callable[[jax.Array, Batch, Sequence[Task]], dict[str, jax.Array]]
# RandomScaleCrop of the multi-task benchmark (Liu et al., 2019).
CROP_SCALES = (1.0, 1.2, 1.5)
# It changes as labels of depth do, except for 1, which is no distance: it means that nothing was
# found within the range of the sensor.
SENSOR_DEPTH = Entry(
    "sensor_depth", scale=lambda depth, factor: jnp.where(depth < 1.0, depth / factor, depth)
)


def augment(
    keys: jax.Array,
    batch: Batch,
    tasks: Sequence[Task],
    *,
    crop_scales: Sequence[float] = CROP_SCALES,
    colour_jitter: float = 0.0,
) -> dict[str, jax.Array]:
    """Returns a randomly flipped, scaled, cropped and recoloured batch whose labels still hold.

    Both views of a stereo pair are treated alike.

    Args:
      keys: one PRNG key per image, [B].
      batch: `image` f32[B, H, W, C] in 0..1, `intrinsics` f32[B, 4], and what the tasks read.
      tasks: tasks, whose entries define how their labels change.
      crop_scales: an image is enlarged by one of these factors of at least 1, chosen at random,
        and cropped at random to its size; 1 changes nothing.
      colour_jitter: how far brightness, contrast and saturation vary, as a fraction; 0 = not at
        all.
    """
    entries = entries_of(tasks) | {SENSOR_DEPTH.name: SENSOR_DEPTH}

    def one(key: jax.Array, view: Batch) -> dict[str, jax.Array]:
        flip_key, scale_key, row_key, column_key, colour_key = jax.random.split(key, 5)
        scale = jax.random.choice(scale_key, jnp.array(crop_scales, jnp.float32))
        offset = jnp.stack([jax.random.uniform(row_key), jax.random.uniform(column_key)])
        view = scale_and_crop(view, entries, scale, offset)
        flipped = flip(view, entries)
        chosen = jax.random.bernoulli(flip_key)
        view = jax.tree.map(lambda a, b: jnp.where(chosen, a, b), flipped, view)
        names = [name for name in view if entries[name].resample == "linear"]
        coloured = recolour(colour_key, jnp.stack([view[name] for name in names]), colour_jitter)
        return {**view, **dict(zip(names, coloured, strict=True))}

    return _joined(jax.vmap(one)(keys, _divided(batch)))


def _divided(batch: Batch) -> Batch:
    """Returns a batch with the depth of a sensor, the fourth channel of images, on its own."""
    colours, depth = images.divided(batch["image"])
    return {**batch, "image": colours, SENSOR_DEPTH.name: depth} if depth.shape[-1] else batch


def _joined(batch: dict[str, jax.Array]) -> dict[str, jax.Array]:
    """Returns a batch with the depth of a sensor, if there is any, as part of the images."""
    if SENSOR_DEPTH.name not in batch:
        return batch
    depth = batch.pop(SENSOR_DEPTH.name)
    return batch | {"image": jnp.concatenate([batch["image"], depth], axis=-1)}


def flip(view: Batch, entries: Mapping[str, Entry]) -> dict[str, jax.Array]:
    """Returns one view mirrored left to right: the principal point moves, `Entry.flip` the rest.

    Args:
      view: arrays [H, W, ...] and `intrinsics` f32[4].
      entries: entries of the view, by name.
    """
    width = view["image"].shape[1]
    flipped = {
        name: entries[name].flip(x[:, ::-1] if x.ndim >= 2 else x) for name, x in view.items()
    }
    fx, fy, cx, cy = view["intrinsics"]
    flipped["intrinsics"] = jnp.stack([fx, fy, width - 1 - cx, cy])
    return flipped


def scale_and_crop(
    view: Batch, entries: Mapping[str, Entry], scale: jax.Array, offset: jax.Array
) -> dict[str, jax.Array]:
    """Returns a part of one view enlarged to the view's size; images bilinear, labels nearest.

    Depth is divided by the scale, as the benchmark does, and so is a stereo pair's baseline. With
    the focal lengths multiplied by it, this is the same scene made smaller by that factor, and all
    points, planes, normals and disparities agree.

    Args:
      view: arrays [H, W, ...] and `intrinsics` f32[4].
      entries: entries of the view, by name.
      scale: f32[] of at least 1.
      offset: f32[2] in 0..1, place of the part of size (H, W) / scale.
    """
    height, width = view["image"].shape[:2]
    start = offset * jnp.array([height, width], jnp.float32) * (1.0 - 1.0 / scale)
    rows = (jnp.arange(height, dtype=jnp.float32) + 0.5) / scale - 0.5 + start[0]
    columns = (jnp.arange(width, dtype=jnp.float32) + 0.5) / scale - 0.5 + start[1]

    def enlarge(entry: Entry, x: jax.Array) -> jax.Array:
        if x.ndim >= 2:
            resample = RESAMPLE[entry.resample]
            x = resample(resample(x, rows, 0), columns, 1)
        return entry.scale(x, scale)

    result = {name: enlarge(entries[name], x) for name, x in view.items()}
    fx, fy, cx, cy = view["intrinsics"]
    result["intrinsics"] = jnp.stack(
        [
            fx * scale,
            fy * scale,
            (cx + 0.5 - start[1]) * scale - 0.5,
            (cy + 0.5 - start[0]) * scale - 0.5,
        ]
    )
    return result


def recolour(key: jax.Array, image: jax.Array, colour_jitter: float) -> jax.Array:
    """Varies brightness, contrast and saturation of all images f32[..., H, W, C] alike.

    Grey images, of one channel, have no saturation.
    """
    if not colour_jitter:
        return image
    brightness, contrast, saturation = jax.random.uniform(
        key, (3,), minval=1.0 - colour_jitter, maxval=1.0 + colour_jitter
    )
    image = image * brightness
    mean = jnp.mean(image)
    image = mean + (image - mean) * contrast
    if image.shape[-1] == 1:
        return jnp.clip(image, 0.0, 1.0)
    grey = image @ jnp.array([[0.299], [0.587], [0.114]])  # [H, W, 1]
    return jnp.clip(grey + (image - grey) * saturation, 0.0, 1.0)


def _linear(x: jax.Array, positions: jax.Array, axis: int) -> jax.Array:
    low = jnp.floor(positions)
    shape = [-1 if a == axis else 1 for a in range(x.ndim)]
    fraction = (positions - low).reshape(shape)
    index = low.astype(jnp.int32)
    before = jnp.take(x, index, axis=axis, mode="clip")
    after = jnp.take(x, index + 1, axis=axis, mode="clip")
    return before + (after - before) * fraction


def _nearest(x: jax.Array, positions: jax.Array, axis: int) -> jax.Array:
    return jnp.take(x, jnp.round(positions).astype(jnp.int32), axis=axis, mode="clip")


RESAMPLE = {"linear": _linear, "nearest": _nearest}
