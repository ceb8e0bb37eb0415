"""The learning rate of each method of a sweep, chosen on images that are held out."""

import contextlib
from collections.abc import Callable, Sequence
from pathlib import Path

from mtl_jax.runs import grid, metrics_file, rates_file, results, workdir
from mtl_jax.runs.settings import Settings, folder_of
from mtl_jax.tasks import TASKS

# The folder of the first seed's runs at the rates that were not chosen.
TRIED = "rates"


def check(settings: Settings) -> None:
    """Refuses settings with which no learning rate can be chosen.

    Raises:
      ValueError: naming the setting.
    """
    grid.check_different(learning_rates=settings.learning_rates)
    if not settings.validation:
        raise ValueError(
            "`learning_rates`: they are compared on images that are held out; set `validation` to "
            "their number"
        )
    if settings.coordinator:
        raise ValueError("`coordinator`: a sweep over `learning_rates` runs in one process")


def waiting(settings: Settings, runs: Sequence[grid.Run]) -> list[grid.Run]:
    """Returns the runs of the first seed at each rate, where none is chosen yet.

    Args:
      settings: what the runs have in common.
      runs: runs of all seeds.
    """
    root = folder_of(settings)
    tried = _tries(settings, runs)
    return [one for name in tried if not _is_chosen(root / name) for one in tried[name]]


def _tries(settings: Settings, runs: Sequence[grid.Run]) -> dict[str, list[grid.Run]]:
    """Returns the runs at each rate of each run of the first seed, by its name."""
    return {
        run.name: [
            grid.Run(f"{TRIED}/{run.name}-{rate:g}", run.changes | {"learning_rate": rate})
            for rate in settings.learning_rates
        ]
        for run in runs
        if run.changes["seed"] == runs[0].changes["seed"]
    }


def choose(
    settings: Settings,
    runs: Sequence[grid.Run],
    is_done: Callable[[grid.Run], bool],
    train: Callable[[grid.Run], None],
) -> tuple[list[grid.Run], dict[str, str]]:
    """Trains the runs of the first seed at every rate, and takes the best rate for all seeds.

    The run at that rate is moved to the folder that it has in a sweep with one rate; the others
    stay in `TRIED`. A sweep that is continued keeps its choices. The outcome of each trial run is
    printed and kept in a file, see `rates_file`.

    Args:
      settings: what the runs have in common.
      runs: runs of all seeds.
      is_done: whether a run has finished.
      train: starts or resumes a run.

    Returns:
      The runs with the rates that were chosen; and name -> reason of those without one, because no
      run of the first seed finished, or not all of them could be tried.
    """
    root = folder_of(settings)
    diverged: dict[str, str] = {}

    def attempt(run: grid.Run) -> None:
        try:
            train(run)
        except FloatingPointError as error:
            diverged[run.name] = str(error)
            print(f"{run.name} can't be chosen: {error}")

    failed = grid.perform(waiting(settings, runs), is_done, attempt).failed | diverged
    before, tried = rates_file.read(root), _tries(settings, runs)
    rates, trials = {}, {}
    for name, candidates in tried.items():
        found = {_rate(one): _outcome(root / one.name, failed.get(one.name)) for one in candidates}
        known = before.get(name, {}) if _is_chosen(root / name) else {}
        if all(_is_run(root / one.name) or one.name in diverged for one in candidates):
            _take_best(root, name, found)
        if _is_chosen(root / name):
            rates[name] = workdir.read_config(root / name)["learning_rate"]
            found[f"{rates[name]:g}"] = _outcome(root / name)
            # After the choice, trial runs that failed are not repeated, and the run at the chosen
            # rate may have been continued for more epochs.
            found |= {rate: x for rate, x in known.items() if rate in found and x is not None}
        trials[name] = found
        chosen = f"{rates[name]:g}" if name in rates else "none"
        print(f"{name}: learning rate {chosen}, of {_listed(found)}")
    rates_file.write(root, trials)
    with_rate, without = [], {}
    for index, run in enumerate(runs):
        first = runs[index % len(tried)].name
        if first in rates:
            changes = run.changes | {"learning_rate": rates[first]}
            with_rate.append(run._replace(changes=changes))
        else:
            without[run.name] = _reason(trials[first])
    return with_rate, without


def _take_best(root: Path, name: str, trials: rates_file.Trials) -> None:
    """Moves the trial run with the best score, if one has any, to where the report looks for it."""
    scores = {rate: outcome for rate, outcome in trials.items() if isinstance(outcome, float)}
    if scores and not _is_chosen(root / name):
        best = max(scores, key=scores.__getitem__)
        # Another process of the same sweep may have moved it.
        with contextlib.suppress(FileNotFoundError):
            (root / TRIED / f"{name}-{best}").rename(root / name)


def _outcome(folder: Path, failure: str | None = None) -> float | str | None:
    """Returns the score of a finished run's last state on the images that are held out.

    It is the score by which a run chooses its best checkpoint, see `results.score`.

    Args:
      folder: folder of the run.
      failure: why training failed, if it did.

    Returns:
      The reason for which there is no score; None for a run that has not finished.
    """
    if not _is_run(folder):
        return failure
    rows, _ = metrics_file.read(folder)
    last = rows[-1] if rows else {}
    if last.get("epoch") != workdir.finished_epoch(folder) or "evaluation" not in last:
        return f"{metrics_file.NAME} has no evaluation of the last epoch"
    tasks = [TASKS[name] for name in workdir.read_config(folder)["tasks"]]
    found = results.score(last["evaluation"], tasks)
    return "an error of a task is not finite" if found is None else found


def _is_run(folder: Path) -> bool:
    return (folder / "result.json").exists()


def _is_chosen(folder: Path) -> bool:
    """Returns whether the run at the best rate was moved here; it may have been continued since."""
    return (folder / "config.json").exists()


def _rate(run: grid.Run) -> str:
    return f"{run.changes['learning_rate']:g}"


def _listed(trials: rates_file.Trials) -> str:
    """Returns the trial runs in words, such as "0.001 (-0.512), 0.003 (failed); 1 of 2 failed"."""
    listed = ", ".join(f"{rate} ({_word(outcome)})" for rate, outcome in trials.items())
    failed = len(rates_file.failures(trials))
    return f"{listed}; {failed} of {len(trials)} failed" if failed else listed


def _word(outcome: float | str | None) -> str:
    if outcome is None:
        return "not finished"
    return "failed" if isinstance(outcome, str) else f"{outcome:.4f}"


def _reason(trials: rates_file.Trials) -> str:
    """Returns why no rate was chosen, and what to do about it."""
    failed = len(rates_file.failures(trials))
    if failed == len(trials):
        return f"all {failed} trial runs failed: set other `learning_rates`"
    if None in trials.values():
        return "other processes are trying rates: repeat the command when they are done"
    return "not all trial runs finished: repeat the command, or set other `learning_rates`"
