"""Networks: a trunk that the tasks share and a head for each of them."""

import functools
import math
import zlib
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from mtl_jax.models.aspp import fitting_rates
from mtl_jax.models.resnet import BACKBONES, NORMS
from mtl_jax.models.segnet import AttentionHead, PredictionHead, SegNet
from mtl_jax.models.small import SmallUNet
from mtl_jax.models.unet import Head, UNet
from mtl_jax.tasks import Batch, Task
from mtl_jax.weighting import options
from mtl_jax.weighting.contract import PyTree

# channels -> head.
MakeHead = Callable[[int], nn.Module]

SMALLEST_SIDE = 32
# Initial value of all entries of variables other than kernels.
START = {"bias": 0.0, "scale": 1.0, "mean": 0.0, "var": 1.0}


class Network(NamedTuple):
    """The shared trunk, a head for each task, and the tasks.

    Variables of the Flax modules live under the same names, `trunk` and `heads`.

    Attributes:
      trunk: images f32[B, H, W, C] in 0..1 -> features. If the module has an attribute
        `size_multiple`, the sides of an image must be multiples of it.
      heads: task name -> head, (features, size) -> raw output f32[B, H, W, channels].
      tasks: tasks in the order of the K losses and weights, each with its head.
      channels: channels of the images, C: 1 for grey, 3 for red, green and blue, 4 for these and
        the depth of a sensor.
    """

    trunk: nn.Module
    heads: dict[str, nn.Module]
    tasks: tuple[Task, ...]
    channels: int = 3


class Variables(NamedTuple):
    """The parameters of a network and the running statistics of its batch normalisation.

    Both are dicts `{"trunk": ..., "heads": {task: ...}}` of nested dicts of float32 arrays, by the
    names of modules.
    """

    params: dict[str, PyTree]
    batch_stats: dict[str, PyTree]


def resnet_unet(
    *,
    backbone: str = "resnet34",
    frozen: bool = False,
    norm: str = "batch",
    dtype: DTypeLike,
    axis_name: str | None,
) -> tuple[nn.Module, MakeHead]:
    """Makes a ResNet-U-Net with ASPP and its heads; see `build`.

    Raises:
      ValueError: for an unknown backbone or normalisation.
    """
    if backbone not in BACKBONES:
        raise ValueError(f"unknown backbone {backbone!r}: choose from {', '.join(BACKBONES)}")
    if norm not in NORMS:
        raise ValueError(f"unknown norm {norm!r}: choose from {', '.join(NORMS)}")
    shared = {"dtype": dtype, "axis_name": axis_name, "norm": norm}
    return UNet(backbone, frozen=frozen, **shared), partial(Head, **shared)


def small(
    *, channels: int = 16, norm: str = "batch", dtype: DTypeLike, axis_name: str | None
) -> tuple[nn.Module, MakeHead]:
    """Makes a small U-Net, and heads whose hidden layers have `channels` channels; see `build`.

    Raises:
      ValueError: for an unknown normalisation, or fewer than one channel.
    """
    if channels < 1:
        raise ValueError(f"channels={channels}: must be at least 1")
    shared = {"dtype": dtype, "axis_name": axis_name, "norm": _learned(norm)}
    return SmallUNet(channels, **shared), partial(Head, hidden=channels, **shared)


def segnet(
    *, norm: str = "batch", dtype: DTypeLike, axis_name: str | None
) -> tuple[nn.Module, MakeHead]:
    """Makes a SegNet and its heads; see `build`.

    Raises:
      ValueError: for an unknown normalisation.
    """
    shared = {"dtype": dtype, "axis_name": axis_name, "norm": _learned(norm)}
    return SegNet(**shared), partial(PredictionHead, **shared)


def mtan(
    *, norm: str = "batch", dtype: DTypeLike, axis_name: str | None
) -> tuple[nn.Module, MakeHead]:
    """Makes a SegNet whose heads are attention branches; see `build`.

    Raises:
      ValueError: for an unknown normalisation.
    """
    shared = {"dtype": dtype, "axis_name": axis_name, "norm": _learned(norm)}
    return SegNet(stages=True, **shared), partial(AttentionHead, **shared)


def _learned(norm: str) -> str:
    """Returns the normalisation, checked for a network without pretrained statistics."""
    if norm not in ("batch", "group"):
        raise ValueError(f"unknown norm {norm!r}: this network has batch and group")
    return norm


MODELS = {"resnet_unet": resnet_unet, "segnet": segnet, "mtan": mtan, "small": small}


