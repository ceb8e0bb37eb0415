"""Computes docs/properties.json, the properties of the weightings, and writes docs/weightings.md.

python docs/properties.py

Every property is an experiment on random sequences of losses and gradients: it holds if none of
them contradicts it. Only `milliseconds` depends on the machine.
"""

import functools
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mtl_jax.weighting import METHODS, Signals, Weighting, combine, gram
from mtl_jax.weighting.contract import PyTree
from mtl_jax.weighting.options import keywords

FILE = Path(__file__).parent / "properties.json"
STEPS = 5
TRIALS = 300
TASKS = (3, 5)
# Relative error from which a result contradicts a property. Rounding stays below a tenth of it;
# `holds` refuses to decide in between.
TOLERANCE = 1e-2
# So that what methods do after epochs happens within `STEPS`.
SHORT = {"steps_per_epoch": 1, "warmup_epochs": 0, "window": 1}
# The number of parameters of each of the three gradients that are timed.
PARAMETERS = 1_000_000
REPEATS = 40


class Course(NamedTuple):
    """What a method sees in a sequence of steps; all arrays may have more axes in front.

    Attributes:
      losses: f32[STEPS, K], positive.
      rows: f32[STEPS, K, n], the gradients.
    """

    losses: np.ndarray
    rows: np.ndarray


class Taken(NamedTuple):
    """What a method makes of a course.

    Attributes:
      direction: f32[STEPS, n], the combined gradient.
      weights: f32[STEPS, K], of the gradients.
      solved: bool[STEPS], whether it had an answer.
    """

    direction: np.ndarray
    weights: np.ndarray
    solved: np.ndarray


def random_courses(rng: np.random.Generator, trials: int, num_tasks: int) -> Course:
    """Returns sequences [trials, ...] of gradients that differ in length and agree or conflict.

    There are more parameters than tasks, so that the gradients are independent.
    """
    shape = (trials, STEPS, num_tasks, num_tasks + 3)
    # Each task follows or opposes a common direction, more or less strongly.
    common = rng.normal(size=(trials, STEPS, 1, shape[-1]))
    sides = rng.uniform(0, 2, (trials, 1, 1, 1)) * rng.choice([-1.0, 1.0], (*shape[:-1], 1))
    rows = np.exp(rng.normal(size=(trials, 1, num_tasks, 1))) * (
        rng.normal(size=shape) + sides * common
    )
    return Course(random_losses(rng, shape[:-1]), rows.astype(np.float32))


