"""A folded network gives the numbers of the network, without its normalisation."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtl_jax import models
from mtl_jax.deploy.folding import fold, folded
from mtl_jax.tasks import DEPTH, select

SIZE = (32, 32)


def trained(network):
    """Variables in double precision whose statistics are those of no fresh network."""
    rng = np.random.default_rng(0)

    def change(path, leaf):
        kinds = {"scale": (0.5, 2.0), "var": (0.5, 2.0), "bias": (-0.2, 0.2), "mean": (-0.2, 0.2)}
        low, high = kinds.get(path[-1].key, (0, 0))
        return rng.uniform(low, high, leaf.shape) if high else np.asarray(leaf, np.float64)

    variables = models.init(network, jax.random.key(0), SIZE)
    return jax.tree_util.tree_map_with_path(change, variables)


@pytest.mark.parametrize(
    "model",
    ["resnet_unet:backbone=resnet18", pytest.param("mtan", marks=pytest.mark.slow)],
)
def test_a_folded_network_predicts_the_same(model):
    network = models.build(
        select(["segmentation", "depth", "normals"]), num_classes=5, model=model, dtype=np.float64
    )
    image = np.random.default_rng(1).uniform(size=(2, *SIZE, 3))
    predict = jax.jit(lambda variables: models.predict(network, variables, {"image": image}))
    with jax.enable_x64(True), jax.numpy_dtype_promotion("standard"):
        variables = trained(network)
        expected = predict(variables)
        smaller = fold(network, variables, SIZE)
        with folded():
            found = predict(smaller)
    for name, values in found.items():
        # The heads' outputs are rounded to single precision.
        np.testing.assert_allclose(values, expected[name], rtol=1e-5, atol=1e-6)
        assert np.std(values) > 1e-3
    names = {path[-1].key for path, _ in jax.tree_util.tree_leaves_with_path(smaller.params)}
    assert names == {"kernel", "bias"}
    assert not jax.tree.leaves(smaller.batch_stats)


class NormalisesImages(nn.Module):
    @nn.compact
    def __call__(self, image, *, train):
        return nn.BatchNorm(use_running_average=not train)(image)


def test_a_normalisation_without_a_convolution_is_refused():
    network = models.Network(NormalisesImages(), {"depth": nn.Dense(1)}, (DEPTH,))
    variables = NormalisesImages().init(jax.random.key(0), jnp.zeros((1, *SIZE, 3)), train=False)
    tree = models.Variables(*({"trunk": variables[x]} for x in ("params", "batch_stats")))
    with pytest.raises(ValueError, match="BatchNorm_0 normalises something else"):
        fold(network, tree, SIZE)
