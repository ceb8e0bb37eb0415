"""The training step against gradients taken one task at a time and a float64 bargain."""

import functools
import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtl_jax import data, models, parallel
from mtl_jax.training import passes, step
from mtl_jax.weighting import METHODS
from tests import tiny
from tests.training.steps import SGD, SPLIT, applied, bargain, flat, make, separate_gradients

AUGMENTED = {"augment": functools.partial(data.augment, colour_jitter=0.3)}


def test_equal_follows_the_sum_of_the_task_gradients():
    state, steps, batch = make("equal")
    before = jax.device_get(state.variables)
    separate = separate_gradients(before, batch)
    after, shown = steps.update(state, batch)
    got = applied(before.params, jax.device_get(after.variables.params))
    expected = sum(flat(gradient) for _, gradient in separate)
    np.testing.assert_allclose(flat(got), expected, atol=2e-6 * np.abs(expected).max() + 1e-6)
    np.testing.assert_allclose(shown["losses"], [loss for loss, _ in separate], rtol=1e-5)


def test_nash_follows_the_bargain_and_no_task_reaches_anothers_head():
    state, steps, batch = make("nash")
    before = jax.device_get(state.variables)
    separate = [gradient for _, gradient in separate_gradients(before, batch)]
    after, shown = steps.update(state, batch)
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


def feature_gradients(variables, batch):
    """Each task's gradient at the features, by a pass of its own through its head."""
    network = tiny.network()

    def on_device(variables, batch):
        batch = data.decode(batch, tiny.TASKS)
        params, stats = variables
        features, _ = models.apply_trunk(network, params["trunk"], stats["trunk"], batch["image"])

        def loss(features, task):
            head, head_stats = params["heads"][task.name], stats["heads"][task.name]
            prediction, _ = models.apply_head(network, task, head, head_stats, features, batch)
            total, count = task.loss(prediction, batch)
            return total / count

        return [jax.grad(loss)(features, task) for task in tiny.TASKS]

    mapped = parallel.data_parallel(on_device, jax.local_devices()[:1])
    return jax.device_get(mapped(variables, batch))


@pytest.mark.parametrize("devices", [pytest.param(1, marks=pytest.mark.slow), 4])
def test_a_bargain_at_the_features_weighs_the_trunks_gradients(devices):
    state, steps, batch = make("nash", gradients="features", devices=devices)
    before = jax.device_get(state.variables)
    one_device = parallel.shard(
        data.batch_at(SPLIT, tiny.TASKS, batch_size=8, seed=0, step=0), jax.local_devices()[:1]
    )
    at_features = np.stack([flat(x) for x in feature_gradients(before, one_device)])
    alpha = bargain(at_features @ at_features.T)
    alpha /= max(1.0, np.linalg.norm(alpha @ at_features))
    separate = [flat(g["trunk"]) for _, g in separate_gradients(before, one_device)]
    after, shown = steps.update(state, batch)
    np.testing.assert_allclose(shown["weights"], alpha, rtol=1e-3)
    got = flat(applied(before.params["trunk"], jax.device_get(after.variables.params["trunk"])))
    expected = alpha @ np.stack(separate)
    np.testing.assert_allclose(got, expected, atol=1e-3 * np.abs(expected).max())


@pytest.mark.parametrize("method", ["moco", "modo"])
def test_methods_that_need_the_gradients_themselves_refuse_the_features(method):
    with pytest.raises(ValueError, match="`gradients`=features"):
        make(METHODS[method](), gradients="features")


def test_recomputed_gradients_take_the_same_step():
    """The trunk's gradients, their weights and the heads, on two devices."""
    found = {}
    for gradients in ("parameters", "recomputed"):
        state, steps, batch = make("nash", gradients=gradients, devices=2)
        before = jax.device_get(state.variables.params)
        after, shown = steps.update(state, batch)
        found[gradients] = flat(applied(before, jax.device_get(after.variables.params))), shown
    (kept, shown), (recomputed, again) = found.values()
    np.testing.assert_allclose(again["weights"], shown["weights"], rtol=1e-4)
    np.testing.assert_allclose(recomputed, kept, atol=1e-4 * np.abs(kept).max())


def test_recomputed_gradients_cannot_be_accumulated():
    with pytest.raises(ValueError, match="`gradients`=recomputed: with `accumulate`=2"):
        make("nash", gradients="recomputed", accumulate=2)


