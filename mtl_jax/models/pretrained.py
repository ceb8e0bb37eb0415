"""Weights to start from: those of a ResNet encoder, or all weights of a run."""

import itertools
import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import KeyPath

from mtl_jax.models.network import Variables
from mtl_jax.models.resnet import BACKBONES, Bottleneck
from mtl_jax.models.tensor_files import finite_floats
from mtl_jax.models.tensor_files import read as read
from mtl_jax.tasks.images import COLOURS

ENCODER = (jax.tree_util.DictKey("trunk"), jax.tree_util.DictKey("encoder"))
# Every ResNet has this tensor, so its name locates the encoders in a file.
FIRST = "layer1.0.conv1.weight"
# The kernel that sees the image.
FILTERS = "conv1.weight"
NAMES = {
    "kernel": "weight",
    "scale": "weight",
    "bias": "bias",
    "mean": "running_mean",
    "var": "running_var",
}


class Loaded(NamedTuple):
    """The variables made from a file, and how its tensors were used.

    Attributes:
      variables: with the file's weights.
      count: number of tensors taken for the encoder.
      others: number of tensors taken for the rest of the trunk and for heads, which only
        `deploy.weights` names.
      skipped: names of tensors in the file that were not used, such as those of a classifier, or of
        a head with another number of classes. If all tensors of a module were not, its name.
      missed: names of the encoder's tensors, none of them a kernel, that are not in the file; they
        are unchanged.
      afresh: names of the other tensors or modules of the network that keep their initial values,
        such as a head that the file does not have.
      adapted: how its filters were made to fit images that are not red, green and blue, as a
        clause; "" if they were not.
    """

    variables: Variables
    count: int
    others: int
    skipped: list[str]
    missed: list[str]
    afresh: list[str]
    adapted: str


def put_into(
    variables: Variables, tensors: Mapping[str, np.ndarray], *, source: str = "the file"
) -> Loaded:
    """Returns variables with the encoder's parameters and running statistics from the tensors.

    If `deploy.weights` named the tensors, the rest of the trunk and the heads are taken as well.
    A network without an `encoder` in its trunk starts from such tensors alone.

    Args:
      variables: variables of a network.
      tensors: by PyTorch's names, with any wrapper or prefix, such as `module.encoder.`.
        If there are several encoders, the one with the most names is taken. Filters of red, green
        and blue are adapted to images of other channels; see `adapt`.
      source: their origin, for error messages.

    Raises:
      ValueError: unless the tensors hold one ResNet of exactly this backbone, or the same trunk, of
        finite floating-point numbers, with all its kernels.
    """
    encoder = {
        torch_name(path[2:]): _torch_shape(leaf.shape)
        for tree in variables
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
        if path[:2] == ENCODER
    }
    if encoder:
        prefix, tensors, adapted = _encoder_in(tensors, encoder, source)
    else:
        _check_trunk(variables, tensors, source)
        prefix, adapted = "", ""
    taken: set[str] = set()
    others: set[str] = set()
    afresh: set[str] = set()

    def take(path: KeyPath, leaf: jax.Array) -> jax.Array:
        of_encoder = path[:2] == ENCODER
        name = prefix + torch_name(path[2:]) if of_encoder else torch_name(path)
        # A head with another number of classes keeps its initial weights.
        if name not in tensors or tensors[name].shape != _torch_shape(leaf.shape):
            if not of_encoder:
                afresh.add(name)
            return leaf
        (taken if of_encoder else others).add(name)
        array = finite_floats(f"`pretrained`: {name} of {source}", tensors[name])
        if path[-1].key == "var" and np.any(array < 0):
            raise ValueError(f"`pretrained`: {name} of {source} holds negative variances")
        return jnp.asarray(array.transpose(2, 3, 1, 0) if array.ndim == 4 else array, leaf.dtype)

    filled = Variables(*(jax.tree_util.tree_map_with_path(take, tree) for tree in variables))
    skipped = {name for name in tensors if not _counts_batches(name)} - taken - others
    return Loaded(
        filled,
        len(taken),
        len(others),
        skipped=sorted(x.removeprefix(prefix) for x in _modules(skipped, taken | others)),
        missed=[name for name in encoder if prefix + name not in tensors],
        afresh=_modules(afresh, others),
        adapted=adapted,
    )


