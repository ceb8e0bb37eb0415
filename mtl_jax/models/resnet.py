"""ResNet encoders whose numbers equal torchvision's for the same weights.

He et al., "Deep residual learning for image recognition", CVPR 2016, in torchvision's variant: the
stride of a bottleneck stands on its 3x3 convolution, padding is explicit (XLA's `SAME` pads a
strided convolution on one side only), and batch normalisation keeps 0.9 of its running mean.
Modules are named as in torchvision: `conv1`, `bn1`, `layer1_0`, ..., each with `downsample`.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from mtl_jax.models.convolution import Conv

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)

NORMS = ("batch", "group", "frozen")
# Added to variances, as in PyTorch.
EPSILON = 1e-5

conv = partial(Conv, use_bias=False)


class BatchNorm(nn.BatchNorm):
    """Flax's batch normalisation, which also works with strict dtype promotion.

    It subtracts a float32 mean from features of any type, as it should.
    """

    def __call__(self, *args: Any, **kwargs: Any) -> jax.Array:
        with jax.numpy_dtype_promotion("standard"):
            return super().__call__(*args, **kwargs)


def batch_norm(train: bool, axis_name: str | None, dtype: DTypeLike) -> Callable[..., nn.Module]:
    """Makes BatchNorm with PyTorch's defaults and statistics over all devices of `axis_name`.

    One difference: the running variance averages the biased variances of the batches, where PyTorch
    multiplies each by n / (n - 1) with n values per channel. Evaluation differs where n is small.
    """
    if train and axis_name is not None and jax.lax.psum(1, axis_name) == 1:
        axis_name = None  # A single device has nothing to reduce over.
    return partial(
        BatchNorm,
        use_running_average=not train,
        momentum=0.9,
        epsilon=EPSILON,
        dtype=dtype,
        axis_name=axis_name,
    )


class GroupNorm(nn.Module):
    """Group normalisation (Wu and He, 2018): each image alone, in up to 32 groups of channels."""

    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        channels = x.shape[-1]
        scale = self.param("scale", nn.initializers.ones, (channels,))
        bias = self.param("bias", nn.initializers.zeros, (channels,))
        groups = math.gcd(channels, 32)
        grouped = x.astype(jnp.float32).reshape(*x.shape[:-1], groups, channels // groups)
        axes = (1, 2, 4)  # [B, h, w, groups, channels / groups]
        centred = grouped - jnp.mean(grouped, axes, keepdims=True)
        variance = jnp.mean(jnp.square(centred), axes, keepdims=True)
        normal = (centred * jax.lax.rsqrt(variance + EPSILON)).reshape(x.shape)
        return (normal * scale + bias).astype(self.dtype)


def normalization(
    norm: str, *, train: bool, axis_name: str | None, dtype: DTypeLike
) -> Callable[..., nn.Module]:
    """Makes the normalisation of a network.

    Args:
      norm: one of `NORMS`: "batch"; "group", of each image alone; or "frozen", batch normalisation
        by the running statistics in training, too, which then never change.
      train: whether the network is being trained.
      axis_name: mapped axis of the devices over which batch statistics are taken.
      dtype: dtype of the output.
    """
    if norm == "group":
        return partial(GroupNorm, dtype=dtype)
    return batch_norm(train and norm != "frozen", axis_name, dtype)


class ConvBlock(nn.Module):
    """A 3x3 convolution, normalisation, ReLU: f32[B, h, w, C] to f32[B, h, w, channels]."""

    channels: int
    use_bias: bool = False
    dtype: DTypeLike = jnp.float32
    axis_name: str | None = None
    norm: str = "batch"

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        x = Conv(
            self.channels,
            (3, 3),
            padding=1,
            use_bias=self.use_bias,
            dtype=self.dtype,
            name="conv",
        )(x)
        norm = normalization(self.norm, train=train, axis_name=self.axis_name, dtype=self.dtype)
        return nn.relu(norm(name="bn")(x))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut."""

    channels: int
    stride: int
    norm: Callable[..., nn.Module]
    dtype: DTypeLike
    expansion = 1

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        three = partial(conv, self.channels, (3, 3), padding=1, dtype=self.dtype)
        y = three(strides=self.stride, name="conv1")(x)
        y = nn.relu(self.norm(name="bn1")(y))
        y = self.norm(name="bn2")(three(name="conv2")(y))
        return nn.relu(y + shortcut(x, y.shape, self.stride, self.norm, self.dtype))


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions and a shortcut."""

    channels: int
    stride: int
    norm: Callable[..., nn.Module]
    dtype: DTypeLike
    expansion = 4

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        y = conv(self.channels, (1, 1), dtype=self.dtype, name="conv1")(x)
        y = nn.relu(self.norm(name="bn1")(y))
        y = conv(self.channels, (3, 3), self.stride, padding=1, dtype=self.dtype, name="conv2")(y)
        y = nn.relu(self.norm(name="bn2")(y))
        y = conv(self.channels * self.expansion, (1, 1), dtype=self.dtype, name="conv3")(y)
        y = self.norm(name="bn3")(y)
        return nn.relu(y + shortcut(x, y.shape, self.stride, self.norm, self.dtype))


def shortcut(
    x: jax.Array,
    shape: Sequence[int],
    stride: int,
    norm: Callable[..., nn.Module],
    dtype: DTypeLike,
) -> jax.Array:
    """Returns the block's input, projected where its shape is not that of the block's output."""
    if x.shape == tuple(shape):
        return x
    x = conv(shape[-1], (1, 1), stride, padding=0, dtype=dtype, name="downsample_conv")(x)
    return norm(name="downsample_bn")(x)


def for_channels(statistics: Sequence[float], channels: int) -> list[float]:
    """Returns a statistic of red, green and blue for images of 1, 3 or more channels.

    Channels that are no colours get the mean of the three.
    """
    colours = list(statistics) if channels >= 3 else []
    mean = sum(statistics) / len(statistics)
    return colours + [mean] * (channels - len(colours))


def pool(x: jax.Array, *, axis: int) -> jax.Array:
    """Returns the maximum of every three neighbours along an axis, with stride two.

    Applied along both axes, it is PyTorch's max_pool2d(3, 2, 1). On CPU its gradient takes a fifth
    of the time of `nn.max_pool`'s. Equal maxima share their gradient.
    """
    padding = [(1, 1) if i == axis else (0, 0) for i in range(x.ndim)]
    padded = jnp.pad(x, padding, constant_values=-jnp.inf)
    last = 2 * ((x.shape[axis] - 1) // 2)
    left, middle, right = (
        jax.lax.slice_in_dim(padded, i, i + last + 1, stride=2, axis=axis) for i in range(3)
    )
    return jnp.maximum(jnp.maximum(left, middle), right)


class ResNet(nn.Module):
    """The encoder: five feature maps, at 1/2, 1/4, 1/8, 1/16 and 1/32 of the image.

    Attributes:
      stages: number of blocks in each of the four stages.
      block: BasicBlock or Bottleneck.
      dtype: dtype of the computation; parameters are float32.
      axis_name: devices over which batch statistics are taken, None for one.
      norm: see `normalization`.
    """

    stages: Sequence[int]
    block: type[nn.Module]
    dtype: DTypeLike = jnp.float32
    axis_name: str | None = None
    norm: str = "batch"

    @nn.compact
    def __call__(self, image: jax.Array, *, train: bool) -> list[jax.Array]:
        """Returns the features of images f32[B, H, W, C] in 0..1, normalised as for ImageNet."""
        norm = normalization(self.norm, train=train, axis_name=self.axis_name, dtype=self.dtype)
        mean, deviation = (for_channels(each, image.shape[-1]) for each in (MEAN, STD))
        x = ((image - jnp.array(mean)) / jnp.array(deviation)).astype(self.dtype)
        x = conv(64, (7, 7), 2, padding=3, dtype=self.dtype, name="conv1")(x)
        x = nn.relu(norm(name="bn1")(x))
        features = [x]  # [B, H/2, W/2, 64]
        x = pool(pool(x, axis=1), axis=2)
        for stage, blocks in enumerate(self.stages):
            for index in range(blocks):
                stride = 2 if stage > 0 and index == 0 else 1
                name = f"layer{stage + 1}_{index}"
                x = self.block(64 * 2**stage, stride, norm, self.dtype, name=name)(x)
            features.append(x)  # [B, H/2^(stage+2), ..., 64 * 2^stage * expansion]
        return features


BACKBONES = {
    "resnet18": partial(ResNet, stages=(2, 2, 2, 2), block=BasicBlock),
    "resnet34": partial(ResNet, stages=(3, 4, 6, 3), block=BasicBlock),
    "resnet50": partial(ResNet, stages=(3, 4, 6, 3), block=Bottleneck),
    "resnet101": partial(ResNet, stages=(3, 4, 23, 3), block=Bottleneck),
}
