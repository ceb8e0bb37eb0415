"""What the steps of an epoch report, summed on the device, and the row made of the sums.

The sums are part of the state, so that a run that resumes within an epoch reports all of it.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from mtl_jax.tasks import Task
from mtl_jax.training.passes import Backward
from mtl_jax.weighting import Signals, Weighting
from mtl_jax.weighting.contract import PyTree

# Scalars f32[] by name.
Sums = dict[str, jax.Array]
DIAGNOSTIC = "diagnostic/"


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
    return {name: jnp.zeros(()) for name in ("steps", "skipped", *fields, *names)}


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
    step = {"steps": jnp.ones(()), "skipped": jnp.zeros(())}
    for i, task in enumerate(tasks):
        step[f"loss/{task.name}"] = backward.losses[i]
        step[f"labelled/{task.name}"] = backward.labelled[i]
        step[f"weight/{task.name}"] = weights[i]
    step |= name_diagnostics(tasks, diagnostics)
    return {name: sums[name] + step[name].astype(jnp.float32) for name in sums}


def name_diagnostics(
    tasks: Sequence[Task], diagnostics: dict[str, jax.Array]
) -> dict[str, jax.Array]:
    """Returns diagnostics as scalars `diagnostic/x`, `.../task`, or `.../task-task` of a matrix."""
    named = {}
    for key, value in diagnostics.items():
        if value.ndim == 0:
            named[f"{DIAGNOSTIC}{key}"] = value
        for i, task in enumerate(tasks):
            if value.ndim == 1:
                named[f"{DIAGNOSTIC}{key}/{task.name}"] = value[i]
            if value.ndim == 2:
                for j in range(i + 1, len(tasks)):
                    named[f"{DIAGNOSTIC}{key}/{task.name}-{tasks[j].name}"] = value[i, j]
    return named


def epoch_row(
    sums: Mapping[str, jax.Array], tasks: Sequence[Task], *, epoch: int, step: int
) -> dict[str, Any]:
    """Returns the means over an epoch's steps that were not skipped, as `metrics.jsonl` has them.

    A loss and a weight are means over the steps that had labels of the task, and
    `steps_without_labels` counts the others.
    """
    values = {name: float(value) for name, value in jax.device_get(dict(sums)).items()}
    count = max(values["steps"], 1.0)
    return {
        "epoch": epoch,
        "step": step,
        "skipped_steps": int(values["skipped"]),
        "steps_without_labels": {
            task.name: int(values["steps"] - values[f"labelled/{task.name}"]) for task in tasks
        },
        "train": {
            f"{task.name}/loss": values[f"loss/{task.name}"]
            / max(values[f"labelled/{task.name}"], 1.0)
            for task in tasks
        },
        "weights": {
            task.name: values[f"weight/{task.name}"] / max(values[f"labelled/{task.name}"], 1.0)
            for task in tasks
        },
        "diagnostics": {
            name.removeprefix(DIAGNOSTIC): value / count
            for name, value in values.items()
            if name.startswith(DIAGNOSTIC)
        },
    }
