"""The training step against gradients taken one task at a time and a float64 bargain."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mtl_jax import data, gradients, models, parallel, step
from mtl_jax.weighting import METHODS
from tests import fakes, tiny

SGD = optax.sgd(0.1)
SPLIT = data.open_splits(fakes.builder(train=8))["train"]


def make(method="equal", *, devices=1, batch=None, optimizer=SGD, **options):
    """A tiny run's state, compiled steps and first batch."""
    network = tiny.network()
    weighting = METHODS[method](**tiny.OPTIONS.get(method, {}))
    devices = jax.local_devices()[:devices]
    state = step.init_state(network, tiny.TASKS, weighting, optimizer, seed=0, image_size=(32, 48))
    steps = step.make_train_step(
        network, tiny.TASKS, weighting, optimizer, devices=devices,
        **{"augmentation": False, **options},
    )  # fmt: skip
    if batch is None:
        batch = data.batch_at(SPLIT, tiny.TASKS, batch_size=8, seed=0, step=0)
    return parallel.replicate(state, devices), steps, parallel.shard(batch, devices)


def separate_gradients(variables, batch):
    """Each task's loss and gradient in all parameters, each by passes of its own."""
    network = tiny.network()

    def loss(params, task, batch):
        batch = data.decode(batch)
        stats = variables.batch_stats
        features, _ = models.apply_trunk(network, params["trunk"], stats["trunk"], batch["image"])
        prediction, _ = models.apply_head(
            network, task, params["heads"][task.name], stats["heads"][task.name], features, batch
        )
        total, count = task.loss(prediction, batch)
        return total / count

    def on_device(params, batch):
        return [jax.value_and_grad(loss)(params, task, batch) for task in tiny.TASKS]

    mapped = parallel.data_parallel(on_device, jax.local_devices()[:1])
    return jax.device_get(mapped(variables.params, batch))


def flat(tree):
    return np.concatenate([np.ravel(x).astype(np.float64) for x in jax.tree.leaves(tree)])


def applied(before, after):
    """The gradient that SGD followed from one state to the next."""
    return jax.tree.map(lambda a, b: (np.asarray(a) - np.asarray(b)) / 0.1, before, after)


def bargain(gram):
    """Newton's method on the Nash bargain in float64."""
    a = 1 / np.sqrt(np.diag(gram))
    for _ in range(200):
        gradient = gram @ a - 1 / a
        direction = np.linalg.solve(gram + np.diag(1 / a**2), gradient)
        a = a - direction / (1 + np.sqrt(gradient @ direction))
    return a


def test_equal_follows_the_sum_of_the_task_gradients():
    state, steps, batch = make("equal")
    before = jax.device_get(state.variables)
    separate = separate_gradients(before, batch)
    after, shown = steps[True](state, batch)
    got = applied(before.params, jax.device_get(after.variables.params))
    expected = sum(flat(gradient) for _, gradient in separate)
    np.testing.assert_allclose(flat(got), expected, atol=2e-6 * np.abs(expected).max() + 1e-6)
    np.testing.assert_allclose(shown["losses"], [loss for loss, _ in separate], rtol=1e-5)


def test_nash_follows_the_bargain_and_no_task_reaches_anothers_head():
    state, steps, batch = make("nash")
    before = jax.device_get(state.variables)
    separate = [gradient for _, gradient in separate_gradients(before, batch)]
    after, shown = steps[True](state, batch)
    got = applied(before.params, jax.device_get(after.variables.params))

    trunk = np.stack([flat(gradient["trunk"]) for gradient in separate])
    alpha = bargain(trunk @ trunk.T)
    combined = alpha @ trunk
    combined /= max(1.0, np.linalg.norm(combined))
    scale = np.abs(combined).max()
    np.testing.assert_allclose(flat(got["trunk"]), combined, atol=1e-4 * scale)
    for a, task, gradient in zip(alpha, tiny.TASKS, separate, strict=True):
        expected = a * flat(gradient["heads"][task.name])
        found = flat(got["heads"][task.name])
        np.testing.assert_allclose(found, expected, atol=2e-4 * np.abs(expected).max())
        for other in tiny.TASKS:
            if other is not task:
                assert not flat(gradient["heads"][other.name]).any()
    assert np.all(np.asarray(shown["weights"]) > 0)


