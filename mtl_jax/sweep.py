"""A grid of runs, one after another: what is done is skipped, a failure stops only itself."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax


class Run(NamedTuple):
    """One run of a grid.

    Attributes:
      name: of its folder.
      changes: setting -> value, where it differs from the others.
    """

    name: str
    changes: dict[str, Any]


def weightings_grid(
    tasks: Sequence[str], weightings: Sequence[str], seeds: Sequence[int]
) -> list[Run]:
    """Single-task runs of each task and seed, then runs of all tasks by each weighting and seed.

    A seed's runs of all settings come before those of the next seed, so that a grid that is
    stopped early still compares all of them.

    Raises:
      ValueError: for a weighting or seed that is named twice, or for none.
    """
    for what, values in (("--weightings", weightings), ("--seeds", seeds)):
        if not values or len(set(values)) != len(values):
            raise ValueError(
                f"{what}={','.join(map(str, values))}: give one or more different ones"
            )
    runs = []
    for seed in seeds:
        alone = [(task, {"tasks": [task]}) for task in tasks]
        together = [(name, {"tasks": list(tasks), "weighting": name}) for name in weightings]
        # With one task there is nothing to weigh.
        for name, changes in alone + (together if len(tasks) > 1 else []):
            runs.append(Run(f"{name}-{seed}", {**changes, "seed": seed}))
    return runs


def perform(
    runs: Sequence[Run], is_done: Callable[[Run], bool], train: Callable[[Run], None]
) -> dict[str, str]:
    """Trains all runs that are not done yet.

    Args:
      runs: in this order.
      is_done: whether a run has finished.
      train: makes a run, or goes on with it.

    Returns:
      Name of each run that failed -> why. Anything that asks the program to stop stops the grid.
    """
    failed = {}
    for number, run in enumerate(runs, start=1):
        where = f"[{number}/{len(runs)}] {run.name}"
        try:
            if is_done(run):
                print(f"{where}: done already")
                continue
            print(where, flush=True)
            train(run)
        # RuntimeError is what XLA raises, such as for want of memory.
        except (ValueError, OSError, FloatingPointError, RuntimeError) as error:
            failed[run.name] = str(error).splitlines()[0] if str(error) else repr(error)
            print(f"{where}: FAILED, the others go on: {failed[run.name]}", flush=True)
        # Programs of other methods are not needed again; a long grid would fill the memory.
        jax.clear_caches()
    return failed
