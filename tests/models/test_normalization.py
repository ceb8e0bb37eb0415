"""Normalisation by groups and by stored statistics, against NumPy, Flax and the other networks."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtl_jax import models
from mtl_jax.deploy import weights
from mtl_jax.deploy.folding import fold, folded
from mtl_jax.models import pretrained, resnet
from mtl_jax.tasks import select

TASKS = select(["segmentation", "depth"])
SIZE = (32, 64)


def built(model, **kwargs):
    network = models.build(TASKS, num_classes=3, model=model, **kwargs)
    return network, models.init(network, jax.random.key(0), SIZE)


def predict(network, variables, batch):
    """Compiled as a whole, which takes less time than each of its operations alone."""
    return jax.jit(functools.partial(models.predict, network))(variables, batch)


def images(count=2):
    return np.random.default_rng(0).random((count, *SIZE, 3)).astype(np.float32)


def in_training(network, variables, image):
    """The features, a head's prediction and all running statistics after a training pass."""

    @jax.jit
    def run(variables, image):
        params, stats = variables
        features, trunk = models.apply_trunk(network, params["trunk"], stats["trunk"], image)
        depth = network.tasks[1]
        head, head_stats = params["heads"]["depth"], stats["heads"]["depth"]
        batch = {"image": image}
        predicted, new = models.apply_head(network, depth, head, head_stats, features, batch)
        return predicted, (trunk, new)

    return jax.device_get(run(variables, image))


@pytest.mark.parametrize("channels", [4, 48, 64])
def test_groups_are_normalised_in_each_image_alone(channels):
    rng = np.random.default_rng(0)
    x = rng.normal(3.0, 2.0, (2, 4, 5, channels))
    params = {"scale": rng.normal(size=channels), "bias": rng.normal(size=channels)}
    groups = {4: 4, 48: 16, 64: 32}[channels]
    expected = np.empty_like(x)
    for image in range(2):
        for part in np.split(np.arange(channels), groups):
            values = x[image][..., part]
            deviation = np.sqrt(values.var() + 1e-5)
            expected[image][..., part] = (values - values.mean()) / deviation
    expected = expected * params["scale"] + params["bias"]
    variables = {"params": jax.tree.map(jnp.float32, params)}
    found = resnet.GroupNorm().apply(variables, jnp.float32(x))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    theirs = nn.GroupNorm(groups, epsilon=1e-5).apply(variables, jnp.float32(x))
    np.testing.assert_allclose(found, theirs, rtol=1e-4, atol=1e-5)
    half = resnet.GroupNorm(jnp.bfloat16).apply(variables, jnp.bfloat16(x))
    assert half.dtype == jnp.bfloat16
    np.testing.assert_allclose(half.astype(jnp.float32), expected, rtol=0.05, atol=0.05)


@pytest.fixture(scope="module", params=["resnet_unet:backbone=resnet18,norm=group"])
def group(request):
    return built(request.param)


@pytest.mark.slow
def test_a_network_of_groups_has_no_statistics_and_learns_from_single_images(group):
    network, variables = group
    assert not jax.tree.leaves(variables.batch_stats)
    assert models.fewest_images(network, SIZE) == 1
    both, stats = in_training(network, variables, images())
    assert not jax.tree.leaves(stats)
    one, _ = in_training(network, variables, images()[1:])
    np.testing.assert_allclose(one[0], both[1], rtol=1e-4, atol=1e-5)
    assert np.std(both) > 1e-4
    # Nothing differs between training and evaluation.
    used = predict(network, variables, {"image": images()})["depth"]
    np.testing.assert_allclose(used, both, rtol=1e-4, atol=1e-5)


def test_a_network_of_groups_is_left_as_it_is_by_folding(group):
    network, variables = group
    expected = predict(network, variables, {"image": images()})
    smaller = fold(network, variables, SIZE)
    with folded():
        found = predict(network, smaller, {"image": images()})
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5), found, expected)


def test_a_network_of_groups_is_stored_and_started_from_its_own_file(group):
    network, variables = group
    tensors = weights.tensors_of(variables)
    again = weights.variables_of(tensors, network, SIZE, source="a file")
    jax.tree.map(np.testing.assert_array_equal, again, variables)
    loaded = pretrained.put_into(jax.tree.map(jnp.zeros_like, variables), tensors)
    jax.tree.map(np.testing.assert_array_equal, loaded.variables, variables)
    assert not loaded.skipped + loaded.missed


def test_statistics_of_a_file_are_kept_or_the_file_is_refused(group):
    frozen, variables = built("resnet_unet:backbone=resnet18,norm=frozen")
    rng = np.random.default_rng(1)
    stats = jax.tree.map(lambda x: rng.uniform(0.5, 2.0, x.shape), variables.batch_stats)
    variables = variables._replace(batch_stats=jax.tree.map(jnp.float32, stats))
    tensors = weights.tensors_of(variables)
    with pytest.raises(ValueError, match="batch normalisation, not norm=group: leave `norm` out"):
        pretrained.put_into(group[1], tensors)
    loaded = pretrained.put_into(built("resnet_unet:backbone=resnet18")[1], tensors).variables
    assert models.fewest_images(frozen, SIZE) == 1
    predicted, after = in_training(frozen, loaded, images())
    expected = loaded.batch_stats["trunk"], loaded.batch_stats["heads"]["depth"]
    jax.tree.map(np.testing.assert_array_equal, after, expected)
    # It is the network with batch normalisation as that is evaluated.
    usual, _ = built("resnet_unet:backbone=resnet18")
    used = predict(usual, variables, {"image": images()})["depth"]
    np.testing.assert_allclose(predicted, used, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_mtan_and_its_heads_can_be_of_groups():
    network, variables = built("mtan:norm=group")
    assert not jax.tree.leaves(variables.batch_stats)
    names = {path[-2].key for path, _ in jax.tree_util.tree_leaves_with_path(variables.params)}
    assert {"bn", "bn1", "bn2"} <= names
    assert models.fewest_images(network, SIZE) == 1
