"""Atrous spatial pyramid pooling (Chen et al., "Rethinking atrous convolution", 2017)."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from mtl_jax.models.resnet import conv, normalization


def fitting_rates(height: int, width: int) -> tuple[int, int, int]:
    """Returns dilation rates for a feature map: 6, 12, 18, shrunk where the map is small.

    A 3x3 convolution whose rate reaches the side of the map sees only padding around its centre.
    The largest rate is therefore at most two thirds of the shorter side: 2, 4, 6 on 9x12.
    """
    largest = min(18, max(1, min(height, width) * 2 // 3))
    return (max(1, largest // 3), max(1, largest * 2 // 3), largest)


class ASPP(nn.Module):
    """A 1x1 convolution, three dilated 3x3 ones and the pooled image, side by side.

    With batch normalisation the pooled branch normalises one value per image and channel, so
    training needs at least two images.

    Attributes:
      channels: channels of each branch and of the output.
      dtype, axis_name, norm: see `unet.UNet`.
      rates: dilation rates of the 3x3 convolutions; None for those that fit the map.
    """

    channels: int
    dtype: DTypeLike = jnp.float32
    axis_name: str | None = None
    norm: str = "batch"
    rates: tuple[int, int, int] | None = None

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Maps f32[B, h, w, C] to f32[B, h, w, channels]."""
        norm = normalization(self.norm, train=train, axis_name=self.axis_name, dtype=self.dtype)

        def branch(y, size, rate, name):
            y = conv(
                self.channels,
                (size, size),
                padding=rate * (size // 2),
                kernel_dilation=rate,
                dtype=self.dtype,
                name=name,
            )(y)
            return nn.relu(norm(name=f"{name}_bn")(y))

        branches = [branch(x, 1, 1, "point")]
        for index, rate in enumerate(self.rates or fitting_rates(*x.shape[1:3])):
            branches.append(branch(x, 3, rate, f"atrous{index + 1}"))
        pooled = branch(jnp.mean(x, axis=(1, 2), keepdims=True), 1, 1, "pooled")  # [B, 1, 1, c]
        # Its gradient is a sum over the map, which would lose most of its bits in bfloat16.
        spread = jnp.broadcast_to(pooled.astype(jnp.float32), branches[0].shape)
        branches.append(spread.astype(self.dtype))
        return branch(jnp.concatenate(branches, axis=-1), 1, 1, "project")