def test_gradients_of_what_is_not_known_are_refused():
    with pytest.raises(ValueError, match="`gradients`=feature: .*parameters, recomputed, features"):
        make("nash", gradients="feature")


def test_one_forward_pass_moves_the_running_statistics_once():
    state, steps, batch = make("nash")
    before = jax.device_get(state.variables)
    network = tiny.network()

    def once(variables, batch):
        image = data.decode(batch, tiny.TASKS)["image"]
        return models.apply_trunk(
            network, variables.params["trunk"], variables.batch_stats["trunk"], image
        )[1]

    mapped = parallel.data_parallel(once, jax.local_devices()[:1])
    expected = jax.device_get(mapped(before, batch))
    after, _ = steps.update(state, batch)
    np.testing.assert_allclose(
        flat(after.variables.batch_stats["trunk"]), flat(expected), rtol=1e-5
    )


def test_one_compiled_step_serves_every_seed():
    state, steps, batch = make("nash", **AUGMENTED)
    followed = []
    for seed in (0, 0, 1):
        start = jax.tree.map(jnp.copy, state)._replace(seed=jnp.array(seed, jnp.int32))
        after, _ = steps.update(start, batch)
        assert int(after.seed) == seed
        followed.append(flat(after.variables.params))
    np.testing.assert_array_equal(followed[0], followed[1])
    assert not np.array_equal(followed[0], followed[2])


