"""Batch normalisation folded into the convolutions before it, as a finished network allows.

With fixed statistics, a convolution and its normalisation are one convolution with other kernels
and a bias, which saves a pass over every feature map.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from mtl_jax import models
from mtl_jax.weighting.contract import PyTree

# Names of modules, from the outermost one on.
Path = tuple[str, ...]


def fold(
    network: models.Network, variables: models.Variables, image_size: tuple[int, int]
) -> models.Variables:
    """Returns the variables of the folded network, which works inside `folded`.

    Scales and running statistics of the normalisations are gone; their biases are left.

    Args:
      image_size: height and width of any image that the network accepts.

    Raises:
      ValueError: for a normalisation of anything but the output of a convolution.
    """
    image = jax.ShapeDtypeStruct((1, *image_size, network.channels), jnp.float32)
    params, batch_stats = jax.device_get(tuple(variables))
    of_trunk = {"params": params["trunk"], "batch_stats": batch_stats["trunk"]}
    trunk, features = _fold_module(network.trunk, of_trunk, image)
    heads = {}
    for name, head in network.heads.items():
        of_head = {"params": params["heads"][name], "batch_stats": batch_stats["heads"][name]}
        heads[name], _ = _fold_module(head, of_head, features, size=image_size)
    return models.Variables(
        params={"trunk": trunk, "heads": heads},
        batch_stats={"trunk": {}, "heads": {name: {} for name in heads}},
    )


@contextmanager
def folded() -> Iterator[None]:
    """Makes normalisations add their bias and do nothing else."""

    def add_bias(call: Callable, args: Any, kwargs: Any, context: Any) -> Any:
        if not _is_call(context, nn.BatchNorm):
            return call(*args, **kwargs)
        (x,) = args
        return x + context.module.get_variable("params", "bias").astype(x.dtype)

    with nn.intercept_methods(add_bias):
        yield


def _fold_module(
    module: nn.Module, variables: dict[str, PyTree], *inputs: PyTree, **options: Any
) -> tuple[PyTree, PyTree]:
    """Returns the folded parameters of a trunk or a head, and the shapes of its output."""
    before: dict[Path, tuple[Path, float]] = {}
    outputs: list[tuple[jax.Array, Path]] = []

    def watch(call: Callable, args: Any, kwargs: Any, context: Any) -> Any:
        result = call(*args, **kwargs)
        if _is_call(context, nn.Conv):
            outputs.append((result, context.module.path))
        elif _is_call(context, nn.BatchNorm):
            found = [path for output, path in outputs if output is args[0]]
            if not found:
                name = ".".join(context.module.path)
                raise ValueError(f"{name} normalises something else than a convolution")
            before[context.module.path] = found[0], context.module.epsilon
        return result

    with nn.intercept_methods(watch):
        output = jax.eval_shape(partial(module.apply, train=False, **options), variables, *inputs)
    params: dict[Path, Any] = dict(flatten_dict(variables["params"]))
    stats: dict[Path, Any] = dict(flatten_dict(variables["batch_stats"]))
    for norm, (conv, epsilon) in before.items():
        variance = stats[*norm, "var"].astype(np.float64)
        scale = params.pop((*norm, "scale")) / np.sqrt(variance + epsilon)
        shift = params[*norm, "bias"] - stats[*norm, "mean"] * scale
        params[*norm, "bias"] = shift.astype(params[*norm, "bias"].dtype)
        for leaf in ((*conv, "kernel"), (*conv, "bias")):
            if leaf in params:
                params[leaf] = (params[leaf] * scale).astype(params[leaf].dtype)
    return unflatten_dict(params), output


def _is_call(context: Any, kind: type[nn.Module]) -> bool:
    return isinstance(context.module, kind) and context.method_name == "__call__"
