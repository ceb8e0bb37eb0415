"""Checkpoints by orbax: written atomically in the background, the last ones and the best kept."""

import os
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import preservation_policy as policy

from mtl_jax import parallel


def open_checkpoints(
    workdir: str | os.PathLike, *, keep: int = 1, best: bool = False, read_only: bool = False
) -> ocp.CheckpointManager:
    """The checkpoints of a work directory.

    Args:
      workdir: they lie in its folder `checkpoints`.
      keep: how many of the last ones to keep.
      best: whether to keep the one of the highest score, too.
      read_only: leaves alone what another process may be writing there at this moment.

    Raises:
      ValueError: for a `keep` below one.
    """
    if keep < 1:
        raise ValueError(f"--keep={keep}: the last checkpoint at least must be kept")
    policies = [policy.LatestN(keep)]
    if best:
        policies.append(
            policy.BestN(get_metric_fn=_score, n=1, keep_checkpoints_without_metrics=False)
        )
    return ocp.CheckpointManager(
        os.path.join(os.path.abspath(workdir), "checkpoints"),
        options=ocp.CheckpointManagerOptions(
            preservation_policy=policy.AnyPreservationPolicy(policies),
            best_fn=_score if best else None,
            cleanup_tmp_directories=not read_only,
            read_only=read_only,
        ),
    )


def _score(metrics: dict[str, float]) -> float:
    return metrics["score"]


def save(
    manager: ocp.CheckpointManager, step: int, state: Any, *, score: float | None = None
) -> None:
    """Saves a state as that of `step`, unless it is there already.

    Args:
      manager: from `open_checkpoints`.
      step: training step, the checkpoint's name.
      state: a pytree of arrays.
      score: what the best checkpoint has most of; None if there was no validation.
    """
    if step in manager.all_steps():
        return
    metrics = None if score is None else {"score": score}
    state = parallel.across_processes(state)
    manager.save(step, args=ocp.args.StandardSave(state), metrics=metrics, force=True)


def restore(manager: ocp.CheckpointManager, like: Any, *, which: str = "latest") -> Any:
    """A saved state.

    Args:
      manager: from `open_checkpoints`, with its `best` where `which` is.
      like: a state of the same structure, shapes and dtypes; the restored one lies on its devices,
        whichever they were that saved it.
      which: "latest", "best" or the number of a step.

    Raises:
      ValueError: if there is no such checkpoint or it can't be read.
    """
    named = {"latest": manager.latest_step(), "best": manager.best_step()}
    step = int(which) if which.isdigit() else named.get(which)
    steps = sorted(manager.all_steps())
    if step not in steps:
        hint = " (a run with --validation keeps its best one)" if which == "best" else ""
        raise ValueError(f"--checkpoint={which}: {manager.directory} holds the steps {steps}{hint}")
    target = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding),
        parallel.across_processes(like),
    )
    try:
        state = manager.restore(step, args=ocp.args.StandardRestore(target))
    except Exception as error:  # orbax raises many kinds, tensorstore's among them
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        raise ValueError(
            f"the checkpoint {manager.directory / str(step)} can't be read ({reason}): delete that "
            "folder to go on from the one before it, or from the start if there is none"
        ) from error
    if jax.process_count() == 1:
        return state
    return jax.tree.map(lambda x, y: jax.device_put(np.asarray(x), y.sharding), state, like)
