"""A small U-Net, for experiments on a CPU; its heads are those of `unet`."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from mtl_jax.models.resnet import ConvBlock, pool
from mtl_jax.models.unet import double

# Feature maps, the first at half the image's resolution.
LEVELS = 4


class SmallUNet(nn.Module):
    """The trunk: f32[B, H, W, C] images -> features [B, ceil(H/2), ceil(W/2), channels].

    One convolution per level on the way down, one per level on the way up.

    Attributes:
      channels: channels at half resolution; every level below has twice as many.
      dtype: dtype of the computation; parameters are float32.
      axis_name: devices over which batch statistics are taken, None for one.
      norm: "batch" or "group", see `resnet.normalization`.
    """

    channels: int = 16
    dtype: DTypeLike = jnp.float32
    axis_name: str | None = None
    norm: str = "batch"

    @nn.compact
    def __call__(self, image: jax.Array, *, train: bool) -> jax.Array:
        kwargs = {"dtype": self.dtype, "axis_name": self.axis_name, "norm": self.norm}
        x, features = 2.0 * image.astype(self.dtype) - 1.0, []
        for level in range(LEVELS):
            block = ConvBlock(self.channels * 2**level, **kwargs, name=f"down{level}")
            x = block(pool(pool(x, axis=1), axis=2), train=train)
            features.append(x)
        for level in reversed(range(LEVELS - 1)):
            skip = features[level]
            x = jnp.concatenate([double(x, skip.shape[1:3]), skip], axis=-1)
            x = ConvBlock(self.channels * 2**level, **kwargs, name=f"up{level}")(x, train=train)
        return x
