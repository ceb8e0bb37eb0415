"""Depth without depth labels: the left view rebuilt from the right one by the predicted depth.

The views are rectified: what the left one shows at column u the right one shows at column
u - disparity, in the same row. Disparity is focal length times baseline over depth, in pixels; a
negative baseline means that the "right" camera stands to the left, as in mirrored images.
"""

import jax
import jax.numpy as jnp
import numpy as np

from mtl_jax.tasks import losses
from mtl_jax.tasks.losses import count
from mtl_jax.tasks.task import IMAGE, Batch, Entry, LossSum

# Godard et al., "Unsupervised Monocular Depth Estimation with Left-Right Consistency" (2017).
SSIM_SHARE = 0.85
SSIM_CONSTANTS = (0.01**2, 0.03**2)
# Godard et al., "Digging into Self-Supervised Monocular Depth Estimation" (2019).
SMOOTHNESS = 1e-3
EDGES = 1.0
ORDER = 1
SCALES = 3  # the image, then halved twice: large disparities are found in the smallest first
OCCLUSION_MARGIN = 1.0  # pixels of disparity by which a hiding surface must be nearer

IMAGE_RIGHT = IMAGE._replace(name="image_right")
# Both views of a pair are mirrored in place. Swapping them instead would keep the baseline
# positive, but the labels belong to the left view, which would no longer be the first.
BASELINE = Entry(
    "baseline",
    flip=lambda baseline: -baseline,
    # The scene shrinks and the focal lengths grow by the same factor, so disparities stay correct.
    scale=lambda baseline, factor: baseline / factor,
    example=lambda rng, shape, classes: np.full(shape[0], 0.1, np.float32),
)


def disparity(depth: jax.Array, intrinsics: jax.Array, baseline: jax.Array) -> jax.Array:
    """Returns disparities f32[B, H, W] in pixels, of the baseline's sign.

    Args:
      depth: f32[B, H, W] in metres.
      intrinsics: f32[B, 4], fx fy cx cy in pixels.
      baseline: f32[B] in metres.
    """
    return (intrinsics[:, 0] * baseline)[:, None, None] / depth


def squared_loss(depth: jax.Array, batch: Batch) -> LossSum:
    """Returns the paper's loss: squared differences between the left view and the rebuilt one.

    Args:
      depth: f32[B, H, W] in metres.
      batch: `image`, `image_right`, `intrinsics`, `baseline`; images of baseline 0 are ignored.

    Returns:
      The sum over pixels of the mean square of their channels, and the number of pixels that the
      right view shows.
    """
    shift = disparity(depth, batch["intrinsics"], batch["baseline"])
    rebuilt, in_view = jax.vmap(warp)(batch["image_right"], shift)
    error = jnp.mean(jnp.square(rebuilt - batch["image"]), axis=-1)
    seen = in_view & (batch["baseline"] != 0)[:, None, None]
    return jnp.sum(jnp.where(seen, error, 0.0)), count(seen)


def photometric_loss(
    depth: jax.Array,
    batch: Batch,
    *,
    smoothness: float = SMOOTHNESS,
    edges: float = EDGES,
    order: int = ORDER,
    fill: bool = False,
) -> LossSum:
    """Returns the field's loss: SSIM and absolute differences, with smooth disparities.

    Pixels that the right view does not show, outside it or hidden behind something nearer, are
    not compared. The views are compared at each of `SCALES` halvings, and the mean is taken.

    Args:
      depth: f32[B, H, W] in metres.
      batch: as for `squared_loss`.
      smoothness: weight of the `roughness` of disparities.
      edges, order: see `roughness`.
      fill: whether pixels that are not compared are smoothed like the others, which lets them take
        the depth of their neighbours; else they are ignored.

    Returns:
      The sum over pixels and the number of those that are compared.
    """
    left, right = batch["image"], batch["image_right"]
    shift = disparity(depth, batch["intrinsics"], batch["baseline"])
    paired = (batch["baseline"] != 0)[:, None, None]
    total, pixels = jnp.zeros((), depth.dtype), jnp.zeros((), jnp.float32)
    for scale in range(SCALES):
        if scale:
            left, right, shift = halve(left), halve(right), 0.5 * halve(shift)
        rebuilt, in_view = jax.vmap(warp)(right, shift)
        seen = (in_view & ~jax.vmap(occluded)(shift) & paired)[:, 1:-1, 1:-1]
        error = jnp.where(seen, dissimilarity(rebuilt, left), 0.0)
        rough = roughness(jnp.abs(shift), left, edges=edges, order=order)[:, 1:-1, 1:-1]
        smoothed = paired if fill else seen
        error += smoothness / 2**scale * jnp.where(smoothed, rough, 0.0)
        # A pixel of a smaller image counts as the pixels that it replaces.
        total += 4.0**scale * jnp.sum(error)
        pixels += 4.0**scale * count(seen)
    return total / SCALES, pixels / SCALES