def test_between_bargains_the_last_weights_hold():
    state, steps, batch = make("nash")
    state, first = steps.update(state, batch)
    before = jax.device_get(state.variables)
    separate = [gradient for _, gradient in separate_gradients(before, batch)]
    after, second = steps.reuse(state, batch)
    np.testing.assert_array_equal(first["weights"], second["weights"])
    got = applied(before.params, jax.device_get(after.variables.params))
    trunk = np.stack([flat(gradient["trunk"]) for gradient in separate])
    expected = np.asarray(first["weights"], np.float64) @ trunk
    np.testing.assert_allclose(flat(got["trunk"]), expected, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize("method", [pytest.param("uw", marks=pytest.mark.slow), "nash"])
def test_four_devices_give_what_one_gives(method):
    # Unequal numbers of labels on the devices: a mean of the devices' means would be another one.
    batch = data.batch_at(SPLIT, tiny.TASKS, batch_size=8, seed=0, step=0)
    batch["depth"][:5] = 0
    batch["segmentation"][3:] = -1
    results = []
    for devices in (1, 4):
        state, steps, shards = make(method, devices=devices, batch=batch, **AUGMENTED)
        for _ in range(5):
            state, _ = steps.update(state, shards)
        results.append(flat(state.variables.params))
    one, four = results
    np.testing.assert_allclose(four, one, atol=1e-5 * np.abs(one).max())


@pytest.mark.parametrize("method", ["equal", "uw", "nash"])
def test_a_step_whose_gradient_is_not_finite_changes_nothing_and_is_counted(method):
    batch = data.batch_at(SPLIT, tiny.TASKS, batch_size=8, seed=0, step=0)
    bad = {**batch, "intrinsics": batch["intrinsics"], "depth": batch["depth"].copy()}
    bad["depth"][0, 10, 10] = np.inf
    state, steps, shards = make(method, batch=batch)
    state, _ = steps.update(state, shards)
    before = jax.device_get(state)
    state, shown = steps.update(state, parallel.shard(bad, jax.local_devices()[:1]))
    state, shown = steps.update(state, parallel.shard(bad, jax.local_devices()[:1]))
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
    state, shown = steps.update(state, shards)
    assert int(shown["skipped"]) == 0


def test_a_task_without_labels_in_the_batch_moves_nothing_of_its_own():
    batch = data.batch_at(SPLIT, tiny.TASKS, batch_size=8, seed=0, step=0)
    batch["segmentation"][:] = -1
    for method in ("uw", "nash"):
        state, steps, shards = make(method, batch=batch)
        before = jax.device_get(state.variables.params)
        after, shown = steps.update(state, shards)
        got = applied(before, jax.device_get(after.variables.params))
        assert not flat(got["heads"]["segmentation"]).any()
        assert flat(got["heads"]["depth"]).any()
        assert np.all(np.isfinite(shown["weights"]))


@pytest.mark.parametrize(
    ("total", "count", "mean"), [(0.75, 0.25, 3.0), (6.0, 8.0, 0.75), (0, 0, 0)]
)
def test_a_loss_is_divided_by_its_count_however_small(total, count, mean):
    """Stereo pairs count thirds of pixels, and the loss of one's own task may count anything."""

    def loss(prediction, batch):
        return jnp.float32(total), jnp.float32(count)

    task = tiny.TASKS[1]._replace(loss=loss)
    found = parallel.one_device(lambda _, batch: passes.local_loss(batch, task, {}))
    assert found((), jnp.zeros((2, 4, 4)))[0] == mean


def test_the_step_is_a_function_that_can_be_called_and_compiled_by_anybody():
    """It gives what the compiled steps give, and leaves the state that it got alone."""
    recipe = tiny.recipe("nash", SGD)
    batch = data.batch_at(SPLIT, tiny.TASKS, batch_size=8, seed=0, step=0)
    state, steps, shards = make("nash", **AUGMENTED)
    start = jax.device_get(state)
    expected, shown = steps.update(state, shards)
    bound = functools.partial(step.train_step, recipe=recipe, gradients="parameters", **AUGMENTED)
    own, own_shown = jax.jit(parallel.one_device(bound))(start, batch)
    np.testing.assert_allclose(own_shown["losses"], shown["losses"], rtol=1e-5)
    np.testing.assert_allclose(own_shown["weights"], shown["weights"], rtol=1e-3)
    wanted = flat(expected.variables.params)
    got = flat(own.variables.params)
    np.testing.assert_allclose(got, wanted, atol=1e-5 * np.abs(wanted).max())
    assert int(own.step) == 1
    assert int(start.step) == 0


@pytest.mark.parametrize(
    ("gradients", "has_gram"),
    [("parameters", True), ("recomputed", True), ("features", True), (None, False)],
)
def test_observe_completes_the_signals(gradients, has_gram):
    """All that a weighting without further needs is given, in one place."""
    recipe = tiny.recipe("nash", SGD)
    state = step.init_state(recipe, seed=0, image_size=tiny.IMAGE_SIZE)
    batch = data.decode(data.batch_at(SPLIT, tiny.TASKS, batch_size=8, seed=0, step=0), tiny.TASKS)

    def signals(state, batch):
        return step.observe(recipe, state, batch, gradients=gradients).signals

    found = jax.jit(parallel.one_device(signals))(state, batch)
    assert found.losses.shape == found.labelled.shape == (3,)
    assert (found.gram is not None) == has_gram
    if has_gram:
        assert found.gram.shape == (3, 3)
        assert np.all(np.diagonal(found.gram) > 0)
    assert found.cross is None
    assert int(found.step) == 0


def test_a_weighting_by_the_losses_has_one_compiled_step():
    for method, one in (("equal", True), ("uw", True), ("nash", False)):
        _, steps, _ = make(method)
        assert (steps.update is steps.reuse) == one


def test_weights_are_found_at_every_nth_step():
    _, steps, _ = make("nash", weigh_every=3)
    taken = [steps.at(number) is steps.update for number in range(7)]
    assert taken == [True, False, False, True, False, False, True]
    with pytest.raises(ValueError, match="`weigh_every`=0: must be at least 1"):
        make("nash", weigh_every=0)


def reduced_bytes(step, *arguments):
    """Bytes of all arrays that a compiled step sums over its devices."""
    text = step.lower(*arguments).compile().as_text()
    sizes = {"f32": 4, "s32": 4, "pred": 1}
    total = 0
    for line in text.splitlines():
        found = re.search(r"= (.*?) all-reduce(?:-start)?\(", line)
        for kind, shape in re.findall(r"(\w+)\[([\d,]*)\]", found[1]) if found else []:
            total += sizes[kind] * math.prod(int(n) for n in shape.split(",") if n)
    return total


@pytest.mark.parametrize("which", ["update", pytest.param("reuse", marks=pytest.mark.slow)])
def test_each_gradient_crosses_the_devices_once(which):
    """The least that an exact step can move: K gradients of the trunk, one of each head."""
    state, steps, batch = make("nash", devices=4)
    moved = reduced_bytes(getattr(steps, which), state, batch)
    params = state.variables.params
    trunk = len(tiny.TASKS) if which == "update" else 1
    least = 4 * (trunk * flat(params["trunk"]).size + flat(params["heads"]).size)
    # In addition come the sums of batch statistics, forward and backward, losses and counts.
    statistics = 4 * 6 * flat(state.variables.batch_stats).size
    assert least <= moved <= least + statistics
