"""Convolutions with faster gradients on a CPU, by matrix products.

XLA finds both gradients of a convolution by a convolution. For that of the input it first
transposes the kernel, and for that of the kernel it transposes the input, the output's gradient and
the result. Two kinds of layers gain by a product with patches, the pixels under a kernel:

- Small maps with many channels, where 3x4 pixels meet kernels of 9 MiB and the transpositions take
  longer than the convolution. Patches of the input, one row for each pixel of the output, give both
  gradients.
- Larger maps with no more channels in the output than in the input, where XLA finds the kernel's
  gradient on one core only. It is the product of patches of the output's gradient with the input.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

# Patches of the input pay up to this number of pixels of the output for each of its channels.
PIXELS_PER_CHANNEL = 2
# Numbers in the largest patches of the output's gradient, 128 MiB.
LARGEST_PATCHES = 2**25


class Window(NamedTuple):
    """How a kernel moves over the map; each entry has a value for height and one for width.

    Attributes:
      strides: from one pixel of the output to the next.
      padding: zeros before and after the map.
      dilation: from one pixel of the kernel to the next.
    """

    strides: tuple[int, int]
    padding: tuple[tuple[int, int], tuple[int, int]]
    dilation: tuple[int, int]


class Rule(NamedTuple):
    """How the gradients of a convolution are found.

    Attributes:
      keep: input -> what the backward pass needs of it.
      gradients: (kept, kernel, gradient of the output, window) -> those of input and kernel.
    """

    keep: Callable[[jax.Array], jax.Array]
    gradients: Callable[[jax.Array, jax.Array, jax.Array, Window], tuple[jax.Array, jax.Array]]


def convolve(
    x: jax.Array,
    kernel: jax.Array,
    strides: tuple[int, int],
    padding: str | Sequence[tuple[int, int]],
    *,
    rhs_dilation: tuple[int, int],
    **how: Any,
) -> jax.Array:
    """Returns `jax.lax.conv_general_dilated` of images with the faster of two gradients.

    Args:
      x: [B, h, w, C].
      kernel: [height, width, C, channels].
      strides: see `Window`.
      padding: see `Window`, or a name that JAX knows.
      rhs_dilation: see `Window`.
      **how: further arguments, as `nn.Conv` gives them.
    """
    dilated = [1 + (n - 1) * rate for n, rate in zip(kernel.shape, rhs_dilation, strict=False)]
    if isinstance(padding, str):
        padding = jax.lax.padtype_to_pads(x.shape[1:3], dilated, strides, padding)
    height, width = padding
    window = Window(strides, (height, width), rhs_dilation)
    ordinary = kernel.shape[2] == x.shape[3] and how.get("lhs_dilation") in (None, (1, 1))
    ordinary &= how.get("precision") is None and how.get("preferred_element_type") is None
    if ordinary and (rule := gradient_rule(x, kernel, window)):
        return _convolve(x, kernel, window, rule)
    return jax.lax.conv_general_dilated(
        x, kernel, strides, padding, rhs_dilation=rhs_dilation, **how
    )


def promote_all_but_bias(
    x: jax.Array, kernel: jax.Array, bias: jax.Array | None, *, dtype: DTypeLike
) -> tuple[jax.Array, jax.Array, jax.Array | None]:
    """Returns the operands of a convolution in the computation's dtype, the bias unchanged."""
    return x.astype(dtype), kernel.astype(dtype), bias


class PlainConv(nn.Conv):
    """Flax's convolution of images, whose bias is added in float32.

    The gradient of a bias is a sum over all pixels of a batch. XLA adds them up in the dtype of the
    bias, and in bfloat16 a sum stops growing at some hundred times its terms.
    """

    dtype: Any = jnp.float32
    promote_dtype: Any = promote_all_but_bias

    def __call__(self, inputs: jax.Array) -> jax.Array:
        with jax.numpy_dtype_promotion("standard"):
            return super().__call__(inputs).astype(self.dtype)


class Conv(PlainConv):
    """`PlainConv` with the faster gradients of `convolve`."""

    conv_general_dilated_cls: Any = lambda: convolve


def gradient_rule(x: jax.Array, kernel: jax.Array, window: Window) -> Rule | None:
    """Returns the fastest rule for the gradients of a convolution; None for JAX's own.

    Products are faster on a CPU, in single precision. An exported program, whose number of images
    is open, has no gradients.
    """
    if jax.default_backend() != "cpu" or not x.dtype == kernel.dtype == jnp.float32:
        return None
    if not all(isinstance(n, int) for n in x.shape):
        return None
    *pixels, channels = jax.eval_shape(partial(plain, window=window), x, kernel).shape
    if math.prod(pixels) <= PIXELS_PER_CHANNEL * channels:
        return BY_PATCHES_OF_INPUT
    patch = math.prod(kernel.shape[:2]) * channels
    narrow = channels <= x.shape[-1] and patch * math.prod(x.shape[:-1]) <= LARGEST_PATCHES
    # The gradient's padding, which must not cut anything off.
    inside = all(min(pads) >= 0 for pads in gradient_padding(kernel, window))
    if narrow and inside and window.strides == (1, 1) and kernel.shape[:2] != (1, 1):
        return BY_PATCHES_OF_GRADIENT
    return None


