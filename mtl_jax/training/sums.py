"""What the steps of an epoch report, summed on the device, and the row made of the sums.

The sums are part of the state, so that a run that resumes within an epoch reports all of it.
"""

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils

from mtl_jax.tasks import Task
from mtl_jax.training.passes import Backward
from mtl_jax.weighting import Signals, Weighting
from mtl_jax.weighting.contract import PyTree

# Scalars f32[] by name.
Sums = dict[str, jax.Array]
DIAGNOSTIC = "diagnostic/"
# The diagnostics of a task that are averaged over all steps.
OF_ALL_STEPS = ("participation", "negative_loss")


def zero_sums(tasks: Sequence[Task], weighting: Weighting, weighting_state: PyTree) -> Sums:
    """Returns the sums at the start of an epoch: one zero for each value that a step reports."""
    count = len(tasks)
    signals = Signals(
        losses=jnp.ones(count),
        gram=None,  # between two updates: the diagnostics are the same ones
        step=jnp.zeros((), jnp.int32),
        key=jax.random.key(0),
        labelled=jnp.ones(count, bool),
    )
    _, _, diagnostics = jax.eval_shape(weighting.update, signals, weighting_state)
    names = name_diagnostics(
        tasks, jax.tree.map(lambda x: jnp.zeros(x.shape, jnp.float32), diagnostics)
    )
    fields = [f"{kind}/{task.name}" for kind in ("loss", "labelled", "weight") for task in tasks]
    return {name: jnp.zeros(()) for name in ("steps", "skipped", "seconds", *fields, *names)}


def add_to_sums(
    sums: Sums,
    tasks: Sequence[Task],
    backward: Backward,
    weights: jax.Array,
    diagnostics: dict[str, jax.Array],
) -> Sums:
    """Returns the epoch's sums with one more step.

    Args:
      sums: sums of the previous steps.
      tasks: tasks in the order of K.
      weights: f32[K], weights of the trunk's gradients.
    """
    zero = jnp.zeros(())
    step = {"steps": jnp.ones(()), "skipped": zero, "seconds": zero}
    # A loss can have a sum without a pixel that counts, as `stereo.photometric_loss` with `fill`.
    losses = jnp.where(backward.labelled, backward.losses, 0.0)
    for i, task in enumerate(tasks):
        step[f"loss/{task.name}"] = losses[i]
        step[f"labelled/{task.name}"] = backward.labelled[i]
        step[f"weight/{task.name}"] = weights[i]
    step |= name_diagnostics(tasks, diagnostics)
    return {name: sums[name] + step[name].astype(jnp.float32) for name in sums}


def add_seconds(sums: Sums, seconds: float) -> Sums:
    """Returns the epoch's sums with the time of the steps that this process took of it."""
    # Several processes share one state: the first one's clock counts.
    seconds = multihost_utils.broadcast_one_to_all(np.float32(seconds))
    return {**sums, "seconds": sums["seconds"] + seconds}


def name_diagnostics(
    tasks: Sequence[Task], diagnostics: dict[str, jax.Array]
) -> dict[str, jax.Array]:
    """Returns diagnostics as scalars `diagnostic/x`, `.../task`, or `.../task-task` of a matrix.

    Where the task, or one of the two, took no part, the last two are 0, except for diagnostics of
    all steps; `took_part/task` and `took_part/task-task` are 1 where the task, or both, took part.
    """
    # A weighting of a user's own may report nothing.
    took_part = diagnostics.get("participation", jnp.ones(len(tasks)))
    together = took_part[:, None] * took_part
    named = _by_task(tasks, "took_part", took_part) | _by_task(tasks, "took_part", together)
    counted = {took_part.shape: took_part, together.shape: together}
    for key, value in diagnostics.items():
        if value.ndim == 0:
            named[f"{DIAGNOSTIC}{key}"] = value
        elif key in OF_ALL_STEPS:
            named |= _by_task(tasks, f"{DIAGNOSTIC}{key}", value)
        elif value.shape in counted:
            known = jnp.where(counted[value.shape] > 0, value, 0.0)
            named |= _by_task(tasks, f"{DIAGNOSTIC}{key}", known)
    return named


def _by_task(tasks: Sequence[Task], name: str, values: jax.Array) -> dict[str, jax.Array]:
    """Returns a vector's entries as `name/task`, or those above a matrix's diagonal by pairs."""
    if values.ndim == 1:
        return {f"{name}/{task.name}": values[i] for i, task in enumerate(tasks)}
    pairs = combinations(range(len(tasks)), 2)
    return {f"{name}/{tasks[i].name}-{tasks[j].name}": values[i, j] for i, j in pairs}


def epoch_row(
    sums: Mapping[str, jax.Array], tasks: Sequence[Task], *, epoch: int, step: int
) -> dict[str, Any]:
    """Returns the means over an epoch's steps that were not skipped, as `metrics.jsonl` has them.

    `seconds` is the time of all steps, also of those before an interruption.
    A loss and a weight are means over the steps that had labels of the task, and
    `steps_without_labels` counts the others; if there is no such step, the loss is missing and the
    weight 0. A diagnostic of a task or of two is a mean over the steps in which the task, or both,
    took part, and missing if there is none.
    """
    values = {name: float(value) for name, value in jax.device_get(dict(sums)).items()}
    return {
        "epoch": epoch,
        "step": step,
        "skipped_steps": int(values["skipped"]),
        "seconds": values["seconds"],
        "steps_without_labels": {
            task.name: int(values["steps"] - values[f"labelled/{task.name}"]) for task in tasks
        },
        "train": {
            f"{task.name}/loss": values[f"loss/{task.name}"] / values[f"labelled/{task.name}"]
            for task in tasks
            if values[f"labelled/{task.name}"]
        },
        "weights": {
            task.name: values[f"weight/{task.name}"] / max(values[f"labelled/{task.name}"], 1.0)
            for task in tasks
        },
        "diagnostics": _means(values),
    }


def _means(values: Mapping[str, float]) -> dict[str, float]:
    """Returns the means of the diagnostics, without those of tasks that took part in no step."""
    means = {}
    for name in (name.removeprefix(DIAGNOSTIC) for name in values if name.startswith(DIAGNOSTIC)):
        key, _, whose = name.partition("/")
        alone = not whose or key in OF_ALL_STEPS
        count = max(values["steps"], 1.0) if alone else values[f"took_part/{whose}"]
        if count > 0:
            means[name] = values[f"{DIAGNOSTIC}{name}"] / count
    return means
