"""Weights from Flax to PyTorch and gradients back, by their names."""

from collections.abc import Iterable
from typing import Any

import jax
import numpy as np
import torch

from mtl_jax.models import Variables
from mtl_jax.models.pretrained import NAMES


def state_dict(variables: Variables) -> dict[str, torch.Tensor]:
    """Returns parameters and statistics by PyTorch's names, kernels as [out, in, h, w]."""
    found = {}
    for tree in variables:
        for path, leaf in jax.tree_util.tree_leaves_with_path(jax.device_get(tree)):
            *modules, name = (key.key for key in path)
            array = np.asarray(leaf)
            if array.ndim == 4:
                array = array.transpose(3, 2, 0, 1)
            found[".".join([*modules, NAMES[name]])] = torch.from_numpy(array.copy())
    return found


def load(module: torch.nn.Module, variables: Variables) -> None:
    """Gives a twin the weights of a Flax network.

    Raises:
      RuntimeError: if a name or a shape differs.
    """
    counters = {k: v for k, v in module.state_dict().items() if k.endswith("num_batches_tracked")}
    module.load_state_dict({**state_dict(variables), **counters})


def flat_like_flax(tree: Any, named: Iterable[tuple[str, torch.Tensor]]) -> np.ndarray:
    """Returns PyTorch tensors as one vector f64[n], in the order of a Flax pytree's leaves."""
    tensors = {name: tensor.detach().cpu().double().numpy() for name, tensor in named}
    parts = []
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        *modules, name = (key.key for key in path)
        array = tensors[".".join([*modules, NAMES[name]])]
        if leaf.ndim == 4:
            array = array.transpose(2, 3, 1, 0)
        parts.append(array.ravel())
    return np.concatenate(parts)
