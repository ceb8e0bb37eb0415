"""SegNet, and its multi-task form with attention (MTAN): the networks of the published tables.

Badrinarayanan et al., "SegNet" (2017), in the form of Liu et al., "End-to-end multi-task learning
with attention", CVPR 2019: five stages of 64, 128, 256, 512 and 512 channels, convolutions with
biases and batch normalisation, maxima put back where they came from. Images are not normalised.

Differences from the published code: kernels start as He et al. draw them, and the convolutions
between the stages of the attention branches, which that code shares among the tasks, belong here to
each task, like the rest of its branch. A branch counts as its task's head, so the weights are
computed from the gradients of SegNet alone; the code of Nash-MTL counts all but the last layers of
the branches as shared.
"""

from functools import partial
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from mtl_jax.models.convolution import PlainConv
from mtl_jax.models.resnet import ConvBlock, normalization

CHANNELS = (64, 128, 256, 512, 512)


class Features(NamedTuple):
    """The features of the trunk that attention heads use.

    Attributes:
      last: f32[B, H, W, 64], the decoder's end.
      encoder: of each stage, before and after its further convolutions, from full size down.
      decoder: of each stage, put back to its size and convolved, from small to full size.
    """

    last: jax.Array
    encoder: list[tuple[jax.Array, jax.Array]]
    decoder: list[tuple[jax.Array, jax.Array]]


class SegNet(nn.Module):
    """The trunk: f32[B, H, W, C] images, sides multiples of 32 -> features.

    Attributes:
      dtype: dtype of the computation; parameters are float32.
      axis_name: devices over which batch statistics are taken, None for one.
      norm: see `resnet.normalization`.
      stages: whether to return the features of all stages, for attention, or only the last.
    """

    dtype: DTypeLike = jnp.float32
    axis_name: str | None = None
    norm: str = "batch"
    stages: bool = False

    size_multiple = 2 ** len(CHANNELS)

    @nn.compact
    def __call__(self, image: jax.Array, *, train: bool) -> Features | jax.Array:
        kwargs = {"dtype": self.dtype, "axis_name": self.axis_name, "norm": self.norm}
        block = partial(ConvBlock, use_bias=True, **kwargs)
        x, masks, encoder, decoder = image.astype(self.dtype), [], [], []
        for stage, channels in enumerate(CHANNELS):
            first = x = block(channels, name=f"encoder{stage}_0")(x, train=train)
            for index in range(1, 2 if stage < 2 else 3):
                x = block(channels, name=f"encoder{stage}_{index}")(x, train=train)
            encoder.append((first, x))
            x, mask = pool(x)
            masks.append(mask)
        for stage in reversed(range(len(CHANNELS))):
            channels = CHANNELS[max(stage - 1, 0)]
            raised = x = unpool(x, masks[stage])
            x = block(channels, name=f"decoder{stage}_0")(x, train=train)
            for index in range(1, 2 if stage < 2 else 3):
                x = block(channels, name=f"decoder{stage}_{index}")(x, train=train)
            decoder.append((raised, x))
        return Features(x, encoder, decoder) if self.stages else x


class PredictionHead(nn.Module):
    """A task's own layers: features -> raw output f32[B, H, W, channels]."""

    channels: int
    dtype: DTypeLike = jnp.float32
    axis_name: str | None = None
    norm: str = "batch"

    @nn.compact
    def __call__(self, x: jax.Array, size: tuple[int, int], *, train: bool) -> jax.Array:
        x = PlainConv(CHANNELS[0], (3, 3), padding=1, dtype=self.dtype, name="hidden")(x)
        x = PlainConv(self.channels, (1, 1), dtype=self.dtype, name="output")(x)
        return x.astype(jnp.float32)


