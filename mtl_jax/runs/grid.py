"""A grid of runs, one after another: finished runs are skipped, and failures stop no other run."""

import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax

from mtl_jax import faults
from mtl_jax.runs import lock


class Run(NamedTuple):
    """One run of a grid.

    Attributes:
      name: name of its folder.
      changes: setting -> value, for settings that differ from the other runs.
    """

    name: str
    changes: dict[str, Any]


def weightings_grid(
    tasks: Sequence[str], weightings: Sequence[str], seeds: Sequence[int]
) -> list[Run]:
    """Makes runs of each task alone and of all tasks by each weighting, for each seed.

    A seed's runs of all settings come before those of the next seed, so that a grid that is
    stopped early still compares all of them.

    Raises:
      ValueError: for a weighting or seed that is named twice, for none, or for runs that would
        share a folder.
    """
    check_different(weightings=weightings, seeds=seeds)
    runs = []
    for seed in seeds:
        alone = [(task, {"tasks": [task]}) for task in tasks]
        together = [(name, {"tasks": list(tasks), "weighting": name}) for name in weightings]
        # With one task there is nothing to weigh.
        for name, changes in alone + (together if len(tasks) > 1 else []):
            runs.append(Run(folder_name(short(name), seed), {**changes, "seed": seed}))
    _check_names(runs, "`weightings`")
    return runs


def study_grid(
    arms: Sequence[Sequence[str]],
    weightings: Sequence[str],
    fractions: Sequence[float],
    seeds: Sequence[int],
) -> list[Run]:
    """Makes runs of each set of tasks and each part of the labels.

    They show how much the other tasks help when labels are few. A seed chooses the images with
    labels, too. A set of one task has no weighting. All runs of a seed come before those of the
    next.

    Args:
      arms: sets of tasks.
      weightings: for sets of several tasks, texts such as `fairgrad:alpha=2`.
      fractions: of the training images that have segmentation labels.
      seeds: seeds of the runs.

    Raises:
      ValueError: if one of these is empty or names something twice, or for runs that would share
        a folder.
    """
    names = ["+".join(arm) for arm in arms]
    check_different(arms=names, weightings=weightings, label_fractions=fractions, seeds=seeds)
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
                    named = [] if weighting is None else [short(weighting)]
                    changes |= {"weighting": weighting} if named else {}
                    name = folder_name("+".join(tasks), *named, f"{fraction:.4g}", seed)
                    runs.append(Run(name, changes))
    _check_names(runs, "`weightings` or `label_fractions` (rounded to four digits)")
    return runs


def folder_name(*parts: object) -> str:
    """Returns a folder name of the parts; characters other than letters, digits, +-.=_ become -."""
    return "-".join(re.sub(r"[^\w.+=-]+", "-", str(part)) for part in parts)


def short(text: str) -> str:
    """Returns the text of a choice, without the folders of the user's own file."""
    return re.sub(r"^.*/(?=[^/]*\.py:)", "", text)


def _check_names(runs: Sequence[Run], what: str) -> None:
    names = [run.name for run in runs]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"{what}: two of them would share the folder {twice[0]}")


def check_different(**lists: Sequence[Any]) -> None:
    """Refuses lists, given by name, that are empty or hold something twice.

    Raises:
      ValueError: naming the list.
    """
    for name, values in lists.items():
        if not values or len(set(values)) != len(values):
            raise ValueError(
                f"`{name}`={','.join(map(str, values))}: give one or more different ones"
            )


class Outcome(NamedTuple):
    """Runs of a grid that did not finish.

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
      runs: runs, in the order in which to train them.
      is_done: whether a run has finished.
      train: starts or resumes a run.
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
        except lock.InUse as error:
            in_use.append(run.name)
            print(f"{where}: left to the process that trains it ({error})", flush=True)
        except faults.Stopped:
            raise
        except Exception as error:
            failed[run.name] = faults.explain(error)
            print(f"{where}: FAILED, the others continue: {failed[run.name]}", flush=True)
        # The compiled programs of a method are not needed again, and those of a long grid would
        # fill the memory.
        jax.clear_caches()
    return Outcome(failed, in_use)
