"""Weights for other frameworks: all variables of a network as one safetensors file."""

import os
from pathlib import Path

import jax
import numpy as np
from safetensors.numpy import save

from mtl_jax import files
from mtl_jax.models import Variables
from mtl_jax.models.pretrained import ENCODER, torch_name


def export(variables: Variables, out: str | os.PathLike) -> int:
    """Writes all variables as safetensors and returns the number of tensors.

    The encoder's tensors have torchvision's names after the prefix `encoder.`, and kernels are
    [out, in, h, w], so that `models.pretrained` can read the file. Without the prefix, PyTorch can
    load them, too.

    Raises:
      ValueError: if the file can't be written.
    """
    found = {}
    for tree in jax.device_get(tuple(variables)):
        for keys, leaf in jax.tree_util.tree_leaves_with_path(tree):
            array = np.asarray(leaf)
            if array.ndim == 4:
                array = array.transpose(3, 2, 0, 1)
            of_encoder = keys[:2] == ENCODER
            name = f"encoder.{torch_name(keys[2:])}" if of_encoder else torch_name(keys)
            found[name] = np.ascontiguousarray(array)
    try:
        Path(out).parent.mkdir(parents=True, exist_ok=True)
        files.write(out, save(found))
    except OSError as error:
        raise ValueError(f"`out`={out}: can't be written ({error.strerror})") from error
    return len(found)
