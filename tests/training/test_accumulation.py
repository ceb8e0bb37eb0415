"""A step over parts of a batch against the step over the whole batch."""

import jax
import numpy as np
import optax
import pytest

from mtl_jax import data, models, parallel
from mtl_jax.training import accumulation, passes, step
from tests import fakes, tiny

SPLIT = data.open_splits(fakes.builder(train=12))["train"]


def batch_of(size):
    """A batch with parts in which a task has no label, and unequal numbers of labels."""
    batch = data.batch_at(SPLIT, tiny.TASKS, batch_size=size, seed=0, step=0)
    batch = {name: x.copy() for name, x in batch.items()}
    batch["depth"][::4] = 0
    batch["segmentation"][1::2] = -1
    batch["segmentation"][0, 8:] = -1
    batch["normals"][2, :, 8:] = 0
    return batch


def after(method, *, accumulate, devices=1, size=8, norm="group", which="update", **options):
    """The state after two steps of SGD, and what the second one shows."""
    network = tiny.network(norm=norm)
    recipe = tiny.recipe(method, optax.sgd(0.05))._replace(network=network)
    batch, devices = batch_of(size), jax.local_devices()[:devices]
    state = step.init_state(recipe, seed=0, image_size=tiny.IMAGE_SIZE)
    steps = step.make_steps(
        recipe,
        image_size=tiny.IMAGE_SIZE,
        batch_size=size,
        devices=devices,
        accumulate=accumulate,
        **options,
    )
    state, batch = parallel.replicate(state, devices), parallel.shard(batch, devices)
    for name in ("update", which):
        state, shown = getattr(steps, name)(state, batch)
    return jax.device_get((state, shown))


def check_equal(found, expected, *, tolerance=2e-5):
    flat = [jax.tree.leaves_with_path(x) for x in (found, expected)]
    for (path, ours), (_, theirs) in zip(*flat, strict=True):
        ours, theirs = (np.asarray(x, np.float64) for x in (ours, theirs))
        limit = tolerance * max(1.0, np.abs(theirs).max(initial=0.0))
        np.testing.assert_allclose(ours, theirs, atol=limit, err_msg=jax.tree_util.keystr(path))


@pytest.mark.parametrize(
    ("method", "options"),
    [
        pytest.param("equal", {}, marks=pytest.mark.slow),
        pytest.param("uw", {"devices": 2, "augment": None}, marks=pytest.mark.slow),
        ("nash", {}),
        pytest.param("nash", {"which": "reuse", "devices": 2}, marks=pytest.mark.slow),
        pytest.param("nash", {"gradients": "features"}, marks=pytest.mark.slow),
        pytest.param("moco", {}, marks=pytest.mark.slow),
        pytest.param("famo", {"devices": 2, "augment": None}, marks=pytest.mark.slow),
        pytest.param("modo", {"size": 12, "accumulate": 2}, marks=pytest.mark.slow),
    ],
)
def test_parts_give_what_the_whole_batch_gives(method, options):
    options = {"accumulate": 4, **options}
    found = after(method, **options)
    assert np.all(found[1]["losses"] > 0)
    # MoCo divides by small differences: JAX 0.8 rounds its weights to 2.4e-5.
    tolerance = 5e-5 if method == "moco" else 2e-5
    check_equal(found, after(method, **options | {"accumulate": 1}), tolerance=tolerance)


@pytest.mark.slow
def test_frozen_statistics_make_parts_exact_too():
    found = after("equal", accumulate=2, norm="frozen")
    expected = after("equal", accumulate=1, norm="frozen")
    check_equal(found, expected)
    start = models.init(tiny.network(norm="frozen"), jax.random.key(0), tiny.IMAGE_SIZE)
    jax.tree.map(np.testing.assert_array_equal, found[0].variables.batch_stats, start.batch_stats)


def test_batch_normalisation_sees_one_part_after_the_other():
    """Each part has its own statistics; the running ones are updated by one after the other."""
    network = tiny.network()
    variables = models.init(network, jax.random.key(0), tiny.IMAGE_SIZE)
    batch = data.decode(batch_of(8), tiny.TASKS)

    def in_parts(variables, batch):
        backward, _ = accumulation.trunk_gradients(network, variables, batch, 2)
        return backward

    def in_turn(variables, batch):
        found = []
        for first in range(2):
            part = jax.tree.map(lambda x, first=first: x[first::2], batch)
            _, backward = passes.differentiate(network, variables, part)
            variables = variables._replace(batch_stats=backward.batch_stats)
            found.append((backward.losses, backward.counts))
        return found, variables.batch_stats

    backward = jax.jit(parallel.one_device(in_parts))(variables, batch)
    parts, stats = jax.jit(parallel.one_device(in_turn))(variables, batch)
    check_equal(backward.batch_stats, stats)
    losses, counts = (np.array(x, np.float64) for x in zip(*parts, strict=True))
    np.testing.assert_array_equal(backward.counts, counts.sum(0))
    np.testing.assert_allclose(backward.losses, (losses * counts).sum(0) / counts.sum(0), rtol=1e-5)


def test_a_part_must_have_as_many_images_as_the_others():
    with pytest.raises(
        ValueError, match="`accumulate`=3: it must divide the images of a device, 8"
    ):
        after("equal", accumulate=3)
    with pytest.raises(ValueError, match="`accumulate`=8: .* a device, 4 with `batch_size`=8"):
        after("equal", accumulate=8, devices=2)
    with pytest.raises(ValueError, match="`accumulate`=3: .* a third of a device's images, 4"):
        after("modo", accumulate=3, size=12)


def test_each_part_needs_enough_images_for_its_statistics():
    network = models.build(tiny.TASKS, num_classes=3, model="resnet_unet:backbone=resnet18")
    recipe = tiny.recipe("equal")._replace(network=network)
    kwargs = {"image_size": (64, 96), "devices": jax.local_devices()[:1], "batch_size": 4}
    step.check_options(recipe, accumulate=2, **kwargs)
    with pytest.raises(ValueError, match="`batch_size`=4: .* set at least 8 .with `accumulate`=4"):
        step.check_options(recipe, accumulate=4, **kwargs)
    group = models.build(tiny.TASKS, num_classes=3, model="resnet_unet:norm=group")
    step.check_options(recipe._replace(network=group), accumulate=4, **kwargs)
