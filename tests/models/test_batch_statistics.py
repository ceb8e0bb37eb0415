"""How many images the batch statistics of a pass need, against what too few do to them."""

import functools

import jax
import numpy as np
import pytest

from mtl_jax import models
from mtl_jax.tasks import select

TASKS = select(["segmentation", "depth"])
MODELS = {"resnet_unet": "resnet_unet:backbone=resnet18", "segnet": "segnet"}


@functools.cache
def built(model, size):
    network = models.build(TASKS, num_classes=3, model=MODELS[model])
    return network, models.init(network, jax.random.key(0), size)


@functools.cache
def variances(model, size, images):
    """The variances that each normalisation of the trunk saw in one pass, by name."""
    network, variables = built(model, size)
    image = np.random.default_rng(0).random((images, *size, 3)).astype(np.float32)
    stats = variables.batch_stats["trunk"]
    step = jax.jit(functools.partial(models.apply_trunk, network))
    _, new = step(variables.params["trunk"], stats, image)
    return {
        jax.tree_util.keystr(path): (np.asarray(after, np.float64) - 0.9) / 0.1
        for path, after in jax.tree_util.tree_leaves_with_path(new)
        if path[-1].key == "var"
    }


@pytest.mark.parametrize(
    ("model", "size", "fewest"),
    [
        pytest.param("resnet_unet", (64, 96), 2, marks=pytest.mark.slow),
        ("resnet_unet", (32, 32), 2),
        ("segnet", (32, 32), 1),
    ],
)
def test_fewest_images_are_those_that_give_every_normalisation_a_variance(model, size, fewest):
    network, _ = built(model, size)
    assert models.fewest_images(network, size) == fewest
    for images in range(1, fewest + 1):
        found = variances(model, size, images)
        constant = [name for name, value in found.items() if np.all(np.abs(value) < 1e-6)]
        assert bool(constant) == (images < fewest)
    assert all(np.all(np.isfinite(value)) for value in found.values())


def test_it_is_the_pooled_branch_that_one_image_ruins():
    found = variances("resnet_unet", (64, 96), 1)
    constant = [name for name, value in found.items() if np.all(np.abs(value) < 1e-6)]
    assert constant == ["['aspp']['pooled_bn']['var']"]


def test_small_images_leave_the_deepest_maps_a_single_value():
    found = variances("resnet_unet", (32, 32), 1)
    constant = {name for name, value in found.items() if np.all(np.abs(value) < 1e-6)}
    assert "['encoder']['layer4_1']['bn2']['var']" in constant


def test_attention_branches_are_seen_too():
    network = models.build(TASKS, num_classes=3, model="mtan")
    assert models.fewest_images(network, (32, 32)) == 1
    with pytest.raises(ValueError, match="`image_size`=16x32"):
        models.fewest_images(network, (16, 32))
