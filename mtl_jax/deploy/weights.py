"""All variables of a network as named tensors, and back.

The encoder's tensors have torchvision's names after the prefix `encoder.`, and kernels are
[out, in, h, w], so that `models.pretrained` can read the file, and PyTorch without the prefix.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.tree_util import KeyPath
from safetensors.numpy import load

from mtl_jax import models
from mtl_jax.models.pretrained import ENCODER, torch_name
from mtl_jax.models.tensor_files import finite_floats


def tensors_of(variables: models.Variables) -> dict[str, np.ndarray]:
    """Returns all variables by their names in a file."""
    found = {}
    for tree in jax.device_get(tuple(variables)):
        for keys, leaf in jax.tree_util.tree_leaves_with_path(tree):
            array = np.asarray(leaf)
            array = array.transpose(3, 2, 0, 1) if array.ndim == 4 else array
            found[name_of(keys)] = np.ascontiguousarray(array)
    return found


def variables_of(
    tensors: Mapping[str, np.ndarray],
    network: models.Network,
    image_size: tuple[int, int],
    *,
    source: str | Path,
) -> models.Variables:
    """Returns the variables of a network from all their tensors.

    Args:
      tensors: tensors by name, from `tensors_of`.
      source: their origin, for error messages.

    Raises:
      ValueError: if one is missing, has another shape or is not finite.
    """

    def take(path: KeyPath, leaf: jax.ShapeDtypeStruct) -> np.ndarray:
        name = name_of(path)
        if name not in tensors:
            raise ValueError(
                f"{source} has no {name}: it holds another network; export the run again"
            )
        array = finite_floats(f"{name} of {source}", tensors[name])
        array = array.transpose(2, 3, 1, 0) if array.ndim == 4 else array
        if array.shape != leaf.shape:
            raise ValueError(
                f"{name} of {source} has another shape: it holds another network; export the run "
                "again"
            )
        return array

    shapes = models.shapes(network, image_size)
    return jax.tree_util.tree_map_with_path(take, shapes)


def read(path: Path) -> dict[str, np.ndarray]:
    """Returns the tensors of a safetensors file.

    Raises:
      ValueError: if it is damaged.
      OSError: if it can't be read.
    """
    content = path.read_bytes()
    try:
        return load(content)
    except Exception as error:  # safetensors raises several kinds
        raise ValueError(f"{path} is damaged ({error}): export the run again") from error


def name_of(keys: KeyPath) -> str:
    """Returns the name of a leaf of variables, such as `encoder.layer1.0.conv1.weight`."""
    if keys and isinstance(keys[0], jax.tree_util.GetAttrKey):
        keys = keys[1:]
    of_encoder: Any = keys[:2] == ENCODER
    return f"encoder.{torch_name(keys[2:])}" if of_encoder else torch_name(keys)
