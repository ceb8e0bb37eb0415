"""The growth of cost is measured with as many tasks as wanted; no test here asserts a time."""

import jax
import numpy as np
import pytest

from mtl_jax import models
from mtl_jax.bench import growth, speed
from mtl_jax.bench.growth import Cost, Kind
from mtl_jax.weighting import METHODS
from tests import fakes, tiny


def test_repeated_tasks_have_heads_of_their_own():
    tasks = growth.repeat(tiny.TASKS, 5)
    names = [task.name for task in tasks]
    assert names == ["segmentation_0", "depth_1", "normals_2", "segmentation_3", "depth_4"]
    heads = models.init(tiny.network(tasks), jax.random.key(0), tiny.IMAGE_SIZE).params["heads"]
    assert list(heads) == sorted(names)
    first, second = (jax.tree.leaves(heads[f"depth_{i}"]) for i in (1, 4))
    assert not all(np.array_equal(x, y) for x, y in zip(first, second, strict=True))


def test_each_step_and_each_pass_is_measured():
    tasks = growth.repeat(tiny.TASKS[1:2], 2)
    batch = speed.synthetic_batch(
        tasks, image_size=tiny.IMAGE_SIZE, batch_size=2, num_classes=len(fakes.CLASSES)
    )
    kinds = {"a": Kind(METHODS["nash"](), "recomputed")}
    devices = jax.local_devices()[:1]
    found = growth.measure(kinds, tiny.network(tasks), batch, devices=devices, rounds=1)
    assert found.keys() == {"a", *growth.PASSES}
    assert all(cost.milliseconds > 0 and cost.megabytes > 0 for cost in found.values())


def test_the_least_of_a_step_is_that_of_its_passes():
    costs = {
        "forward": Cost(10.0, 0.0),
        "forward + 1": Cost(30.0, 0.0),
        "forward + K": Cost(90.0, 0.0),
    }
    assert growth.least(costs, {"forward + K": 1}) == 90.0
    one_more = {"forward + K": 1, "forward + 1": 1, "forward": -1}
    assert growth.least(costs, one_more) == 110.0


def test_the_slope_is_that_of_a_line():
    assert growth.slope([2, 4, 16], [7.0, 13.0, 49.0]) == pytest.approx(3.0)
