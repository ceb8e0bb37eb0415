"""A grid of runs, one after another: what is done is skipped, a failure stops only itself."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax

from mtl_jax import faults
from mtl_jax.runs import workdir


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
    _check_different({"--weightings": weightings, "--seeds": seeds})
    runs = []
    for seed in seeds:
        alone = [(task, {"tasks": [task]}) for task in tasks]
        together = [(name, {"tasks": list(tasks), "weighting": name}) for name in weightings]
        # With one task there is nothing to weigh.
        for name, changes in alone + (together if len(tasks) > 1 else []):
            runs.append(Run(f"{name}-{seed}", {**changes, "seed": seed}))
    return runs


def study_grid(
    arms: Sequence[Sequence[str]],
    weightings: Sequence[str],
    fractions: Sequence[float],
    seeds: Sequence[int],
) -> list[Run]:
    """Runs of each set of tasks and each part of the labels: what are the other tasks worth?

    A seed chooses the images with labels too. A set of one task has no weighting. All runs of a
    seed come before those of the next.

    Args:
      arms: sets of tasks.
      weightings: of the sets of several tasks.
      fractions: of the training images that have segmentation labels.
      seeds: of the runs.

    Raises:
      ValueError: for one of these that has nothing in it, or the same twice.
    """
    names = ["+".join(arm) for arm in arms]
    _check_different(
        {
            "--arms": names,
            "--weightings": weightings,
            "--label_fractions": fractions,
            "--seeds": seeds,
        }
    )
    runs = []
    for seed in seeds:
        for fraction in fractions:
            for tasks in arms:
                for weighting in weightings if len(tasks) > 1 else (None,):
                    changes = {
                        "tasks": list(tasks),
                        "label_fraction": fraction,
                        "label_seed": seed,
                        "seed": seed,
                    }
                    named = [] if weighting is None else [weighting]
                    changes |= {"weighting": weighting} if named else {}
                    name = "-".join(["+".join(tasks), *named, f"{fraction:.4g}", str(seed)])
                    runs.append(Run(name, changes))
    if len({run.name for run in runs}) < len(runs):
        raise ValueError(
            f"--label_fractions={','.join(map(str, fractions))}: two of them are the same in four "
            "digits, and so would be the folders of their runs"
        )
    return runs


def _check_different(flags: Mapping[str, Sequence[Any]]) -> None:
    for name, values in flags.items():
        if not values or len(set(values)) != len(values):
            raise ValueError(
                f"{name}={','.join(map(str, values))}: give one or more different ones"
            )


class Outcome(NamedTuple):
    """What became of a grid's runs that are not done.

    Attributes:
      failed: name of each run that failed -> why.
      in_use: names of the runs that other processes were training.
    """

    failed: dict[str, str]
    in_use: list[str]


def perform(
    runs: Sequence[Run], is_done: Callable[[Run], bool], train: Callable[[Run], None]
) -> Outcome:
    """Trains all runs that are not done yet; leaves out those that other processes train.

    Anything that asks the program to stop stops the grid.

    Args:
      runs: in this order.
      is_done: whether a run has finished.
      train: makes a run, or goes on with it.
    """
    failed: dict[str, str] = {}
    in_use: list[str] = []
    for number, run in enumerate(runs, start=1):
        where = f"[{number}/{len(runs)}] {run.name}"
        try:
            if is_done(run):
                print(f"{where}: done already")
                continue
            print(where, flush=True)
            train(run)
        except workdir.InUse as error:
            in_use.append(run.name)
            print(f"{where}: left to the process that trains it ({error})", flush=True)
        except faults.Stopped:
            raise
        except Exception as error:
            failed[run.name] = faults.explain(error)
            print(f"{where}: FAILED, the others go on: {failed[run.name]}", flush=True)
        # Programs of other methods are not needed again; a long grid would fill the memory.
        jax.clear_caches()
    return Outcome(failed, in_use)
