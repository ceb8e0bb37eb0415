"""States from a run's checkpoints, to resume training or to use the network."""

from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np
from orbax.checkpoint import CheckpointManager

from mtl_jax import models, parallel
from mtl_jax.runs import checkpoint
from mtl_jax.training.step import TrainState


def restore_latest(manager: CheckpointManager, state: TrainState, total: int) -> TrainState:
    """Returns the state of the last checkpoint, or the given one where there is none.

    Args:
      manager: from `checkpoint.open_checkpoints`.
      state: initial state of this run, on its devices.
      total: total steps of the run.

    Raises:
      ValueError: if the checkpoint has taken more steps.
    """
    taken = manager.latest_step()
    if taken is None:
        return state
    if taken > total:
        raise ValueError(
            f"`epochs`: the run has taken {taken} steps already, more than the {total} that these "
            "epochs have; set at least as many as before"
        )
    return restore_state(manager, state)


def restore_variables(
    folder: Path,
    network: models.Network,
    *,
    which: str,
    image_size: tuple[int, int],
    devices: Sequence[jax.Device],
    averaged: bool = False,
) -> models.Variables:
    """Returns the variables of the network in a run's checkpoint.

    The optimizer and the weighting of the run don't matter.

    Args:
      network: network of the run.
      which: "latest", "best" or the number of a step.
      image_size: height and width.
      devices: devices that hold the variables.
      averaged: whether to take the average of the weights, which the run must have kept.

    Raises:
      ValueError: if there is no such checkpoint or it can't be read.
    """
    variables = models.shapes(network, image_size)._asdict()
    zeros = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), variables)
    wanted = {"optimizer": {"average": zeros}} if averaged else {"variables": zeros}
    like = parallel.replicate({"step": np.int32(0), **wanted}, devices)
    with checkpoint.open_checkpoints(folder, best=which == "best", read_only=True) as manager:
        saved = checkpoint.restore(manager, like, which=which, part=True)
        _check_step(manager, saved["step"], which)
        found = saved["optimizer"]["average"] if averaged else saved["variables"]
        return models.Variables(**found)


def restore_state(
    manager: CheckpointManager, like: TrainState, *, which: str = "latest"
) -> TrainState:
    """Returns a saved state.

    Another version of the program may have saved other sums; missing ones are taken from `like`.

    Args:
      manager: from `checkpoint.open_checkpoints`.
      like: a state of this run, on the devices that are to hold the saved one.
      which: see `checkpoint.restore`.
    """
    zero = like.sums["steps"]
    names = checkpoint.saved_names(manager, "sums", which=which) or like.sums
    saved = checkpoint.restore(manager, like._replace(sums=dict.fromkeys(names, zero)), which=which)
    _check_step(manager, saved.step, which)
    return saved._replace(
        sums={name: saved.sums.get(name, value) for name, value in like.sums.items()}
    )


def _check_step(manager: CheckpointManager, found: jax.Array, which: str) -> None:
    """Refuses a checkpoint whose folder has the name of another step."""
    step = checkpoint.chosen(manager, which)
    if int(found) != step:
        raise ValueError(
            f"{manager.directory / str(step)} holds the state of step {int(found)}: give the "
            "folder its name back"
        )
