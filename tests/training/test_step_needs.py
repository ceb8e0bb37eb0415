"""What a weighting may ask of the step beyond losses and a Gram matrix, and what it then gets."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mtl_jax import data, models, parallel
from mtl_jax.training import passes, step
from mtl_jax.weighting import METHODS, TaskWeights, Weighting
from tests import fakes, tiny
from tests.training.steps import SGD, SPLIT, applied, flat, make, separate_gradients

ANY_NUMBER_OF_DEVICES = pytest.mark.parametrize(
    "devices", [pytest.param(1, marks=pytest.mark.slow), 4]
)


def ones(count):
    return TaskWeights(jnp.ones(count), jnp.ones(count))


def loudest():
    """Takes every entry of the gradient from the task that has it largest."""

    def combine(each, signals, state):
        def leaf(x):
            winner = jnp.argmax(jnp.abs(x), axis=0, keepdims=True)
            return jnp.take_along_axis(x, winner, axis=0)[0]

        return jax.tree.map(leaf, each), ones(3), state, {}

    return Weighting(
        init=lambda num_tasks, shared: jax.tree.map(lambda x: jnp.zeros(x.shape), shared),
        update=lambda signals, state: (ones(3), state, {}),
        needs="gradients",
        combine=combine,
    )


def hindsight():
    """Equal weights; keeps the losses before and after the last step."""

    def follow_up(losses, signals, state):
        return jnp.stack([signals.losses, losses])

    return Weighting(
        init=lambda num_tasks, shared: jnp.zeros((2, num_tasks)),
        update=lambda signals, state: (ones(3), state, {}),
        needs="losses",
        follow_up=follow_up,
    )


def crossing():
    """Equal weights; keeps the two matrices of the last step."""

    def update(signals, state):
        if signals.gram is not None:
            state = jnp.stack([signals.cross, signals.gram])
        return ones(3), state, {}

    return Weighting(
        init=lambda num_tasks, shared: jnp.zeros((2, num_tasks, num_tasks)),
        update=update,
        needs="gram",
        needs_cross=True,
    )


def trunks(variables, batch):
    """f64[K, n], the tasks' gradients of the trunk."""
    return np.stack(
        [flat(gradient["trunk"]) for _, gradient in separate_gradients(variables, batch)]
    )


@ANY_NUMBER_OF_DEVICES
def test_a_method_by_the_gradients_makes_the_trunks_gradient_itself(devices):
    state, steps, batch = make(loudest(), devices=devices)
    before = jax.device_get(state.variables)
    after, _ = steps.update(state, batch)
    found = applied(before.params, jax.device_get(after.variables.params))
    _, _, whole = make(loudest())
    each = trunks(before, whole)
    expected = each[np.argmax(np.abs(each), axis=0), np.arange(each.shape[1])]
    # An entry that two tasks share almost equally may go to either.
    close = np.isclose(flat(found["trunk"]), expected, atol=1e-4 * np.abs(expected).max())
    assert close.mean() > 0.999


def test_follow_up_sees_the_losses_of_the_batch_under_the_new_parameters():
    gently = optax.sgd(0.01)
    state, steps, batch = make(hindsight(), devices=4, optimizer=gently)
    equal, equal_steps, _ = make("equal", devices=4, optimizer=gently)
    after, shown = steps.update(state, batch)
    same, _ = equal_steps.update(equal, batch)
    # Two programs: a last bit may differ.
    np.testing.assert_allclose(flat(after.variables), flat(same.variables), rtol=1e-6, atol=1e-8)
    _, _, whole = make(hindsight())
    losses = [loss for loss, _ in separate_gradients(jax.device_get(after.variables), whole)]
    np.testing.assert_allclose(after.weighting[0], shown["losses"], rtol=1e-6)
    np.testing.assert_allclose(after.weighting[1], losses, rtol=1e-5)
    assert not np.allclose(after.weighting[0], after.weighting[1], rtol=1e-4)


def test_a_skipped_step_is_not_followed_up():
    batch = data.batch_at(SPLIT, tiny.TASKS, batch_size=8, seed=0, step=0)
    state, steps, shards = make(hindsight(), batch=batch)
    state, _ = steps.update(state, shards)
    before = np.asarray(state.weighting)
    bad = {**batch, "depth": np.full_like(batch["depth"], np.inf)}
    state, shown = steps.update(state, parallel.shard(bad, jax.local_devices()[:1]))
    assert int(shown["skipped"]) == 1
    np.testing.assert_array_equal(state.weighting, before)


