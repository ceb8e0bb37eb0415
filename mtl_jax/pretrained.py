"""Weights to start from: a ResNet encoder's of others, or all of a run's; and the way back."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from mtl_jax.models import Variables

ENCODER = (jax.tree_util.DictKey("trunk"), jax.tree_util.DictKey("encoder"))
# What others put before the names of an encoder.
PREFIXES = ("module.", "model.", "encoder.", "backbone.", "trunk.")
NAMES = {
    "kernel": "weight", "scale": "weight", "bias": "bias", "mean": "running_mean",
    "var": "running_var",
}  # fmt: skip


class Loaded(NamedTuple):
    """What became of a file's tensors.

    Attributes:
      variables: with the file's weights.
      count: of the tensors taken for the encoder.
      others: of those taken for the rest of the trunk and for heads, which only `export` writes.
      skipped: names in the file that nothing here has, such as the classifier's, or a head's of
        another number of classes.
      missed: names of the encoder's other tensors than kernels that the file does not hold, left as
        they were.
    """

    variables: Variables
    count: int
    others: int
    skipped: list[str]
    missed: list[str]


def read(path: str | Path) -> dict[str, np.ndarray]:
    """The tensors of a .safetensors file, or of a .pth or .pt one, for which PyTorch is needed.

    Raises:
      ValueError: if there is no such file, it is neither, or it holds more than tensors.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise ValueError(f"--pretrained={path}: there is no such file")
    if path.suffix == ".safetensors":
        try:
            return load_file(path)
        except Exception as error:  # types that NumPy lacks are answered by several kinds
            raise ValueError(
                f"--pretrained={path}: not a safetensors file of plain numbers ({error})"
            ) from error
    if path.suffix not in (".pth", ".pt"):
        raise ValueError(f"--pretrained={path}: give a .safetensors, .pth or .pt file")
    try:
        import torch
    except ImportError as error:
        raise ValueError(
            f"--pretrained={path}: to read it needs PyTorch: pip install 'mtl_jax[torch]', or give "
            "a .safetensors file"
        ) from error
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds, pickle's among them
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:120]
        raise ValueError(
            f"--pretrained={path}: no plain file of weights ({reason}); nothing in it was run"
        ) from error
    found = found.get("state_dict", found) if isinstance(found, dict) else {}
    if not isinstance(found, dict):
        raise ValueError(f"--pretrained={path}: its state_dict is no dictionary of weights")
    return {
        name: tensor.detach().to_dense().float().numpy()
        for name, tensor in found.items()
        if isinstance(tensor, torch.Tensor) and isinstance(name, str)
    }


def put_into(
    variables: Variables, tensors: Mapping[str, np.ndarray], *, source: str = "the file"
) -> Loaded:
    """Variables with the encoder's parameters and running statistics out of the tensors.

    Of tensors that `export` wrote, the rest of the trunk and the heads are taken as well.

    Args:
      variables: of a network whose trunk has an `encoder`.
      tensors: by PyTorch's names, with or without one of `PREFIXES`.
      source: where they are from, to name in complaints.

    Raises:
      ValueError: if a shape differs, a kernel of the encoder is missing, or hardly any name is that
        of a ResNet encoder.
    """
    plain = {_strip(name): np.asarray(array) for name, array in tensors.items()}
    taken: set[str] = set()
    others: set[str] = set()
    missed = []

    def take(path: Any, leaf: jax.Array) -> jax.Array:
        of_encoder = path[:2] == ENCODER
        name = torch_name(path[2:] if of_encoder else path)
        known = plain if of_encoder else tensors
        if name not in known:
            if of_encoder:
                missed.append(name)
            return leaf
        array = np.asarray(known[name])
        if array.ndim == 4:
            array = array.transpose(2, 3, 1, 0)  # [out, in, h, w] -> [h, w, in, out]
        if array.shape != leaf.shape:
            if not of_encoder:  # a head of another number of classes starts afresh
                return leaf
            raise ValueError(
                f"--pretrained: {name} of {source} has the shape {known[name].shape}, which does "
                f"not fit {leaf.shape} here: set --backbone to the network that it is of"
            )
        (taken if of_encoder else others).add(_strip(name))
        return jnp.asarray(array, leaf.dtype)

    new = [jax.tree_util.tree_map_with_path(take, tree) for tree in variables]
    if len(taken) < len(missed):
        raise ValueError(
            f"--pretrained: {source} is no ResNet as torchvision names it: it holds {len(taken)} "
            f"of the {len(taken) + len(missed)} tensors, and {', '.join(sorted(plain)[:3])}, ..."
        )
    kernels = [name for name in missed if "conv" in name or name.endswith("downsample.0.weight")]
    if kernels:
        raise ValueError(
            f"--pretrained: {source} has no {kernels[0]}, nor {len(kernels) - 1} other kernels: "
            "set --backbone to the network that it is of"
        )
    skipped = [
        name
        for name in sorted(plain)
        if name not in taken | others and not name.endswith("num_batches_tracked")
    ]
    return Loaded(Variables(*new), len(taken), len(others), skipped, missed)


def export(variables: Variables, path: str | Path) -> int:
    """Writes all variables as safetensors; the number of tensors. ValueError if it can't.

    The encoder's names are torchvision's behind `encoder.`, its kernels [out, in, h, w], so that
    `read` and `put_into` take the file back, and PyTorch does without the prefix.
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
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        save_file(found, path)
    except (SafetensorError, OSError) as error:
        raise ValueError(f"--out={path}: can't be written ({error})") from error
    return len(found)


def torch_name(path: Any) -> str:
    """PyTorch's name of a leaf of the encoder, such as layer1.0.downsample.1.running_var."""
    *modules, leaf = (key.key for key in path)
    dotted = ".".join([*modules, NAMES[leaf]])
    dotted = dotted.replace("downsample_conv", "downsample.0")
    dotted = dotted.replace("downsample_bn", "downsample.1")
    return re.sub(r"\blayer(\d)_(\d+)", r"layer\1.\2", dotted)


def _strip(name: str) -> str:
    stripped = True
    while stripped:
        stripped = False
        for prefix in PREFIXES:
            if name.startswith(prefix):
                name, stripped = name.removeprefix(prefix), True
    return name