def plain(x: jax.Array, kernel: jax.Array, window: Window) -> jax.Array:
    """Returns the convolution [B, h', w', channels] with JAX's own gradient."""
    strides, padding, dilation = window
    layout = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(
        x, kernel, strides, padding, rhs_dilation=dilation, dimension_numbers=layout
    )


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _convolve(x: jax.Array, kernel: jax.Array, window: Window, rule: Rule) -> jax.Array:
    return plain(x, kernel, window)


def _forward(
    x: jax.Array, kernel: jax.Array, window: Window, rule: Rule
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return plain(x, kernel, window), (rule.keep(x), kernel)


def _backward(
    window: Window, rule: Rule, kept: tuple[jax.Array, jax.Array], gradient: jax.Array
) -> tuple[jax.Array, jax.Array]:
    return rule.gradients(*kept, gradient, window)


_convolve.defvjp(_forward, _backward)


def by_patches_of_input(
    x: jax.Array, kernel: jax.Array, gradient: jax.Array, window: Window
) -> tuple[jax.Array, jax.Array]:
    """Returns the gradients of the input and the kernel, for a small map."""
    size, channels = kernel.shape[:2], kernel.shape[-1]
    map_size = gradient.shape[1:3]
    seen, spread = jax.vjp(lambda x: patches(x, size, map_size, window), x)
    rows = gradient.reshape(-1, channels)
    # Without the barrier XLA would multiply by the transposed patches, which is slower.
    columns = jax.lax.optimization_barrier(seen.reshape(len(rows), -1).T)
    of_patches = rows @ kernel.reshape(-1, channels).T
    (of_input,) = spread(of_patches.reshape(seen.shape))
    return of_input, (columns @ rows).reshape(kernel.shape)


def by_patches_of_gradient(
    x: jax.Array, kernel: jax.Array, gradient: jax.Array, window: Window
) -> tuple[jax.Array, jax.Array]:
    """Returns the gradients of the input and the kernel, for strides of 1.

    Args:
      x: the input by `rows_first`.
    """
    h, batch_size, w, inputs = x.shape
    height, width, _, channels = kernel.shape
    images = jax.ShapeDtypeStruct((batch_size, h, w, inputs), x.dtype)
    (of_input,) = jax.linear_transpose(lambda x: plain(x, kernel, window), images)(gradient)
    padding = gradient_padding(kernel, window)
    planes = jnp.pad(gradient, ((0, 0), *padding, (0, 0))).transpose(3, 1, 0, 2)
    # The barriers keep XLA from transposing anew for each of the patches' parts.
    planes = jax.lax.optimization_barrier(planes)  # [channels, h + padding, B, w + padding]
    # A pixel of the input meets the pixels of the kernel in the opposite order.
    rows, columns = (
        [rate * i for i in reversed(range(n))]
        for n, rate in zip((height, width), window.dilation, strict=True)
    )
    shifted = jnp.stack([planes[..., column : column + w] for column in columns])
    shifted = jax.lax.optimization_barrier(shifted)  # [width, channels, h + padding, B, w]
    seen = jnp.stack([shifted[:, :, row : row + h] for row in rows])
    seen = jax.lax.optimization_barrier(seen.reshape(-1, h * batch_size * w))
    product = (seen @ x.reshape(-1, inputs)).reshape(height, width, channels, inputs)
    return of_input, product.swapaxes(2, 3)


def rows_first(x: jax.Array) -> jax.Array:
    """Returns images [h, B, w, C], in which a shift by some rows is one piece of memory."""
    return jax.lax.optimization_barrier(x.transpose(1, 0, 2, 3))


def gradient_padding(kernel: jax.Array, window: Window) -> list[tuple[int, int]]:
    """Returns the padding with which a kernel sees a gradient as the input saw the kernel."""
    reach = [(n - 1) * rate for n, rate in zip(kernel.shape, window.dilation, strict=False)]
    return [(n - low, n - high) for n, (low, high) in zip(reach, window.padding, strict=True)]


def patches(
    x: jax.Array, size: tuple[int, ...], map_size: tuple[int, ...], window: Window
) -> jax.Array:
    """Returns what the kernel sees for each pixel of the output.

    Args:
      x: [B, h, w, C].
      size: height and width of the kernel.
      map_size: h', w', those of the output.
      window: how the kernel moves.

    Returns:
      [B, h', w', height, width, C].
    """
    padded = jnp.pad(x, ((0, 0), *window.padding, (0, 0)))
    rows, columns = (
        [slice(i * rate, i * rate + (steps - 1) * stride + 1, stride) for i in range(n)]
        for n, steps, stride, rate in zip(
            size, map_size, window.strides, window.dilation, strict=True
        )
    )
    # First rows, then columns: fewer slices to compile than one for each pixel of the kernel.
    of_rows = jnp.stack([padded[:, row] for row in rows], axis=3)  # [B, h', w + padding, height, C]
    return jnp.stack([of_rows[:, :, column] for column in columns], axis=4)


BY_PATCHES_OF_INPUT = Rule(lambda x: x, by_patches_of_input)
BY_PATCHES_OF_GRADIENT = Rule(rows_first, by_patches_of_gradient)
