"""Grids of runs: those that can't work are found first, and each is trained in its own folder."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from mtl_jax.commands import rates
from mtl_jax.commands.assembly import check_step, make_weighting, network_of, recipe_of
from mtl_jax.commands.one_run import check_run, has_finished
from mtl_jax.data.outline import Outline
from mtl_jax.runs import grid
from mtl_jax.runs.settings import Settings, folder_of, holds_run
from mtl_jax.weighting import METHODS


def run(
    settings: Settings,
    outline: Outline,
    runs: Sequence[grid.Run],
    *,
    train: Callable[[Settings], None],
    report: Callable[[Sequence[Path], Path], None],
) -> None:
    """Trains the runs of a grid that are not done yet, and writes the report of all.

    Args:
      settings: what the runs have in common; `workdir` is the folder of their folders.
      outline: facts about their data set.
      runs: runs, in the order in which to train them.
      train: starts or resumes the run with these settings.
      report: writes the report of the runs in some folders into another folder.

    Raises:
      ValueError: if a run can't work, or if one failed after the others were trained.
    """
    kind, root = settings.mode, folder_of(settings)

    def settings_of(one: grid.Run) -> Settings:
        return Settings(**vars(settings) | one.changes | {"workdir": [str(root / one.name)]})

    def is_done(one: grid.Run) -> bool:
        return has_finished(settings_of(one), outline)

    if holds_run(settings):
        raise ValueError(f"`workdir`={root} holds a run: give this {kind} a folder of its own")
    # All are checked first, so that a run that can't work is not found after hours of others.
    for one in rates.waiting(settings, runs) if settings.learning_rates else runs:
        try:
            if not is_done(one):
                check_run(settings_of(one), outline)
        except ValueError as error:
            raise ValueError(f"{error} (run {one.name} of this {kind})") from error
    without: dict[str, str] = {}
    how = (is_done, lambda one: train(settings_of(one)))
    if settings.learning_rates:
        runs, without = rates.choose(settings, runs, *how)
    failed, in_use = grid.perform(runs, *how)
    finished = [root / one.name for one in runs if (root / one.name / "result.json").exists()]
    if finished:
        report(finished, root / "report")
    missing = [name for name in in_use if root / name not in finished]
    if missing:
        print(
            f"the report lacks {len(missing)} of {len(runs)} runs, which other processes are "
            f"training: {', '.join(missing)}; the same command adds them when they are done"
        )
    problems = [
        f"{len(names)} runs have no learning rate because {reason} ({', '.join(names)})"
        for reason, names in _by_reason(without).items()
    ]
    if failed:
        problems.append(f"{len(failed)} of {len(runs)} runs failed: {', '.join(failed)}")
    if problems:
        raise ValueError("; ".join(problems))


def _by_reason(reasons: Mapping[str, str]) -> dict[str, list[str]]:
    """Returns the names that have each reason."""
    return {
        reason: [name for name, own in reasons.items() if own == reason]
        for reason in dict.fromkeys(reasons.values())
    }


def reasons_against(settings: Settings, outline: Outline) -> dict[str, str]:
    """Returns why each method can't work with the other settings; "" if it can.

    Raises:
      ValueError: if the settings rule out all of them.
    """
    network = network_of(settings, num_classes=len(outline.class_names), channels=outline.channels)
    equal = Settings(**vars(settings) | {"weighting": "equal"})
    recipe = recipe_of(equal, network, outline.image_size)
    check_step(settings, recipe, outline)
    reasons = {}
    for name in METHODS:
        made = make_weighting(name, network, outline.image_size, steps_per_epoch=1)
        try:
            check_step(settings, recipe._replace(weighting=made), outline)
            reasons[name] = ""
        except ValueError as error:
            reasons[name] = str(error)
    return reasons