def test_one_forward_pass_moves_the_running_statistics_once():
    state, steps, batch = make("nash")
    before = jax.device_get(state.variables)
    network = tiny.network()

    def once(variables, batch):
        image = data.decode(batch)["image"]
        return models.apply_trunk(
            network, variables.params["trunk"], variables.batch_stats["trunk"], image
        )[1]

    mapped = parallel.data_parallel(once, jax.local_devices()[:1])
    expected = jax.device_get(mapped(before, batch))
    after, _ = steps[True](state, batch)
    np.testing.assert_allclose(
        flat(after.variables.batch_stats["trunk"]), flat(expected), rtol=1e-5
    )


def test_one_compiled_step_serves_every_seed():
    state, steps, batch = make("equal", augmentation=True)
    followed = []
    for seed in (0, 0, 1):
        start = jax.tree.map(jnp.copy, state)._replace(seed=jnp.array(seed, jnp.int32))
        after, _ = steps[True](start, batch)
        assert int(after.seed) == seed
        followed.append(flat(after.variables.params))
    np.testing.assert_array_equal(followed[0], followed[1])
    assert not np.array_equal(followed[0], followed[2])


def test_between_bargains_the_last_weights_hold():
    state, steps, batch = make("nash")
    state, first = steps[True](state, batch)
    before = jax.device_get(state.variables)
    separate = [gradient for _, gradient in separate_gradients(before, batch)]
    after, second = steps[False](state, batch)
    np.testing.assert_array_equal(first["weights"], second["weights"])
    got = applied(before.params, jax.device_get(after.variables.params))
    trunk = np.stack([flat(gradient["trunk"]) for gradient in separate])
    expected = np.asarray(first["weights"], np.float64) @ trunk
    np.testing.assert_allclose(flat(got["trunk"]), expected, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize("method", ["equal", "uw", "nash"])
def test_four_devices_give_what_one_gives(method):
    # Unequal numbers of labels on the devices: a mean of the devices' means would be another one.
    batch = data.batch_at(SPLIT, tiny.TASKS, batch_size=8, seed=0, step=0)
    batch["depth"][:5] = 0
    batch["segmentation"][3:] = -1
    results = []
    for devices in (1, 4):
        state, steps, shards = make(method, devices=devices, batch=batch, augmentation=True)
        for _ in range(5):
            state, _ = steps[True](state, shards)
        results.append(flat(state.variables.params))
    one, four = results
    np.testing.assert_allclose(four, one, atol=1e-5 * np.abs(one).max())


@pytest.mark.parametrize("method", ["equal", "uw", "nash"])
def test_a_step_whose_gradient_is_not_finite_changes_nothing_and_is_counted(method):
    batch = data.batch_at(SPLIT, tiny.TASKS, batch_size=8, seed=0, step=0)
    bad = {**batch, "intrinsics": batch["intrinsics"], "depth": batch["depth"].copy()}
    bad["depth"][0, 10, 10] = np.inf
    state, steps, shards = make(method, batch=batch)
    state, _ = steps[True](state, shards)
    before = jax.device_get(state)
    state, shown = steps[True](state, parallel.shard(bad, jax.local_devices()[:1]))
    state, shown = steps[True](state, parallel.shard(bad, jax.local_devices()[:1]))
    after = jax.device_get(state)
    assert int(shown["skipped"]) == 2
    assert int(after.step) == 3
    assert after.sums["skipped"] == 2
    assert after.sums["steps"] == 1
    for part in ("variables", "optimizer", "weighting"):
        for a, b in zip(
            jax.tree.leaves(getattr(before, part)),
            jax.tree.leaves(getattr(after, part)),
            strict=True,
        ):
            np.testing.assert_array_equal(a, b)
    state, shown = steps[True](state, shards)
    assert int(shown["skipped"]) == 0


def test_a_task_without_labels_in_the_batch_moves_nothing_of_its_own():
    batch = data.batch_at(SPLIT, tiny.TASKS, batch_size=8, seed=0, step=0)
    batch["segmentation"][:] = -1
    for method in ("uw", "nash"):
        state, steps, shards = make(method, batch=batch)
        before = jax.device_get(state.variables.params)
        after, shown = steps[True](state, shards)
        got = applied(before, jax.device_get(after.variables.params))
        assert not flat(got["heads"]["segmentation"]).any()
        assert flat(got["heads"]["depth"]).any()
        assert np.all(np.isfinite(shown["weights"]))


def test_half_precision_keeps_parameters_and_gram_in_float32():
    tasks = tiny.TASKS
    network = models.build(
        tasks, num_classes=3, backbone="resnet18", dtype=jnp.bfloat16, axis_name=parallel.AXIS
    )
    variables = models.init(network, jax.random.key(0), (32, 48))
    assert {x.dtype for x in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
    grads = {"w": jnp.ones((3, 5), jnp.bfloat16)}
    assert gradients.gram(grads).dtype == jnp.float32
