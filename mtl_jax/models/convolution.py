"""Convolutions with a faster gradient on a CPU, where maps are small and channels many.

XLA finds both gradients of a convolution by a convolution. For that of the input it first
transposes the kernel, and for that of the kernel it transposes the input, the output's gradient and
the result. On the last maps of a network that takes longer than the convolution itself: 3x4 pixels
meet kernels of 9 MB. As matrix products with the patches that the kernel sees, one row for each
pixel of the output, the gradients need no transposition but that of the patches.
"""

import math
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

# The patches pay up to this number of pixels of the output for each of its channels.
PIXELS_PER_CHANNEL = 2


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
    if ordinary and by_products(x, kernel, window):
        return _convolve(x, kernel, window)
    return jax.lax.conv_general_dilated(
        x, kernel, strides, padding, rhs_dilation=rhs_dilation, **how
    )


class Conv(nn.Conv):
    """Flax's convolution of images, by `convolve`."""

    conv_general_dilated_cls: Any = lambda: convolve


def by_products(x: jax.Array, kernel: jax.Array, window: Window) -> bool:
    """Returns whether matrix products find the gradients of a convolution faster.

    They do on a CPU, in single precision. An exported program, whose number of images is open,
    has no gradients.
    """
    if jax.default_backend() != "cpu" or not x.dtype == kernel.dtype == jnp.float32:
        return False
    if not all(isinstance(n, int) for n in x.shape):
        return False
    output = jax.eval_shape(partial(plain, window=window), x, kernel).shape
    return math.prod(output[:-1]) <= PIXELS_PER_CHANNEL * output[-1]


def plain(x: jax.Array, kernel: jax.Array, window: Window) -> jax.Array:
    """Returns the convolution [B, h', w', channels] with JAX's own gradient."""
    strides, padding, dilation = window
    layout = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(
        x, kernel, strides, padding, rhs_dilation=dilation, dimension_numbers=layout
    )


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def _convolve(x: jax.Array, kernel: jax.Array, window: Window) -> jax.Array:
    return plain(x, kernel, window)


def _forward(
    x: jax.Array, kernel: jax.Array, window: Window
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return plain(x, kernel, window), (x, kernel)


def _backward(
    window: Window, kept: tuple[jax.Array, jax.Array], gradient: jax.Array
) -> tuple[jax.Array, jax.Array]:
    x, kernel = kept
    size, channels = kernel.shape[:2], kernel.shape[-1]
    map_size = gradient.shape[1:3]
    seen, spread = jax.vjp(lambda x: patches(x, size, map_size, window), x)
    rows = gradient.reshape(-1, channels)
    # Without the barrier XLA would multiply by the transposed patches, which is slower.
    columns = jax.lax.optimization_barrier(seen.reshape(len(rows), -1).T)
    of_patches = rows @ kernel.reshape(-1, channels).T
    (of_input,) = spread(of_patches.reshape(seen.shape))
    return of_input, (columns @ rows).reshape(kernel.shape)


_convolve.defvjp(_forward, _backward)


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
