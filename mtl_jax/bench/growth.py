"""How time and memory of a step grow with the number of tasks, and the lower bound of the time."""

import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np

from mtl_jax import models, parallel
from mtl_jax.bench import speed
from mtl_jax.tasks import Task
from mtl_jax.training.optimizer import make_optimizer
from mtl_jax.training.step import Recipe, init_state, make_steps
from mtl_jax.weighting import Weighting

# The forward pass alone, with one backward pass of the trunk, and with one for each task.
PASSES = ("forward", "forward + 1", "forward + K")


class Kind(NamedTuple):
    """A training step whose cost is measured.

    Attributes:
      weighting: weighting of the tasks.
      gradients: see `make_steps`.
    """

    weighting: Weighting
    gradients: str = "parameters"


class Cost(NamedTuple):
    """What one call of a compiled function costs.

    Attributes:
      milliseconds: median of some calls.
      megabytes: largest memory of a device in MiB, as XLA estimates it.
    """

    milliseconds: float
    megabytes: float


def repeat(tasks: Sequence[Task], count: int) -> list[Task]:
    """Returns some number of tasks: the given ones in turn, each time under a name of its own.

    Their heads have different parameters, and so their gradients differ, though they share labels.
    """
    chosen = [tasks[i % len(tasks)] for i in range(count)]
    return [task._replace(name=f"{task.name}_{i}") for i, task in enumerate(chosen)]


def measure(
    kinds: Mapping[str, Kind],
    network: models.Network,
    batch: Mapping[str, np.ndarray],
    *,
    devices: Sequence[jax.Device],
    rounds: int,
) -> dict[str, Cost]:
    """Measures training steps, and the passes that they are made of.

    Args:
      kinds: steps by name.
      network: network with its tasks, built with `axis_name=parallel.AXIS`.
      batch: a batch in stored types.
      devices: devices to run on.
      rounds: number of timed calls of each, taken in turn.

    Returns:
      The cost of each step and of each of `PASSES`.
    """
    size, shards = batch["image"].shape[1:3], parallel.shard(dict(batch), devices)
    variables = parallel.replicate(models.init(network, jax.random.key(0), size), devices)
    passes = dict(zip(PASSES, speed.pass_functions(network, devices).values(), strict=True))
    optimizer = make_optimizer("adam", learning_rate=1e-4)
    states, compiled = {}, {}
    # The next function is traced while threads compile the ones before it.
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for name, kind in kinds.items():
            recipe = Recipe(network, kind.weighting, optimizer)
            states[name] = parallel.replicate(init_state(recipe, seed=0, image_size=size), devices)
            step = make_steps(
                recipe,
                image_size=size,
                batch_size=len(batch["image"]),
                devices=devices,
                gradients=kind.gradients,
                augment=None,
            ).update
            compiled[name] = pool.submit(step.lower(states[name], shards).compile)
        for name, function in passes.items():
            compiled[name] = pool.submit(function.lower(variables, shards).compile)
    programs = {name: future.result() for name, future in compiled.items()}
    runners: dict[str, Callable[[], Any]] = {
        name: partial(programs[name], variables, shards) for name in passes
    }
    runners |= {name: speed.Stepper(programs[name], states.pop(name), shards) for name in kinds}
    milliseconds = speed.take_turns(runners, rounds)
    return {
        name: Cost(milliseconds[name], speed.megabytes(program))
        for name, program in programs.items()
    }


def least(costs: Mapping[str, Cost], passes: Mapping[str, float]) -> float:
    """Returns the least milliseconds that a step can take, those of its passes.

    Args:
      costs: of `PASSES` at least.
      passes: name of `PASSES` -> how often a step makes them; a mean over steps is a fraction, and
        a difference of two names is a backward pass alone.
    """
    return sum(costs[name].milliseconds * times for name, times in passes.items())


def slope(numbers: Sequence[float], values: Sequence[float]) -> float:
    """Returns the slope of the line that fits values by least squares."""
    return float(np.polyfit(numbers, values, 1)[0])
