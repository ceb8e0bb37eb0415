"""Augmentation inside the jitted step: flip, scale-and-crop, colour jitter.

Each image has a key of its own, derived from (seed, step, place in the batch), so that the result
does not depend on how the batch is spread over devices.
"""

import jax
import jax.numpy as jnp

# RandomScaleCrop of the multi-task benchmark (Liu et al., 2019).
SCALES = (1.0, 1.2, 1.5)


def augment(key: jax.Array, batch: dict[str, jax.Array], *, jitter: float) -> dict[str, jax.Array]:
    """A randomly flipped, scaled, cropped and recoloured batch, its labels kept true.

    Both views of a stereo pair are treated alike.

    Args:
      key: one PRNG key an image, [B].
      batch: `image` f32[B, H, W, 3] in 0..1, `intrinsics` f32[B, 4], labels, and of a stereo pair
        `image_right` and `baseline` f32[B].
      jitter: how far brightness, contrast and saturation vary, as a fraction; 0 = not at all.
    """

    def one(key: jax.Array, view: dict[str, jax.Array]) -> dict[str, jax.Array]:
        flip_key, scale_key, row_key, column_key, colour_key = jax.random.split(key, 5)
        scale = jax.random.choice(scale_key, jnp.array(SCALES))
        offset = jnp.stack([jax.random.uniform(row_key), jax.random.uniform(column_key)])
        view = scale_and_crop(view, scale, offset)
        flipped = flip(view)
        chosen = jax.random.bernoulli(flip_key)
        view = jax.tree.map(lambda a, b: jnp.where(chosen, a, b), flipped, view)
        images = [name for name in ("image", "image_right") if name in view]
        coloured = colour_jitter(colour_key, jnp.stack([view[name] for name in images]), jitter)
        return {**view, **dict(zip(images, coloured, strict=True))}

    return jax.vmap(one)(key, batch)


def flip(view: dict[str, jax.Array]) -> dict[str, jax.Array]:
    """One view mirrored left to right: normals' x changes sign, the principal point moves.

    Of a stereo pair both are mirrored in place, and the baseline changes its sign. To swap the
    views instead would put a positive baseline between them, but the labels are those of the left
    view, and would no longer belong to the first one.
    """
    width = view["image"].shape[1]
    flipped = {name: x[:, ::-1] if x.ndim >= 2 else x for name, x in view.items()}
    if "normals" in view:
        flipped["normals"] = flipped["normals"] * jnp.array([-1.0, 1.0, 1.0])
    fx, fy, cx, cy = view["intrinsics"]
    flipped["intrinsics"] = jnp.stack([fx, fy, width - 1 - cx, cy])
    if "baseline" in view:
        flipped["baseline"] = -view["baseline"]
    return flipped


def scale_and_crop(
    view: dict[str, jax.Array], scale: jax.Array, offset: jax.Array
) -> dict[str, jax.Array]:
    """A part of one view enlarged to the view's size; images bilinear, labels nearest.

    Depth is divided by the scale, as the benchmark does, and so is a stereo pair's baseline. With
    the focal lengths multiplied by it this is the same scene made smaller by that factor: every
    point, plane, normal and disparity agrees.

    Args:
      view: arrays [H, W, ...] and `intrinsics` f32[4].
      scale: f32[] of at least 1.
      offset: f32[2] in 0..1, where the part of size (H, W) / scale lies.
    """
    height, width = view["image"].shape[:2]
    start = offset * jnp.array([height, width], jnp.float32) * (1.0 - 1.0 / scale)
    rows = (jnp.arange(height, dtype=jnp.float32) + 0.5) / scale - 0.5 + start[0]
    columns = (jnp.arange(width, dtype=jnp.float32) + 0.5) / scale - 0.5 + start[1]

    def resample(name: str, x: jax.Array) -> jax.Array:
        if x.ndim < 2:
            return x
        if name in ("image", "image_right"):
            return _linear(_linear(x, rows, 0), columns, 1)
        return _nearest(_nearest(x, rows, 0), columns, 1)

    result = {name: resample(name, x) for name, x in view.items()}
    if "depth" in view:
        result["depth"] = result["depth"] / scale
    if "baseline" in view:
        result["baseline"] = view["baseline"] / scale
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


def colour_jitter(key: jax.Array, image: jax.Array, strength: float) -> jax.Array:
    """Images f32[..., H, W, 3] in 0..1, brightness, contrast and saturation varied alike."""
    if not strength:
        return image
    brightness, contrast, saturation = jax.random.uniform(
        key, (3,), minval=1.0 - strength, maxval=1.0 + strength
    )
    image = image * brightness
    mean = jnp.mean(image)
    image = mean + (image - mean) * contrast
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
