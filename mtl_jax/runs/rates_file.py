"""The file `learning_rates.json` of a sweep that chooses rates: the outcome of each trial run."""

from collections.abc import Mapping
from pathlib import Path

from mtl_jax.runs import workdir

NAME = "learning_rates.json"
# Rate, as in the name of the trial run's folder -> its score, the reason for which it failed, or
# None if it has not finished.
Trials = dict[str, float | str | None]


def read(folder: Path) -> dict[str, Trials]:
    """Returns the trial runs for each run of the first seed; none if no file can be read."""
    content = workdir.read_if_whole(folder / NAME)
    return {name: trials for name, trials in content.items() if isinstance(trials, dict)}


def write(folder: Path, trials: Mapping[str, Trials]) -> None:
    """Writes the file, complete or not at all."""
    workdir.write_json(folder / NAME, trials)


def failures(trials: Trials) -> dict[str, str]:
    """Returns the rates of the trial runs that failed, and why."""
    return {rate: outcome for rate, outcome in trials.items() if isinstance(outcome, str)}