@ANY_NUMBER_OF_DEVICES
def test_a_crossed_step_weighs_a_third_and_compares_the_others(devices):
    split = data.open_splits(fakes.builder(train=12))["train"]
    batch = data.batch_at(split, tiny.TASKS, batch_size=12, seed=0, step=0)
    parts = [{name: x[start::3] for name, x in batch.items()} for start in range(3)]
    one = jax.local_devices()[:1]
    before = jax.device_get(make(crossing(), batch=batch)[0].variables)
    first, second, third = (trunks(before, parallel.shard(part, one)) for part in parts)
    expected = third.sum(0)
    state, steps, shards = make(crossing(), devices=devices, batch=batch)
    after, _ = steps.update(state, shards)
    cross, gram = np.asarray(after.weighting)
    np.testing.assert_allclose(cross, first @ second.T, atol=1e-4 * np.abs(cross).max())
    np.testing.assert_allclose(gram, third @ third.T, atol=1e-4 * np.abs(gram).max())
    got = applied(before.params, jax.device_get(after.variables.params))
    scale = np.abs(expected).max()
    np.testing.assert_allclose(flat(got["trunk"]), expected, atol=1e-4 * scale)


def test_a_batch_that_does_not_divide_in_three_is_refused():
    with pytest.raises(ValueError, match="`batch_size`=8: .* a multiple of 6"):
        make(crossing(), devices=2)


RESNET18 = "resnet_unet:backbone=resnet18"


def check(method, batch_size, *, model=RESNET18, devices=1, size=(64, 96), labelled_per_batch=None):
    network = models.build(tiny.TASKS, num_classes=3, model=model, axis_name=parallel.AXIS)
    step.check_options(
        step.Recipe(network, METHODS[method](), SGD),
        image_size=size,
        batch_size=batch_size,
        devices=jax.local_devices()[:devices],
        labelled_per_batch=labelled_per_batch,
    )


@pytest.mark.parametrize(
    ("method", "batch_size", "devices", "enough"),
    [("equal", 1, 1, 2), ("modo", 3, 1, 6), ("sdmgrad", 3, 1, 6)],
)
def test_passes_of_a_single_image_are_refused_where_an_image_is_pooled_to_one_value(
    method, batch_size, devices, enough
):
    message = f"`batch_size`={batch_size}: .* with 1 per pass .* set at least {enough}"
    with pytest.raises(ValueError, match=message):
        check(method, batch_size, devices=devices)
    check(method, enough, devices=devices)


def test_the_images_of_all_devices_count_and_networks_without_pooling_take_one():
    check("modo", 6, devices=2)  # thirds of one image on each device, of two in all
    check("equal", 2, devices=2)
    check("equal", 1, model="segnet")
    check("modo", 3, model="mtan", size=(32, 32))
    network = models.build(tiny.TASKS, num_classes=3, model=RESNET18)
    with pytest.raises(ValueError, match="`batch_size`=1: "):
        step.make_steps(
            step.Recipe(network, METHODS["equal"](), SGD),
            image_size=(64, 96),
            batch_size=1,
            devices=jax.local_devices()[:1],
        )


def test_thirds_without_an_image_with_labels_are_refused():
    for count in (1, 2):
        message = f"`labelled_per_batch`={count}: .*`label_fraction`.* at least 3"
        with pytest.raises(ValueError, match=message):
            check("modo", 9, labelled_per_batch=count)
        check("equal", 9, labelled_per_batch=count)
    check("modo", 9, labelled_per_batch=3)


@pytest.mark.parametrize(("labelled_per_batch", "devices"), [(3, 1), (3, 4), (5, 2), (6, 4)])
def test_every_third_has_labels_on_any_number_of_devices(labelled_per_batch, devices):
    few = data.withhold_labels(data.open_splits(fakes.builder())["train"], label_fraction=0.3)
    how = {"batch_size": 12, "seed": 0, "step": 2, "labelled_per_batch": labelled_per_batch}
    shards = parallel.shard(data.batch_at(few, tiny.TASKS, **how), jax.local_devices()[:devices])
    segmentation = np.asarray(shards["segmentation"])
    parts = [passes.thirds({"segmentation": x}) for x in segmentation]  # of each device
    found = [
        sum(int(np.sum(part[third]["segmentation"].max((1, 2)) >= 0)) for part in parts)
        for third in range(3)
    ]
    assert sum(found) == labelled_per_batch
    assert max(found) - min(found) <= 1