def parse_model(model: str) -> options.Choice:
    """Returns the factory of `MODELS` and the options in a text such as "mtan".

    Raises:
      ValueError: for an unknown name or option.
    """
    try:
        return options.parse(model, MODELS, context=("dtype", "axis_name"))
    except ValueError as error:
        raise ValueError(f"`model`: {error}") from error


def build(
    tasks: Sequence[Task],
    *,
    num_classes: int,
    channels: int = 3,
    model: str = "resnet_unet",
    dtype: DTypeLike = jnp.float32,
    axis_name: str | None = None,
) -> Network:
    """Makes a trunk and one head for each of the tasks.

    Args:
      tasks: tasks in the order of the weights.
      num_classes: channels of the heads of tasks that predict classes.
      channels: channels of the images; see `Network`.
      model: a key of `MODELS` with options, such as `resnet_unet:backbone=resnet18`. Each has the
        option `norm`, which is "batch" or "group", or "frozen" for resnet_unet; see
        `resnet.normalization`. `resnet_unet:frozen=true` trains all but the encoder.
      dtype: dtype of the computation; parameters and outputs are float32.
      axis_name: mapped axis of the devices over which batch statistics are taken.

    Raises:
      ValueError: for an unknown model or option, or for tasks with another number of classes.
    """
    for task in tasks:
        if task.classes not in (0, num_classes):
            raise ValueError(
                f"`{task.name}_loss`: it has {task.classes} class weights, and there are "
                f"{num_classes} classes"
            )
    choice = parse_model(model)
    try:
        trunk, head = choice.factory(**choice.options, dtype=dtype, axis_name=axis_name)
    except ValueError as error:
        raise ValueError(f"`model`={model}: {error}") from error
    heads = {task.name: head(task.channels or num_classes) for task in tasks}
    return Network(trunk, heads, tuple(tasks), channels)


