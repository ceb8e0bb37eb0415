"""Images of 1, 3 or 4 channels: grey; red, green and blue; and these with the depth of a sensor.

The fourth channel holds depth in equal steps from 1 to 255, which stands for a largest depth and
all beyond it; 0 = missing.
"""

from typing import Any

import numpy as np

CHANNELS = (1, 3, 4)
# Number of colour channels, and thus the index of the depth channel, which follows them.
COLOURS = 3
# Weights of red, green and blue in grey, in parts of 65536, as in Pillow's mode L.
LUMA = (19595, 38470, 7471)


def in_colour(images: np.ndarray) -> np.ndarray:
    """Returns images u8[..., C] as they are shown, in red, green and blue u8[..., 3]."""
    if images.shape[-1] == 1:
        return np.repeat(images, COLOURS, axis=-1)
    return images[..., :COLOURS]


def in_grey(images: np.ndarray) -> np.ndarray:
    """Returns images u8[..., 3] as grey ones u8[..., 1]; grey pixels keep their number."""
    summed = images.astype(np.uint32) @ np.array(LUMA, np.uint32)
    return ((summed + 0x8000) >> 16).astype(np.uint8)[..., None]


def with_depth(images: np.ndarray, depth: np.ndarray, largest: float) -> np.ndarray:
    """Returns images u8[..., 3] with a sensor's depth as the fourth channel, u8[..., 4].

    Args:
      images: red, green and blue.
      depth: [...] in metres, 0 = missing.
      largest: depth in metres that 255 stands for.
    """
    steps = np.clip(np.rint(depth * (255 / largest)), 1, 255)
    coded = np.where(depth > 0, steps, 0).astype(np.uint8)
    return np.concatenate([images, coded[..., None]], axis=-1)


def divided(images: Any) -> tuple[Any, Any]:
    """Returns the colours of images [..., C], and what follows them: the depth or no channel.

    Both are arrays of the kind of the images, of NumPy or JAX.
    """
    return images[..., :COLOURS], images[..., COLOURS:]
