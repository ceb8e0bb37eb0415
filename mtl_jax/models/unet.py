"""The shared trunk, a ResNet-U-Net with ASPP, and the heads of the tasks.

The decoder follows Ronneberger et al. (2015): upsample by two, concatenate the encoder's features
of that size, convolve twice. It ends at half the image's resolution; the heads work there and
their outputs are interpolated to the image's size.
"""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.image import resize
from jax.typing import DTypeLike

from mtl_jax.models.aspp import ASPP
from mtl_jax.models.convolution import PlainConv
from mtl_jax.models.resnet import BACKBONES, ConvBlock


class UNet(nn.Module):
    """The trunk: f32[B, H, W, C] images -> features [B, ceil(H/2), ceil(W/2), channels[-1]].

    Attributes:
      backbone: a key of `resnet.BACKBONES`.
      channels: channels of the decoder, from the bottleneck (ASPP) up to half resolution.
      dtype: dtype of the computation; parameters are float32.
      axis_name: devices over which batch statistics are taken, None for one.
      norm: see `resnet.normalization`.
      frozen: whether the encoder is not trained: no gradient reaches it, and it normalises by its
        running statistics, which stay as they are.
      rates: of `ASPP`.
    """

    backbone: str = "resnet34"
    channels: Sequence[int] = (256, 256, 128, 64, 32)
    dtype: DTypeLike = jnp.float32
    axis_name: str | None = None
    norm: str = "batch"
    frozen: bool = False
    rates: tuple[int, int, int] | None = None

    # By how much the map of ASPP is smaller than the image.
    reduction = 32

    @nn.compact
    def __call__(self, image: jax.Array, *, train: bool) -> jax.Array:
        kwargs = {"dtype": self.dtype, "axis_name": self.axis_name, "norm": self.norm}
        encoder = BACKBONES[self.backbone](**kwargs, name="encoder")
        *skips, x = encoder(image, train=train and not self.frozen)
        if self.frozen:
            skips, x = jax.lax.stop_gradient((skips, x))
        x = ASPP(self.channels[0], **kwargs, rates=self.rates, name="aspp")(x, train=train)
        for index, skip in enumerate(reversed(skips)):
            x = jnp.concatenate([double(x, skip.shape[1:3]), skip], axis=-1)
            channels = self.channels[index + 1]
            x = ConvBlock(channels, **kwargs, name=f"decoder{index}_0")(x, train=train)
            x = ConvBlock(channels, **kwargs, name=f"decoder{index}_1")(x, train=train)
        return x


class Head(nn.Module):
    """A task's own layers: features -> raw output f32[B, H, W, channels] of the image's size."""

    channels: int
    hidden: int = 64
    dtype: DTypeLike = jnp.float32
    axis_name: str | None = None
    norm: str = "batch"

    @nn.compact
    def __call__(self, x: jax.Array, size: tuple[int, int], *, train: bool) -> jax.Array:
        kwargs = {"dtype": self.dtype, "axis_name": self.axis_name, "norm": self.norm}
        x = ConvBlock(self.hidden, **kwargs, name="hidden")(x, train=train)
        x = PlainConv(self.channels, (1, 1), dtype=self.dtype, name="output")(x)
        return enlarge(x.astype(jnp.float32), size)


def enlarge(x: jax.Array, size: tuple[int, int]) -> jax.Array:
    """Interpolates maps [B, h, w, C] to an image's height and width.

    A map of half the image's size, rounded up, reaches beyond an odd image by a row or column,
    which is cut off, as by `double`: squeezing the map into the image would shift it, by up to a
    pixel.
    """
    batch, height, width, channels = x.shape
    rows, columns = (old * -(-new // old) for old, new in zip((height, width), size, strict=True))
    return resize(x, (batch, rows, columns, channels), "bilinear")[:, : size[0], : size[1]]


def double(x: jax.Array, size: tuple[int, ...]) -> jax.Array:
    """Repeats x twice in height and width and cuts it to `size`, which is odd for odd images."""
    x = jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2)
    return x[:, : size[0], : size[1]]
