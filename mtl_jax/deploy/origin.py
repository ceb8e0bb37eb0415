"""Where a trained network comes from, as its exported folder records it."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np


class Origin(NamedTuple):
    """What a run leaves besides its network.

    Attributes:
      config: what its config.json holds.
      step: training step of the network's state.
      result: what its result.json holds, if that is of the same state; else empty.
      versions: what its versions.json holds.
      codebook: codewords f32[K, 3] of normals that are classes; None for a network without.
      samples: what its samples.npz holds, images and labels of the test split among them.
      licence: licence of the training data, in a sentence.
      limits: what the data do not prepare a network for, in sentences.
    """

    config: Mapping[str, Any]
    step: int
    result: Mapping[str, Any]
    versions: Mapping[str, str]
    codebook: np.ndarray | None
    samples: Mapping[str, np.ndarray]
    licence: str
    limits: Sequence[str]