def _encoder_in(
    tensors: Mapping[str, np.ndarray], encoder: Mapping[str, tuple[int, ...]], source: str
) -> tuple[str, Mapping[str, np.ndarray], str]:
    """Returns the encoder's prefix, the tensors with fitting filters, and how those were adapted.

    Raises:
      ValueError: see `put_into`.
    """
    prefix = _find_encoder(encoder, tensors, source)
    tensors, adapted = _adapted(tensors, prefix + FILTERS, encoder[FILTERS][1])
    found = {
        name.removeprefix(prefix): array
        for name, array in tensors.items()
        if name.startswith(prefix)
    }
    _check_backbone(encoder, found, source)
    _check_tensors(encoder, found, source)
    return prefix, tensors, adapted


def _check_trunk(variables: Variables, tensors: Mapping[str, np.ndarray], source: str) -> None:
    """Raises ValueError unless the tensors hold all kernels of a trunk without an encoder."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(variables.params["trunk"]):
        name = f"trunk.{torch_name(path)}"
        shape = tensors[name].shape if name in tensors else None
        if leaf.ndim == 4 and shape != _torch_shape(leaf.shape):
            what = "has no" if shape is None else "has another shape of"
            raise ValueError(
                f"`pretrained`: {source} {what} {name}: this network has no ResNet encoder, so it "
                "can only start from the exported weights.safetensors of the same network"
            )


def _modules(names: Iterable[str], others: Iterable[str]) -> list[str]:
    """Returns names of tensors, sorted, with that of a module in place of those of its tensors.

    Args:
      names: of tensors, such as `heads.depth.output.weight`.
      others: names of the rest of the tensors; a module that has one of them is not named.
    """
    incomplete = {module for name in others for module in _enclosing(name)}
    return sorted(
        {next((x for x in _enclosing(name) if x not in incomplete), name) for name in names}
    )


def _enclosing(name: str) -> list[str]:
    """Returns the modules around a tensor from the outermost one on, and its own name."""
    return list(itertools.accumulate(name.split("."), "{}.{}".format))


def adapt(filters: np.ndarray, channels: int) -> np.ndarray:
    """Returns filters of red, green and blue for images of other channels.

    As in segmentation_models_pytorch, those of one channel are the sum of the three, so that grey
    images give nearly the same; those of more repeat the three in turn, scaled by 3 / `channels`.

    Args:
      filters: [out, 3, h, w].
      channels: number of channels of the images.
    """
    if channels == 1:
        return filters.sum(axis=1, keepdims=True)
    repeated = filters[:, np.arange(channels) % COLOURS]
    return repeated * np.asarray(COLOURS / channels, filters.dtype)


def _adapted(
    tensors: Mapping[str, np.ndarray], name: str, channels: int
) -> tuple[Mapping[str, np.ndarray], str]:
    """Returns the tensors with filters for these channels, and how they were adapted."""
    filters = tensors.get(name)
    if filters is None or filters.ndim != 4 or channels == COLOURS or filters.shape[1] != COLOURS:
        return tensors, ""
    filters = finite_floats(f"`pretrained`: {name}", filters)
    what = "summed" if channels == 1 else f"repeated in turn, times {COLOURS}/{channels}"
    how = f"the filters of red, green and blue in {name} are {what} for images of {channels}"
    return {**tensors, name: adapt(filters, channels)}, f"{how} channel{'s' * (channels > 1)}"


def _find_encoder(encoder: Iterable[str], tensors: Mapping[str, np.ndarray], source: str) -> str:
    """Returns the prefix of the encoder's names in a file.

    Raises:
      ValueError: if there is no encoder, or two different ones fit equally well.
    """
    prefixes = [name.removesuffix(FIRST) for name in tensors if name.endswith(FIRST)]
    fits = {
        prefix: sum(prefix + name in tensors for name in encoder)
        for prefix in prefixes
        if prefix.endswith(".") or not prefix
    }
    if not fits:
        names = ", ".join(sorted(tensors)[:3])
        raise ValueError(
            f"`pretrained`: {source} is not a ResNet with torchvision's names: it has no {FIRST}, "
            + (f"but {names}, ..." if names else "nor any other tensor by name")
        )
    first, *rest = (prefix for prefix in fits if fits[prefix] == max(fits.values()))
    for other in rest:
        if not all(_alike(tensors, first + name, other + name) for name in encoder):
            raise ValueError(
                f"`pretrained`: {source} holds two different encoders, {first + FIRST} and "
                f"{other + FIRST}: save a file with one of them"
            )
    return first


def _alike(tensors: Mapping[str, np.ndarray], one: str, other: str) -> bool:
    """Returns whether two tensors are equal, or both missing."""
    if one in tensors and other in tensors:
        return np.array_equal(tensors[one], tensors[other])
    return one not in tensors and other not in tensors


def _check_backbone(encoder: Iterable[str], found: Iterable[str], source: str) -> None:
    """Raises ValueError if the found tensors are those of another backbone."""
    theirs = _layout(found)
    if theirs == _layout(encoder):
        return
    for name, backbone in BACKBONES.items():
        bottleneck = backbone.keywords["block"] is Bottleneck
        if theirs == (tuple(backbone.keywords["stages"]), bottleneck):
            raise ValueError(
                f"`pretrained`: {source} holds a {name}, another backbone: set "
                f"`model`=resnet_unet:backbone={name}"
            )
    stages, bottleneck = theirs
    raise ValueError(
        f"`pretrained`: {source} holds a ResNet of {', '.join(map(str, stages))} "
        f"{'bottleneck' if bottleneck else 'basic'} blocks, which is not one of the backbones "
        f"{', '.join(BACKBONES)}: give the file of one of these"
    )


def _layout(names: Iterable[str]) -> tuple[tuple[int, ...], bool]:
    """Returns how many blocks each stage of a ResNet has, and whether they are bottlenecks."""
    names = set(names)
    blocks = {found.groups() for name in names if (found := re.match(r"layer(\d+)\.(\d+)\.", name))}
    stages = sorted({stage for stage, _ in blocks}, key=int)
    counts = tuple(sum(stage == other for other, _ in blocks) for stage in stages)
    return counts, "layer1.0.conv3.weight" in names


def _check_tensors(
    encoder: Mapping[str, tuple[int, ...]], found: Mapping[str, np.ndarray], source: str
) -> None:
    """Raises ValueError if a kernel is missing, a tensor is left over, or a shape differs."""
    variant = "it is incomplete, or a variant of the ResNet that no backbone here has"
    if "bn1.running_var" in found.keys() - encoder.keys():
        raise ValueError(
            f"`pretrained`: {source} holds a network with batch normalisation, not norm=group: "
            "leave `norm` out of `model`, or set norm=frozen to keep the file's statistics"
        )
    kernels = [name for name, shape in encoder.items() if len(shape) == 4 and name not in found]
    if kernels:
        others = f", nor {len(kernels) - 1} other kernels" if len(kernels) > 1 else ""
        raise ValueError(f"`pretrained`: {source} has no {kernels[0]}{others}: {variant}")
    for name, array in found.items():
        if name in encoder:
            shape, wanted = tuple(array.shape), encoder[name]
            if name == FILTERS and shape[1:2] != wanted[1:2]:
                raise ValueError(
                    f"`pretrained`: the first convolution of {source}, {FILTERS}, has the shape "
                    f"{shape}, which does not fit images of {wanted[1]} channels: give the file of "
                    "a network for RGB images"
                )
            if shape != wanted:
                raise ValueError(
                    f"`pretrained`: {name} of {source} has the shape {shape}, where {wanted} is "
                    "needed: it is a variant of the ResNet, such as a wider one, that no "
                    "backbone here has"
                )
        elif re.match(r"(conv1|bn1|layer\d+)\.", name) and not _counts_batches(name):
            raise ValueError(f"`pretrained`: {source} has {name}: {variant}")


def torch_name(path: KeyPath) -> str:
    """Returns PyTorch's name of an encoder's leaf, such as layer1.0.downsample.1.running_var."""
    *modules, leaf = (key.key for key in path)
    dotted = ".".join([*modules, NAMES[leaf]])
    dotted = dotted.replace("downsample_conv", "downsample.0")
    dotted = dotted.replace("downsample_bn", "downsample.1")
    return re.sub(r"\blayer(\d)_(\d+)", r"layer\1.\2", dotted)


def _torch_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Returns [h, w, in, out] of a kernel here as [out, in, h, w], other shapes as they are."""
    return (shape[3], shape[2], shape[0], shape[1]) if len(shape) == 4 else tuple(shape)


def _counts_batches(name: str) -> bool:
    return name.endswith("num_batches_tracked")