def warp(right: jax.Array, shift: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Rebuilds the left view from the right one: bilinear in rows, differentiable in `shift`.

    Args:
      right: f32[H, W, 3].
      shift: f32[H, W], disparities in pixels.

    Returns:
      f32[H, W, 3], columns outside the right view taken from its border, and bool[H, W], whether
      they were inside.
    """
    width = right.shape[1]
    columns = jnp.arange(width, dtype=shift.dtype) - shift  # [H, W]
    in_view = (columns >= 0) & (columns <= width - 1)
    columns = jnp.clip(columns, 0.0, width - 1.0)
    low = jnp.clip(jnp.floor(jax.lax.stop_gradient(columns)), 0.0, width - 2.0)
    index = low.astype(jnp.int32)[..., None]  # [H, W, 1]
    before = jnp.take_along_axis(right, index, axis=1)
    after = jnp.take_along_axis(right, index + 1, axis=1)
    return before + (after - before) * (columns - low)[..., None], in_view


def occluded(shift: jax.Array) -> jax.Array:
    """Finds the pixels of the left view that are hidden in the right one, bool[H, W].

    All pixels are sent to the columns where the right view should show them; where something
    nearer, of a larger disparity, arrives too, the farther one is hidden.

    Args:
      shift: f32[H, W], disparities in pixels.
    """
    height, width = shift.shape
    shift = jax.lax.stop_gradient(shift)
    near = jnp.abs(shift)
    columns = jnp.round(jnp.arange(width, dtype=shift.dtype) - shift)
    in_view = (columns >= 0) & (columns <= width - 1)
    index = jnp.where(in_view, columns, 0.0).astype(jnp.int32)
    rows = jnp.broadcast_to(jnp.arange(height)[:, None], index.shape)
    nearest = jnp.zeros_like(near).at[rows, index].max(jnp.where(in_view, near, 0.0))
    # Surfaces seen at an angle arrive with gaps between their pixels.
    padded = jnp.pad(nearest, ((0, 0), (1, 1)))
    nearest = jnp.maximum(jnp.maximum(padded[:, :-2], padded[:, 2:]), nearest)
    return in_view & (jnp.take_along_axis(nearest, index, axis=1) > near + OCCLUSION_MARGIN)


def dissimilarity(first: jax.Array, second: jax.Array) -> jax.Array:
    """Returns 0.85 (1 - SSIM) / 2 + 0.15 L1, mean over channels, f32[B, H - 2, W - 2].

    SSIM is computed in 3x3 windows with equal weights, which leaves out the border of the images.

    Args:
      first: f32[B, H, W, 3] in 0..1.
      second: the same.
    """
    mean_1, mean_2 = box(first), box(second)
    variance_1 = box(jnp.square(first)) - jnp.square(mean_1)
    variance_2 = box(jnp.square(second)) - jnp.square(mean_2)
    covariance = box(first * second) - mean_1 * mean_2
    c1, c2 = SSIM_CONSTANTS
    ssim = (2 * mean_1 * mean_2 + c1) * (2 * covariance + c2)
    ssim /= (jnp.square(mean_1) + jnp.square(mean_2) + c1) * (variance_1 + variance_2 + c2)
    absolute = jnp.abs(first - second)[:, 1:-1, 1:-1]
    unlike = jnp.clip((1.0 - ssim) / 2.0, 0.0, 1.0)
    return jnp.mean(SSIM_SHARE * unlike + (1.0 - SSIM_SHARE) * absolute, axis=-1)


def roughness(
    shift: jax.Array, image: jax.Array, *, edges: float = EDGES, order: int = ORDER
) -> jax.Array:
    """Returns how rough disparities are, less where the image has edges, f32[B, H, W].

    Disparities are divided by their mean. The sum of their absolute differences along rows and
    columns is 0 where they are constant. With second differences it is 0 on every plane.

    Args:
      shift: f32[B, H, W], positive disparities.
      image: f32[B, H, W, 3] in 0..1.
      edges: a difference is multiplied by exp(-edges * the mean absolute difference of colours).
      order: of the differences, 1 or 2.
    """
    mean = jnp.mean(shift, axis=(1, 2), keepdims=True)
    relative = shift / (mean + losses.EPSILON)
    total = jnp.zeros_like(relative)
    for axis in (1, 2):
        difference = jnp.abs(jnp.diff(relative, n=order, axis=axis))
        edge = jnp.mean(jnp.abs(jnp.diff(image, axis=axis)), axis=-1)
        if order == 2:  # the stronger of the two edges between three pixels
            last = edge.shape[axis]
            first, second = (jax.lax.slice_in_dim(edge, i, last - 1 + i, axis=axis) for i in (0, 1))
            edge = jnp.maximum(first, second)
        pad = [(order - 1, 1) if i == axis else (0, 0) for i in range(3)]
        total += jnp.pad(difference * jnp.exp(-edges * edge), pad)
    return total


def halve(x: jax.Array) -> jax.Array:
    """Returns means of 2x2 pixels of f32[B, H, W, ...]; an odd last row or column is dropped."""
    height, width = (2 * (n // 2) for n in x.shape[1:3])
    x = x[:, :height, :width]
    return (x[:, ::2, ::2] + x[:, 1::2, ::2] + x[:, ::2, 1::2] + x[:, 1::2, 1::2]) / 4.0


def box(x: jax.Array) -> jax.Array:
    """Returns means of 3x3 windows inside images f32[B, H, W, C], f32[B, H - 2, W - 2, C]."""
    rows = x[:, :-2] + x[:, 1:-1] + x[:, 2:]
    return (rows[:, :, :-2] + rows[:, :, 1:-1] + rows[:, :, 2:]) / 9.0