def random_losses(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Returns positive losses, log-normal around 1."""
    return np.exp(rng.normal(size=shape)).astype(np.float32)


def scaled(courses: Course, factors: np.ndarray) -> Course:
    """Returns courses [trials, ...] with the losses in other units: times factors [trials, K]."""
    factors = factors[:, None].astype(np.float32)
    return Course(courses.losses * factors, courses.rows * factors[..., None])


@functools.partial(jax.jit, static_argnums=0)
def follow(weighting: Weighting, courses: Course, keys: jax.Array) -> Taken:
    """Returns what a method makes of courses [trials, ...], each from its first step on."""
    return jax.vmap(functools.partial(follow_one, weighting))(courses, keys)


def follow_one(weighting: Weighting, course: Course, key: jax.Array) -> Taken:
    """Returns what a method makes of one course, from its first step on."""
    num_tasks, size = course.rows.shape[1:]

    def step(state: PyTree, seen: tuple[jax.Array, ...]) -> tuple[PyTree, Taken]:
        losses, rows, after, number = seen
        state, direction, weights, diagnostics = one_step(
            weighting, losses, rows, state, number, jax.random.fold_in(key, number)
        )
        signals = Signals(losses, gram(rows), number, key)
        if weighting.follow_up is not None:
            state = weighting.follow_up(after, signals, state)
        return state, Taken(direction, weights, diagnostics["fallback"] == 0)

    state = weighting.init(num_tasks, jax.ShapeDtypeStruct((size,), jnp.float32))
    after, numbers = jnp.roll(course.losses, -1, axis=0), jnp.arange(STEPS, dtype=jnp.int32)
    return jax.lax.scan(step, state, (course.losses, course.rows, after, numbers))[1]


def one_step(
    weighting: Weighting,
    losses: jax.Array,
    rows: jax.Array,
    state: PyTree,
    number: jax.Array,
    key: jax.Array,
) -> tuple[PyTree, jax.Array, jax.Array, dict[str, jax.Array]]:
    """Returns the next state, the combined gradient, the weights and the diagnostics of a step."""
    products = None if weighting.needs == "losses" else gram(rows)
    # Without noise, the parts of a batch have the same gradients.
    signals = Signals(losses, products, number, key, cross=products)
    if weighting.combine is None:
        weights, state, diagnostics = weighting.update(signals, state)
        return state, combine(rows, weights.shared), weights.shared, diagnostics
    direction, weights, state, diagnostics = weighting.combine(rows, signals, state)
    return state, direction, weights.shared, diagnostics


def contradictions(weighting: Weighting, *, trials: int, num_tasks: int) -> dict[str, float]:
    """Returns how far the worst of some random courses is from each property.

    Raises:
      ValueError: if the method has no answer to many of them.
    """
    rng = np.random.default_rng(num_tasks)
    courses = random_courses(rng, trials, num_tasks)
    one, two = np.exp(rng.normal(size=(2, trials, num_tasks)))
    other = courses._replace(losses=random_losses(rng, courses.losses.shape))
    variants = [courses, *(scaled(courses, by) for by in (one, two, one + two)), other]
    keys = jax.random.split(jax.random.key(num_tasks), trials)
    taken = [follow(weighting, variant, keys) for variant in variants]
    solved = np.all([each.solved for each in taken], axis=0)
    if np.mean(solved) < 0.9:
        raise ValueError(f"it has an answer to only {np.mean(solved):.0%} of the steps")
    rows = np.asarray(courses.rows, np.float64)[solved]
    base, first, second, both, relossed = (
        np.asarray(each.direction, np.float64)[solved] for each in taken
    )
    # The weights nearest to the direction, since those that a method returns need not make it.
    weights = np.linalg.pinv(rows.swapaxes(1, 2)) @ base[..., None]
    parts = (rows.swapaxes(1, 2) @ weights)[..., 0]
    weights = weights[..., 0] / np.max(np.abs(weights), axis=(1, 2))[:, None]
    worst = {
        "conflicts_with_no_task": -np.einsum("ski,si->sk", unit(rows), unit(base)),
        "same_in_any_unit": difference(base, first),
        "same_direction_in_any_unit": difference(unit(base), unit(first)),
        "linear_in_scale": difference(first + second, both),
        "weighs_gradients": difference(parts, base),
        "weights_not_negative": -weights,
        "ignores_losses": difference(base, relossed),
    }
    return {name: float(np.max(values)) for name, values in worst.items()}


def length(x: np.ndarray) -> np.ndarray:
    """Returns the lengths [...] of vectors [..., P]."""
    return np.linalg.norm(x, axis=-1)


def difference(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Returns the distances of vectors in units of the longer one."""
    return length(x - y) / np.maximum(np.maximum(length(x), length(y)), 1e-30)


def unit(x: np.ndarray) -> np.ndarray:
    """Returns vectors scaled to length 1; a zero vector stays zero."""
    return x / np.maximum(length(x), 1e-30)[..., None]


def experiment(name: str, *, trials: int = TRIALS, tasks: Sequence[int] = TASKS) -> dict[str, bool]:
    """Returns which properties a method has with its default options.

    Args:
      name: of the method.
      trials: random courses for each number of tasks.
      tasks: numbers of tasks.

    Raises:
      ValueError: for a method whose error lies between that of rounding and `TOLERANCE`.
    """
    known = keywords(METHODS[name])
    weighting = METHODS[name](**{key: value for key, value in SHORT.items() if key in known})
    found = [contradictions(weighting, trials=trials, num_tasks=count) for count in tasks]
    worst = {key: max(each[key] for each in found) for key in found[0]}
    for key, value in worst.items():
        if TOLERANCE / 10 < value < TOLERANCE:
            raise ValueError(f"{name}: {key} is neither true nor false, with an error of {value}")
    return {key: value < TOLERANCE for key, value in worst.items()}


def state_size(weighting: Weighting) -> dict[str, int]:
    """Returns the numbers and the gradients in a method's own state for three tasks."""

    def count(size: int) -> int:
        state = weighting.init(3, jax.ShapeDtypeStruct((size,), jnp.float32))
        return sum(leaf.size for leaf in jax.tree.leaves(getattr(state, "method", state)))

    gradients = count(1001) - count(1000)
    return {"numbers": count(1000) - 1000 * gradients, "gradients": gradients}


def milliseconds(names: Sequence[str]) -> dict[str, float]:
    """Returns what methods add to a step besides the passes of the network, for three tasks.

    That is the Gram matrix, if it reads one, the weights, and the weighted sum of the gradients.
    """
    rows = jax.random.normal(jax.random.key(0), (3, PARAMETERS))
    losses, key = jnp.ones(3), jax.random.key(1)
    steps, states = {}, {}
    for name in names:
        steps[name] = jax.jit(functools.partial(one_step, METHODS[name]()))
        states[name] = METHODS[name]().init(3, jax.ShapeDtypeStruct((PARAMETERS,), jnp.float32))
    taken: dict[str, list[float]] = {name: [] for name in names}
    # In turn, so that a busy moment of the machine affects all alike.
    for number in range(REPEATS):
        for name, step in steps.items():
            count = jnp.array(number, jnp.int32)
            # The first call brings the gradients into the caches.
            for _ in range(2):
                start = time.perf_counter()
                new, *_ = jax.block_until_ready(step(losses, rows, states[name], count, key))
                seconds = time.perf_counter() - start
            states[name] = new
            taken[name].append(seconds)
    # Other programs only add to the time.
    return {name: 1000 * min(times) for name, times in taken.items()}


def properties(name: str) -> dict[str, Any]:
    """Returns the entry of a method in properties.json, without its time."""
    weighting = METHODS[name]()
    size = state_size(weighting)
    return experiment(name) | {"reads_gradients": weighting.needs != "losses", "state": size}


def main() -> None:
    """Computes all properties and writes both files."""
    import weightings

    times, lines = milliseconds(list(METHODS)), []
    for name in METHODS:
        found = properties(name)
        found["milliseconds"] = round(max(times[name] - times["equal"], 0.0), 1)
        lines.append(f'"{name}": {json.dumps(found)}')
        print(lines[-1], flush=True)
    FILE.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
    weightings.write()


if __name__ == "__main__":
    main()
