"""The learning rate of each method of a sweep, chosen on images that are held out."""

import contextlib
from collections.abc import Callable, Sequence
from pathlib import Path

from mtl_jax.runs import grid, metrics_file, results, workdir
from mtl_jax.runs.settings import Settings, folder_of
from mtl_jax.tasks import TASKS

# The folder of the first seed's runs at the rates that were not chosen.
TRIED = "rates"
# The score of each method at each rate.
SCORES = "learning_rates.json"


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
    return [one for name in tried if not _is_run(root / name) for one in tried[name]]


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
) -> tuple[list[grid.Run], list[str]]:
    """Trains the runs of the first seed at every rate, and takes the best rate for all seeds.

    The run at that rate is moved to the folder that it has in a sweep with one rate; the others
    stay in `TRIED`. A choice stays when the sweep is continued.

    Args:
      settings: what the runs have in common.
      runs: runs of all seeds.
      is_done: whether a run has finished.
      train: starts or resumes a run.

    Returns:
      The runs with the rates that were chosen; and the names of those without one, because no run
      of the first seed finished, or not all of them could be tried.
    """
    root = folder_of(settings)
    diverged = set()

    def attempt(run: grid.Run) -> None:
        try:
            train(run)
        except FloatingPointError as error:
            diverged.add(run.name)
            print(f"{run.name} is out of the choice: {error}")

    grid.perform(waiting(settings, runs), is_done, attempt)
    tried = _tries(settings, runs)
    rates, scores = {}, {}
    for name, candidates in tried.items():
        found = {one.changes["learning_rate"]: score(root / one.name) for one in candidates}
        finished = {_is_run(root / one.name) or one.name in diverged for one in candidates}
        usable = {rate: value for rate, value in found.items() if value is not None}
        if not _is_run(root / name) and usable and finished == {True}:
            best = max(usable, key=usable.__getitem__)
            # Another process of the same sweep may have moved it.
            with contextlib.suppress(FileNotFoundError):
                (root / TRIED / f"{name}-{best:g}").rename(root / name)
        if _is_run(root / name):
            best = workdir.read_config(root / name)["learning_rate"]
            rates[name], scores[name] = best, found | {best: score(root / name)}
            print(f"{name}: learning rate {best:g}, of {_listed(scores[name])}")
    workdir.write_json(root / SCORES, scores)
    chosen, without = [], []
    for index, run in enumerate(runs):
        first = runs[index % len(tried)].name
        if first in rates:
            changes = run.changes | {"learning_rate": rates[first]}
            chosen.append(run._replace(changes=changes))
        else:
            without.append(run.name)
    return chosen, without


def score(folder: Path) -> float | None:
    """Returns the score of a finished run's last state on the images that are held out.

    It is the score by which a run chooses its best checkpoint, see `results.score`.

    Returns:
      None for a run that has not finished, or has an error that is not finite.
    """
    if not _is_run(folder):
        return None
    rows, _ = metrics_file.read(folder)
    tasks = [TASKS[name] for name in workdir.read_config(folder)["tasks"]]
    return results.score(rows[-1]["evaluation"], tasks) if rows else None


def _is_run(folder: Path) -> bool:
    return (folder / "result.json").exists()


def _listed(scores: dict[float, float | None]) -> str:
    """Returns the scores in words, such as "0.001 (-0.512), 0.003 (none)"."""
    return ", ".join(
        f"{rate:g} ({'none' if value is None else f'{value:.4f}'})"
        for rate, value in sorted(scores.items())
    )
