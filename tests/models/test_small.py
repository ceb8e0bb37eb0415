"""The small U-Net, which has the interface of the others."""

import jax
import jax.numpy as jnp
import pytest

from mtl_jax import models
from mtl_jax.tasks import select


@pytest.mark.parametrize("size", [(32, 48), (37, 53)])
def test_outputs_have_the_size_of_the_image(size):
    network = models.build(select(["segmentation", "depth"]), num_classes=5, model="small")
    variables = models.init(network, jax.random.key(0), size)
    batch = {"image": jnp.zeros((2, *size, 3))}
    found = jax.eval_shape(lambda: models.predict(network, variables, batch))
    assert {x.shape[1:3] for x in found.values()} == {size}


def test_channels_scale_the_network():
    def count(model):
        network = models.build(select(["depth"]), num_classes=5, model=model)
        params = models.init(network, jax.random.key(0), (32, 32)).params
        return sum(x.size for x in jax.tree.leaves(params))

    assert 3.5 < count("small:channels=32") / count("small") < 4.0
    with pytest.raises(ValueError, match="channels=0: must be at least 1"):
        count("small:channels=0")
