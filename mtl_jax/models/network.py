"""Networks: a trunk that the tasks share and a head for each of them."""

import functools
import math
import zlib
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from mtl_jax.models import segnet
from mtl_jax.models.resnet import BACKBONES
from mtl_jax.models.unet import Head, UNet
from mtl_jax.tasks import Task

MODELS = ("resnet_unet", "segnet", "mtan")
# What every entry of a variable that is no kernel starts at.
START = {"bias": 0.0, "scale": 1.0, "mean": 0.0, "var": 1.0}


class Network(NamedTuple):
    """Flax modules; their variables live under the same names, `trunk` and `heads`.

    Attributes:
      trunk: images f32[B, H, W, 3] in 0..1 -> features.
      heads: for each task, (features, size) -> raw output f32[B, H, W, channels].
    """

    trunk: nn.Module
    heads: dict[str, nn.Module]


class Variables(NamedTuple):
    """What a network learns (`params`) and what it averages (`batch_stats`).

    Both are dicts `{"trunk": ..., "heads": {task: ...}}` of float32 arrays.
    """

    params: dict[str, Any]
    batch_stats: dict[str, Any]


def build(
    tasks: Sequence[Task],
    *,
    num_classes: int,
    model: str = "resnet_unet",
    backbone: str = "resnet34",
    dtype: Any = jnp.float32,
    axis_name: str | None = None,
) -> Network:
    """A trunk and one head for each of the tasks.

    Args:
      tasks: whose heads to build.
      num_classes: channels of the segmentation head.
      model: one of `MODELS`: "resnet_unet" (with ASPP), "segnet", or "mtan", SegNet whose heads are
        attention branches.
      backbone: one of `BACKBONES`, of the ResNet-U-Net.
      dtype: of the computation; parameters and outputs are float32.
      axis_name: mapped axis of the devices over which batch statistics are taken.

    Raises:
      ValueError: for an unknown model or backbone.
    """
    if model not in MODELS:
        raise ValueError(f"unknown model {model!r}: choose from {', '.join(MODELS)}")
    if backbone not in BACKBONES:
        raise ValueError(f"unknown backbone {backbone!r}: choose from {', '.join(BACKBONES)}")
    kwargs = {"dtype": dtype, "axis_name": axis_name}
    head, trunk = {
        "resnet_unet": (Head, UNet(backbone, **kwargs)),
        "segnet": (segnet.PredictionHead, segnet.SegNet(**kwargs)),
        "mtan": (segnet.AttentionHead, segnet.SegNet(stages=True, **kwargs)),
    }[model]
    return Network(
        trunk, {task.name: head(task.channels or num_classes, **kwargs) for task in tasks}
    )


def init(network: Network, key: jax.Array, image_size: tuple[int, int]) -> Variables:
    """Fresh variables; those of one head don't depend on which other heads there are.

    Raises:
      ValueError: for images that are too small.
    """
    seed = np.asarray(jax.random.key_data(key)).tolist()
    return jax.tree_util.tree_map_with_path(partial(_fresh, seed), _shapes(network, image_size))


def _shapes(network: Network, image_size: tuple[int, int]) -> Variables:
    """The shapes of all variables, found by tracing one image; ValueError if it is too small."""
    multiple = 32 if isinstance(network.trunk, segnet.SegNet) else 1
    check_image_size(image_size, multiple_of=multiple)
    key = jax.random.key(0)
    image = jax.ShapeDtypeStruct((1, *image_size, 3), jnp.float32)
    features, trunk = jax.eval_shape(
        partial(network.trunk.init_with_output, train=False), key, image
    )
    heads = {
        name: jax.eval_shape(partial(head.init, size=image_size, train=False), key, features)
        for name, head in network.heads.items()
    }
    return Variables(
        *(
            # A head without normalisation has no statistics.
            {
                "trunk": trunk[kind],
                "heads": {name: head.get(kind, {}) for name, head in heads.items()},
            }
            for kind in ("params", "batch_stats")
        )
    )