def trained_at(network: Network, image_size: tuple[int, int]) -> Network:
    """Returns a network that works on images of any size as it does on those it was trained on.

    The dilation rates of an ASPP fit the size of its map, and kernels that were trained at one rate
    must not be applied at another.

    Args:
      image_size: height and width of the images of training.
    """
    if not isinstance(network.trunk, UNet):
        return network
    rates = fitting_rates(*(-(-side // UNet.reduction) for side in image_size))
    return network._replace(trunk=network.trunk.clone(rates=rates))


def init(network: Network, key: jax.Array, image_size: tuple[int, int]) -> Variables:
    """Makes fresh variables; those of one head don't depend on which other heads there are.

    Raises:
      ValueError: for images of a size that the network does not accept.
    """
    seed = np.asarray(jax.random.key_data(key)).tolist()
    return jax.tree_util.tree_map_with_path(partial(_fresh, seed), shapes(network, image_size))


def shapes(network: Network, image_size: tuple[int, int]) -> Variables:
    """Returns the shapes of all variables, found by tracing one image; see `check_image_size`."""
    return _traced(network, image_size).variables


def fewest_images(network: Network, image_size: tuple[int, int]) -> int:
    """Returns the smallest number of images for a training pass, over all devices.

    A batch normalisation that sees a single value per channel subtracts that value from itself:
    its output no longer depends on the image, and its running variance falls to zero, which ruins
    evaluation. This happens where a map has one pixel, as after global pooling.

    Args:
      image_size: height and width.

    Returns:
      2 where a normalisation by the batch sees one value per channel and image, else 1.

    Raises:
      ValueError: for images that are too small.
    """
    if getattr(network.trunk, "norm", "batch") != "batch":
        return 1
    return 2 if 1 in _traced(network, image_size).normalised else 1


class _Traced(NamedTuple):
    """What tracing a network with one image shows.

    Attributes:
      variables: shapes of the variables.
      normalised: for each batch normalisation, the values of a channel that one image gives.
    """

    variables: Variables
    normalised: list[int]


def _traced(network: Network, image_size: tuple[int, int]) -> _Traced:
    check_image_size(network, image_size)
    shape = (*image_size, network.channels)
    return _trace(network.trunk, tuple(network.heads.items()), shape)


# Tracing a network takes a second. A start needs the result several times, and the runs of a grid
# share a few networks.
@functools.lru_cache(maxsize=64)
def _trace(
    trunk: nn.Module, heads: tuple[tuple[str, nn.Module], ...], shape: tuple[int, int, int]
) -> _Traced:
    key = jax.random.key(0)
    image = jax.ShapeDtypeStruct((1, *shape), jnp.float32)
    values = []

    def watch(call: Any, args: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:
        if isinstance(context.module, nn.BatchNorm) and context.method_name == "__call__":
            values.append(math.prod(args[0].shape[:-1]))
        return call(*args, **kwargs)

    with nn.intercept_methods(watch):
        features, shared = jax.eval_shape(partial(trunk.init_with_output, train=False), key, image)
        own = {
            name: jax.eval_shape(partial(head.init, size=shape[:2], train=False), key, features)
            for name, head in heads
        }
    variables = Variables(
        *(
            # A module without batch normalisation has no statistics.
            {
                "trunk": shared.get(kind, {}),
                "heads": {name: found.get(kind, {}) for name, found in own.items()},
            }
            for kind in ("params", "batch_stats")
        )
    )
    return _Traced(variables, values)


def check_image_size(network: Network, image_size: tuple[int, int]) -> None:
    """Checks that a network accepts images of this size.

    Args:
      network: network whose encoder halves images up to five times, which must leave a pixel.
      image_size: height and width.

    Raises:
      ValueError: if it does not.
    """
    height, width = image_size
    if min(height, width) < SMALLEST_SIDE:
        raise ValueError(
            f"`image_size`={height}x{width}: the encoder needs at least "
            f"{SMALLEST_SIDE}x{SMALLEST_SIDE} pixels"
        )
    multiple = getattr(network.trunk, "size_multiple", 1)
    if height % multiple or width % multiple:
        raise ValueError(
            f"`image_size`={height}x{width}: this network needs multiples of {multiple}"
        )


def _fresh(seed: Sequence[int], path: tuple[Any, ...], leaf: jax.ShapeDtypeStruct) -> jax.Array:
    """Returns the initial value of a leaf, drawn from the seed and its name as by He et al. (2015).

    NumPy draws it, because compiling a generator for each kernel would take longer than a short
    training run.
    """
    name = path[-1].key
    if name != "kernel":
        return jnp.array(np.full(leaf.shape, START[name], leaf.dtype))
    generator = np.random.default_rng([*seed, zlib.crc32(jax.tree_util.keystr(path).encode())])
    deviation = math.sqrt(2.0 / math.prod(leaf.shape[:-1]))
    return jnp.array(deviation * generator.standard_normal(leaf.shape, leaf.dtype))


def frozen(network: Network) -> Callable[[PyTree], PyTree] | None:
    """Returns params -> bool for each, True if it is not trained; None if all are trained."""
    return in_encoder if getattr(network.trunk, "frozen", False) else None


def in_encoder(params: PyTree) -> PyTree:
    """Returns for each parameter of a network whether it belongs to a pretrainable encoder."""

    def of_encoder(path: tuple[Any, ...], leaf: jax.Array) -> bool:
        return [key.key for key in path[:2]] == ["trunk", "encoder"]

    return jax.tree_util.tree_map_with_path(of_encoder, params)


def apply_trunk(
    network: Network, params: PyTree, batch_stats: PyTree, image: jax.Array
) -> tuple[PyTree, PyTree]:
    """Returns the trunk's features in training, a pytree, and its new running statistics."""
    features, new = network.trunk.apply(
        {"params": params, "batch_stats": batch_stats}, image, train=True, mutable="batch_stats"
    )
    return features, new.get("batch_stats", {})


def apply_head(
    network: Network,
    task: Task,
    params: PyTree,
    batch_stats: PyTree,
    features: PyTree,
    batch: Batch,
) -> tuple[jax.Array, PyTree]:
    """Returns a task's prediction in training and its head's new running statistics."""
    raw, new = network.heads[task.name].apply(
        {"params": params, "batch_stats": batch_stats},
        features,
        batch["image"].shape[1:3],
        train=True,
        mutable="batch_stats",
    )
    return task.activation(raw, batch), new.get("batch_stats", {})


def predict(network: Network, variables: Variables, batch: Batch) -> dict[str, jax.Array]:
    """Returns the predictions for the images of a decoded batch, with the running statistics.

    Returns:
      Task name -> output of its `activation`, the input of its `loss` and `decode`.
    """

    def of(*path: str) -> dict[str, PyTree]:
        params, batch_stats = variables
        for key in path:
            params, batch_stats = params[key], batch_stats[key]
        return {"params": params, "batch_stats": batch_stats}

    image = batch["image"]
    features = network.trunk.apply(of("trunk"), image, train=False)
    size = image.shape[1:3]
    predictions = {}
    for task in network.tasks:
        head = network.heads[task.name]
        raw: Any = head.apply(of("heads", task.name), features, size, train=False)
        predictions[task.name] = task.activation(raw, batch)
    return predictions
