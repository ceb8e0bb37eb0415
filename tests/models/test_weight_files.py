"""Weight files of torchvision, timm and segmentation_models_pytorch are read whole."""

import functools
import hashlib

import jax
import numpy as np
import pytest

from mtl_jax import models
from mtl_jax.models import pretrained
from mtl_jax.tasks import select

# SHA-256, shortened, of the sorted lines "name shape" of the state dicts of torchvision 0.29.1,
# `resnet.resnet18()`. Those of timm 1.0.31, `create_model("resnet18")`, are the same. The encoders
# of segmentation_models_pytorch 0.6.0, `Unet("resnet18")` and `DeepLabV3Plus("resnet18")`, have all
# of them except `fc`, and names that begin with `encoder.`.
TORCHVISION = {
    "resnet18": (122, "5191d63ec3989592"),
    "resnet34": (218, "f8de2a1812ef85e4"),
    "resnet50": (320, "a87e91cd6bd1f939"),
}
SMP_ENCODERS = {
    "resnet18": (120, "504739f3083bec5e"),
    "resnet34": (216, "44a0fd3c2ef0c9ed"),
    "resnet50": (318, "c1f7fd3808aa49e7"),
}
STAGES = {"resnet18": (2, 2, 2, 2), "resnet34": (3, 4, 6, 3), "resnet50": (3, 4, 6, 3)}


def norm(name, channels):
    shapes = dict.fromkeys(("weight", "bias", "running_mean", "running_var"), (channels,))
    return {f"{name}.{key}": shape for key, shape in (shapes | {"num_batches_tracked": ()}).items()}


def resnet(name):
    """Returns the shapes of a ResNet's tensors by name, from the definition of He et al. (2016)."""
    bottleneck = name == "resnet50"
    shapes = {"conv1.weight": (64, 3, 7, 7)} | norm("bn1", 64)
    channels = 64
    for stage, blocks in enumerate(STAGES[name], 1):
        width = 64 * 2 ** (stage - 1)
        out = 4 * width if bottleneck else width
        for block in range(blocks):
            at = f"layer{stage}.{block}"
            kernels = [(width, channels, 3), (out, width, 3)]
            if bottleneck:
                kernels = [(width, channels, 1), (width, width, 3), (out, width, 1)]
            for number, (outputs, inputs, size) in enumerate(kernels, 1):
                shapes[f"{at}.conv{number}.weight"] = (outputs, inputs, size, size)
                shapes |= norm(f"{at}.bn{number}", outputs)
            if channels != out:
                shapes[f"{at}.downsample.0.weight"] = (out, channels, 1, 1)
                shapes |= norm(f"{at}.downsample.1", out)
            channels = out
    return shapes | {"fc.weight": (1000, channels), "fc.bias": (1000,)}


def without_classifier(name):
    return {key: shape for key, shape in resnet(name).items() if not key.startswith("fc.")}


def digest(shapes):
    lines = "\n".join(sorted(f"{name} {shape}" for name, shape in shapes.items()))
    return len(shapes), hashlib.sha256(lines.encode()).hexdigest()[:16]


def filled(shapes):
    """Returns a tensor for each shape, filled with a number of its own."""
    return {
        name: np.full(shape, number / 1024, np.int64 if not shape else np.float32)
        for number, (name, shape) in enumerate(shapes.items())
    }


@functools.cache
def variables_of(backbone):
    model = f"resnet_unet:backbone={backbone}"
    network = models.build(select(["depth"]), num_classes=3, model=model)
    return jax.tree.map(
        lambda leaf: np.zeros(leaf.shape, leaf.dtype), models.shapes(network, (64, 96))
    )


@pytest.mark.parametrize("backbone", STAGES)
def test_the_definition_is_that_of_the_published_packages(backbone):
    assert digest(resnet(backbone)) == TORCHVISION[backbone]
    assert digest(without_classifier(backbone)) == SMP_ENCODERS[backbone]


# What a file holds in addition to the encoder: torchvision's and timm's classifier, and one tensor
# that stands for the decoder of segmentation_models_pytorch.
@pytest.mark.parametrize(
    ("prefix", "more", "module"),
    [
        ("", {"fc.weight": (1000, 512), "fc.bias": (1000,)}, "fc"),
        ("encoder.", {"decoder.blocks.0.conv1.0.weight": (256, 768, 3, 3)}, "decoder"),
    ],
    ids=["torchvision and timm", "segmentation_models_pytorch"],
)
@pytest.mark.parametrize("backbone", STAGES)
def test_every_tensor_of_the_encoder_is_taken(backbone, prefix, more, module):
    tensors = filled(without_classifier(backbone))
    file = {prefix + name: array for name, array in tensors.items()} | filled(more)
    loaded = pretrained.put_into(variables_of(backbone), file)
    assert loaded.missed == []
    assert loaded.skipped == [module]
    wanted = {name: x for name, x in tensors.items() if not name.endswith("num_batches_tracked")}
    assert loaded.count == len(wanted)
    found = {}
    for tree in loaded.variables:
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree["trunk"]["encoder"]):
            found[pretrained.torch_name(path)] = float(np.ravel(leaf)[0])
    assert found == {name: float(np.ravel(x)[0]) for name, x in wanted.items()}
