"""One frame of NYU-Depth V2 as it is stored on disk, in either layout."""

from typing import NamedTuple

import numpy as np

# fx fy cx cy of the colour camera at 480x640, from the data set's own toolbox; depth is
# registered to it.
INTRINSICS = np.array([518.85790117, 519.46961112, 325.58244941, 253.73616633])
SHAPE = (480, 640)


class Frame(NamedTuple):
    """A frame at the size of its file.

    Attributes:
      image: f32[H, W, 3] in 0..255.
      segmentation: int8[H, W], class, -1 = void.
      depth: f32[H, W] in metres, 0 = missing.
      normals: f32[H, W, 3], unit, camera frame, 0 = missing; None if the file has none.
    """

    image: np.ndarray
    segmentation: np.ndarray
    depth: np.ndarray
    normals: np.ndarray | None = None
