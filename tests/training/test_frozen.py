"""A frozen encoder does not change under any optimizer or weighting."""

import jax
import numpy as np
import pytest

from mtl_jax import data, models, parallel
from mtl_jax.models import resnet, unet
from mtl_jax.training.optimizer import make_optimizer
from mtl_jax.training.step import Recipe, init_state, make_steps
from mtl_jax.weighting import METHODS
from tests import fakes, tiny

ONE = jax.local_devices()[:1]


@pytest.fixture
def network(monkeypatch):
    """A small U-Net whose encoder is not trained, with the tiny heads."""
    encoder = resnet.BACKBONES["resnet18"].func
    small = {"stages": (1, 1, 1, 1), "block": resnet.BasicBlock}
    monkeypatch.setitem(unet.BACKBONES, "small", lambda **kwargs: encoder(**small, **kwargs))
    trunk = unet.UNet("small", channels=(8, 8, 8, 8, 8), axis_name=parallel.AXIS, frozen=True)
    return tiny.network()._replace(trunk=trunk)


def test_a_frozen_encoder_keeps_every_bit(network):
    optimizer = make_optimizer(
        "adamw:weight_decay=0.1", learning_rate=0.1, frozen=models.frozen(network)
    )
    recipe = Recipe(network, METHODS["nash"](), optimizer)
    state = init_state(recipe, seed=0, image_size=tiny.IMAGE_SIZE)
    before = jax.device_get(state.variables)
    split = data.open_splits(fakes.builder(train=4))["train"]
    batch = data.batch_at(split, tiny.TASKS, batch_size=4, seed=0, step=0)
    steps = make_steps(recipe, image_size=tiny.IMAGE_SIZE, batch_size=4, devices=ONE, augment=None)
    state, batch = parallel.replicate(state, ONE), parallel.shard(batch, ONE)
    for _ in range(2):
        state, shown = steps.update(state, batch)
    assert np.all(np.isfinite(shown["losses"]))
    after = jax.device_get(state.variables)
    for old, new in zip(before, after, strict=True):
        same = jax.tree.map(np.array_equal, old, new)
        assert all(jax.tree.leaves(same["trunk"].pop("encoder")))
        assert not any(jax.tree.leaves(same["trunk"]))


def test_only_a_frozen_encoder_is_left_out(network):
    assert models.frozen(network._replace(trunk=tiny.Trunk())) is None
    assert models.frozen(models.build(tiny.TASKS, num_classes=3)) is None
    assert models.frozen(models.build(tiny.TASKS, num_classes=3, model="resnet_unet:frozen=true"))