def fewest_images(network: Network, image_size: tuple[int, int]) -> int:
    """How many images a training pass needs, over all devices, for its batch statistics.

    A batch normalisation that sees a single value per channel subtracts that value from itself:
    its output no longer depends on the image, and its running variance falls to zero, which ruins
    evaluation. That happens where a map has one pixel, as after global pooling.

    Args:
      network: to train.
      image_size: height and width.

    Returns:
      2 where a normalisation sees one value per channel and image, else 1.

    Raises:
      ValueError: for images that are too small.
    """
    return _fewest_images(network.trunk, tuple(network.heads.items()), tuple(image_size))


# Tracing a network takes a second, and the runs of a grid have few different ones.
@functools.lru_cache(maxsize=64)
def _fewest_images(
    trunk: nn.Module, heads: tuple[tuple[str, nn.Module], ...], image_size: tuple[int, int]
) -> int:
    values = []

    def watch(call: Any, args: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:
        if isinstance(context.module, nn.BatchNorm) and context.method_name == "__call__":
            values.append(math.prod(args[0].shape[:-1]))
        return call(*args, **kwargs)

    with nn.intercept_methods(watch):
        _shapes(Network(trunk, dict(heads)), image_size)
    return 2 if 1 in values else 1


def check_image_size(image_size: tuple[int, int], *, multiple_of: int = 1) -> None:
    """Makes sure that images have a pixel left after the encoder's five halvings.

    Args:
      image_size: height and width.
      multiple_of: what both must be a multiple of.

    Raises:
      ValueError: if not.
    """
    height, width = image_size
    if min(height, width) < 32:
        raise ValueError(f"--image_size={height}x{width}: the encoder needs at least 32x32 pixels")
    if height % multiple_of or width % multiple_of:
        raise ValueError(
            f"--image_size={height}x{width}: SegNet and MTAN need multiples of {multiple_of}"
        )


def _fresh(seed: Sequence[int], path: Sequence[Any], leaf: jax.ShapeDtypeStruct) -> jax.Array:
    """A leaf at the start, of the seed and its own name: kernels as He et al. (2015) draw them.

    NumPy draws, because to compile a generator for each kernel takes longer than a short training.
    """
    name = path[-1].key
    if name != "kernel":
        return jnp.array(np.full(leaf.shape, START[name], leaf.dtype))
    generator = np.random.default_rng([*seed, zlib.crc32(jax.tree_util.keystr(path).encode())])
    deviation = math.sqrt(2.0 / math.prod(leaf.shape[:-1]))
    return jnp.array(deviation * generator.standard_normal(leaf.shape, leaf.dtype))


def apply_trunk(
    network: Network, params: Any, batch_stats: Any, image: jax.Array
) -> tuple[Any, Any]:
    """The trunk in training: features and its new running statistics."""
    features, new = network.trunk.apply(
        {"params": params, "batch_stats": batch_stats}, image, train=True, mutable="batch_stats"
    )
    return features, new["batch_stats"]


def apply_head(
    network: Network,
    task: Task,
    params: Any,
    batch_stats: Any,
    features: Any,
    batch: Mapping[str, jax.Array],
) -> tuple[jax.Array, Any]:
    """A head in training: the task's prediction and the head's new running statistics."""
    raw, new = network.heads[task.name].apply(
        {"params": params, "batch_stats": batch_stats},
        features,
        batch["image"].shape[1:3],
        train=True,
        mutable="batch_stats",
    )
    return task.activation(raw, batch), new.get("batch_stats", {})


def predict(
    network: Network, tasks: Sequence[Task], variables: Variables, batch: Mapping[str, jax.Array]
) -> dict[str, jax.Array]:
    """Predictions of the images of a decoded batch with the running statistics.

    Returns:
      Of each given task what its loss takes and its `decode` turns into `segmentation`
      log-probabilities f32[B, H, W, C], `depth` f32[B, H, W] in metres, `normals` unit vectors
      f32[B, H, W, 3].
    """

    def of(*path: str) -> dict[str, Any]:
        params, batch_stats = variables
        for key in path:
            params, batch_stats = params[key], batch_stats[key]
        return {"params": params, "batch_stats": batch_stats}

    image = batch["image"]
    features = network.trunk.apply(of("trunk"), image, train=False)
    size = image.shape[1:3]
    return {
        task.name: task.activation(
            network.heads[task.name].apply(of("heads", task.name), features, size, train=False),
            batch,
        )
        for task in tasks
    }
