"""The average of the weights against its closed form, optax, and through a run's checkpoints."""

import json

import jax
import numpy as np
import optax
import pytest

from mtl_jax import data, parallel
from mtl_jax.training import restore, step
from tests import fakes, tiny

ONE = jax.local_devices()[:1]
SPLIT = data.open_splits(fakes.builder(train=4))["train"]


def states(average, *, steps, bad=()):
    """The states after each step; those in `bad` have a depth that is not finite."""
    recipe = tiny.recipe("equal", optax.sgd(0.1, momentum=0.9), average=average)
    made = step.make_steps(
        recipe, image_size=tiny.IMAGE_SIZE, batch_size=4, devices=ONE, augment=None
    )
    state = parallel.replicate(step.init_state(recipe, seed=0, image_size=tiny.IMAGE_SIZE), ONE)
    batch = data.batch_at(SPLIT, tiny.TASKS, batch_size=4, seed=0, step=0)
    found = []
    for number in range(steps):
        broken = {"depth": np.full_like(batch["depth"], np.inf)} if number in bad else {}
        state, _ = made.update(state, parallel.shard({**batch, **broken}, ONE))
        found.append(jax.device_get(state))
    return found


def test_the_average_is_that_of_all_steps_that_were_taken():
    decay = 0.7
    plain = [state.variables for state in states(None, steps=5, bad=[2])]
    found = states(decay, steps=5, bad=[2])
    jax.tree.map(np.testing.assert_array_equal, found[-1].variables, plain[-1])
    assert [int(state.optimizer.count) for state in found] == [1, 2, 2, 3, 4]
    taken = [plain[i] for i in (0, 1, 3, 4)]
    weights = decay ** np.arange(3, -1, -1.0) * (1 - decay) / (1 - decay**4)
    assert np.isclose(weights.sum(), 1)
    ema = optax.ema(decay, debias=True)
    state = ema.init(taken[0])
    for variables in taken:
        with jax.numpy_dtype_promotion("standard"):
            theirs, state = ema.update(variables, state)

    def check(ours, theirs, *each):
        expected = sum(w * x.astype(np.float64) for w, x in zip(weights, each, strict=True))
        np.testing.assert_allclose(ours, expected, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)

    jax.tree.map(check, step.evaluated(found[-1]), theirs, *taken)


def test_after_one_step_the_average_is_its_weights():
    (state,) = states(0.9999, steps=1)
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6),
        step.evaluated(state),
        state.variables,
    )


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two epochs in one go, and one after the other."""
    folder = tmp_path_factory.mktemp("average")
    options = {"weighting": "equal", "average": 0.9}
    tiny.run(folder / "whole", epochs=2, **options)
    for epochs in (1, 2):
        tiny.run(folder / "resumed", epochs=epochs, **options)
    return folder


def saved(folder, averaged):
    return jax.device_get(
        restore.restore_variables(
            folder,
            tiny.network(),
            which="latest",
            image_size=tiny.IMAGE_SIZE,
            devices=ONE,
            averaged=averaged,
        )
    )


def test_a_resumed_run_has_the_same_average_bit_for_bit(runs):
    for averaged in (True, False):
        whole, resumed = (saved(runs / name, averaged) for name in ("whole", "resumed"))
        jax.tree.map(np.testing.assert_array_equal, whole, resumed)
    assert (runs / "whole/result.json").read_text() == (runs / "resumed/result.json").read_text()


def test_the_average_is_what_is_evaluated(runs):
    splits = data.open_splits(fakes.builder(), validation=0)
    judge = tiny.judge(tuple(ONE))._replace(splits=splits)
    result = json.loads((runs / "whole/result.json").read_text())["metrics"]
    found = {
        averaged: judge.evaluate(saved(runs / "whole", averaged), "test").metrics
        for averaged in (True, False)
    }
    names = sorted(result.keys() & found[True])
    assert {"segmentation/miou", "depth/absolute_error", "normals/mean"} <= set(names)
    for averaged in (True, False):
        same = [found[averaged][name] == pytest.approx(result[name]) for name in names]
        assert all(same) == averaged


def test_a_run_without_an_average_has_none_to_use(tmp_path):
    tiny.run(tmp_path, epochs=1, weighting="equal")
    with pytest.raises(ValueError, match="it has no optimizer.average"):
        saved(tmp_path, averaged=True)