class AttentionHead(nn.Module):
    """A task's branch through all stages: it attends to the shared features, then predicts."""

    channels: int
    dtype: DTypeLike = jnp.float32
    axis_name: str | None = None
    norm: str = "batch"

    @nn.compact
    def __call__(self, features: Features, size: tuple[int, int], *, train: bool) -> jax.Array:
        kwargs = {"dtype": self.dtype, "axis_name": self.axis_name, "norm": self.norm}
        block = partial(ConvBlock, use_bias=True, **kwargs)
        x = features.encoder[0][0]
        for stage, (first, last) in enumerate(features.encoder):
            seen = jnp.concatenate([first, x], axis=-1) if stage else x
            attention = Attention(CHANNELS[stage], **kwargs, name=f"encoder_attention{stage}")
            x = attention(seen, train=train) * last
            channels = CHANNELS[min(stage + 1, len(CHANNELS) - 1)]
            x = block(channels, name=f"encoder{stage}")(x, train=train)
            x = nn.max_pool(x, window_shape=(2, 2), strides=(2, 2))
        for stage, (raised, last) in zip(
            reversed(range(len(CHANNELS))), features.decoder, strict=True
        ):
            channels = CHANNELS[max(stage - 1, 0)]
            x = block(channels, name=f"decoder{stage}")(double(x), train=train)
            attention = Attention(channels, **kwargs, name=f"decoder_attention{stage}")
            x = attention(jnp.concatenate([raised, x], axis=-1), train=train) * last
        return PredictionHead(self.channels, **kwargs, name="prediction")(x, size, train=train)


class Attention(nn.Module):
    """Two 1x1 convolutions to weights in 0..1 for each pixel and channel."""

    channels: int
    dtype: DTypeLike = jnp.float32
    axis_name: str | None = None
    norm: str = "batch"

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        norm = normalization(self.norm, train=train, axis_name=self.axis_name, dtype=self.dtype)
        x = PlainConv(self.channels, (1, 1), dtype=self.dtype, name="conv1")(x)
        x = nn.relu(norm(name="bn1")(x))
        x = PlainConv(self.channels, (1, 1), dtype=self.dtype, name="conv2")(x)
        return nn.sigmoid(norm(name="bn2")(x))


def pool(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns maxima of 2x2 windows [B, H/2, W/2, C], and where each stood [B, H/2, W/2, 4, C].

    Of equal maxima, only the first in reading order counts and gets the gradient, as in PyTorch.
    """
    batch, height, width, channels = x.shape
    windows = x.reshape(batch, height // 2, 2, width // 2, 2, channels).swapaxes(2, 3)
    windows = windows.reshape(batch, height // 2, width // 2, 4, channels)
    first = jnp.argmax(jax.lax.stop_gradient(windows), axis=3)
    mask = jax.nn.one_hot(first, 4, axis=3, dtype=x.dtype)
    return jnp.sum(windows * mask, axis=3), mask


def unpool(x: jax.Array, mask: jax.Array) -> jax.Array:
    """Puts values [B, h, w, C] where the maxima stood, zeros elsewhere: [B, 2h, 2w, C]."""
    batch, height, width, channels = x.shape
    spread = (x[:, :, :, None] * mask).reshape(batch, height, width, 2, 2, channels)
    return spread.swapaxes(2, 3).reshape(batch, 2 * height, 2 * width, channels)


def double(x: jax.Array) -> jax.Array:
    """Interpolates to twice the size, corners on corners (PyTorch's `align_corners=True`)."""
    dtype = x.dtype
    # Half precision can't distinguish the positions of neighbouring samples.
    x = x.astype(jnp.float32) if jnp.finfo(dtype).bits < 32 else x
    for axis, sums in ((1, "oh,bhwc->bowc"), (2, "ow,bhwc->bhoc")):
        weights = jnp.asarray(corner_weights(x.shape[axis]), x.dtype)
        x = jnp.einsum(sums, weights, x, precision="highest")
    return x.astype(dtype)


def corner_weights(size: int) -> np.ndarray:
    """Returns weights f64[2 size, size] of the samples along an axis; each row adds up to 1."""
    positions = np.linspace(0, size - 1, 2 * size)
    return np.maximum(0, 1 - np.abs(positions[:, None] - np.arange(size)))
