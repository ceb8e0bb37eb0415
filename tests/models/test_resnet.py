"""Shapes and sizes of the ResNet encoders."""

import functools

import jax
import jax.numpy as jnp
import pytest

from mtl_jax.models.resnet import BACKBONES

# Parameters that torchvision publishes for its models, less those of the classifier `fc`.
PUBLISHED = {
    "resnet18": 11_689_512 - 513_000,
    "resnet34": 21_797_672 - 513_000,
    "resnet50": 25_557_032 - 2_049_000,
    "resnet101": 44_549_160 - 2_049_000,
}


@pytest.mark.parametrize("name", BACKBONES)
def test_parameter_counts_are_the_published_ones(name):
    image = jax.ShapeDtypeStruct((1, 64, 96, 3), jnp.float32)
    init = functools.partial(BACKBONES[name]().init, train=False)
    variables = jax.eval_shape(init, jax.random.key(0), image)
    assert sum(x.size for x in jax.tree.leaves(variables["params"])) == PUBLISHED[name]


def test_strides_are_2_to_32():
    image = jax.ShapeDtypeStruct((1, 64, 96, 3), jnp.float32)
    encoder = BACKBONES["resnet50"]()
    features, _ = jax.eval_shape(
        functools.partial(encoder.init_with_output, train=False), jax.random.key(0), image
    )
    assert [x.shape[1:] for x in features] == [
        (32, 48, 64), (16, 24, 256), (8, 12, 512), (4, 6, 1024), (2, 3, 2048)
    ]  # fmt: skip
