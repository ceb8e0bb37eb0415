"""Notes for readers of the tables."""

from collections import Counter
from collections.abc import Sequence

from mtl_jax.report import labels
from mtl_jax.report.baseline import find_baseline, listed
from mtl_jax.report.grouping import SINGLE_TASK, Group, set_apart
from mtl_jax.report.read import Run
from mtl_jax.report.rows import FLOOR, Row
from mtl_jax.report.tables import DELTA_M, STEP_TIME, standard_table
from mtl_jax.report.wording import data_set, describe
from mtl_jax.runs import rates_file
from mtl_jax.tasks import TASKS

DELTA_M_MEANING = (
    "Δm is the mean relative change compared with single-task training in percent, "
    "100 · mean of s (m − b) / b, where m is the value, b its single-task value, and s = −1 for "
    "metrics where higher is better, +1 for the others: **lower is better**, and below zero the "
    "tasks help each other. By metrics: the mean over all columns (Navon et al., 2022). By tasks: "
    "the mean over the columns of each task first, then over the tasks (Maninis et al., 2019, who "
    "use the opposite sign). Its ± is the standard error over the seeds of the row and does not "
    "include the error of the single-task mean."
)
COMPARED = (
    "Only runs that agree in all settings except the weighting, how often and from which "
    "gradients it is computed, the tasks{} and the seeds are compared, in Δm, in ranks and for the "
    "best value."
)
CHOSEN = ", the learning rate that a sweep chose"
BOLD_MEANING = (
    "Bold: the best mean, if it is better than the next by more than the standard error of their "
    "difference, √(a² + b²), where a and b are their standard errors. Rows that show the same best "
    "mean share it. The error of a single run is unknown and counts as zero."
)
RANK_MEANING = (
    "Mean rank: the mean of a row's ranks in the columns before Δm, by the means alone; 1 would be "
    "the best in every column."
)
STEP_TIME_MEANING = (
    "ms per step: computed from the images per second in training, on the machine of the runs; it "
    "is not part of the rank."
)


def table_notes(groups: Sequence[Group], rows: Sequence[Row]) -> list[str]:
    """Returns the lines under the tables: definitions, split, resolution, epochs, which numbers."""
    runs = [run for group in groups for run in group.finished]
    if not runs:
        return ["No run has finished: there is no table yet."]
    shown = {column.name for column in standard_table(rows).columns}
    lines = [DELTA_M_MEANING] if any(column.name in shown for column in DELTA_M) else []
    lines += [_protocol(runs), _evaluations(runs)]
    if any(group.single_task and len(group.tasks) > 1 for group in groups):
        lines.append(f"{SINGLE_TASK}: each task's columns come from the run of that task alone.")
    lines += _seeds(groups)
    lines += labels.notes(groups)
    ranked = [row for row in rows if row.ranked]
    chosen = CHOSEN if any(run.config.get("learning_rates") for run in runs) else ""
    lines += [COMPARED.format(chosen) + _set_apart(runs), BOLD_MEANING] if len(ranked) > 1 else []
    lines += [RANK_MEANING] if "mean_rank" in shown else []
    lines += [STEP_TIME_MEANING] if STEP_TIME.name in shown else []
    lines += [_floor_meaning(groups)] if len(ranked) < len(rows) else []
    return lines + _no_delta_m(groups)


def _set_apart(runs: Sequence[Run]) -> str:
    """Returns the settings in which runs differ that are not compared; "" if all are."""
    keys = set_apart(runs)
    return f" Here, runs that are not compared differ in {listed(keys)}." if keys else ""


def _floor_meaning(groups: Sequence[Group]) -> str:
    learned = {task for group in groups for task in group.tasks}
    constants = [task.trivial.words for name, task in TASKS.items() if name in learned]
    return (
        f"{FLOOR}: {listed(constants)} of the training split at every pixel, which a model must "
        "beat."
    )


def leak_notes(runs: Sequence[Run]) -> list[str]:
    """Returns a warning for each run whose results are on images that it was trained on."""
    return [
        f"**{run.outcome.leaked} images that {run.path.name} was evaluated on are among those that "
        "it was trained on: its row says nothing about new images.**"
        for run in runs
        if run.result and run.outcome.leaked
    ]


def missing_notes(runs: Sequence[Run]) -> list[str]:
    """Returns a line for each run with missing data."""
    return [f"{run.path}: {'; '.join(run.missing)}" for run in runs if run.missing]


def trial_notes(runs: Sequence[Run]) -> list[str]:
    """Returns a line for each choice of a learning rate of which trial runs failed."""
    chosen = [run for run in runs if run.config.get("learning_rates")]
    folders = dict.fromkeys(run.path.resolve().parent for run in chosen)
    lines = []
    for folder in folders:
        for name, trials in rates_file.read(folder).items():
            failed = rates_file.failures(trials)
            causes = "; ".join(f"{rate}: {cause}" for rate, cause in failed.items())
            if failed:
                lines.append(
                    f"Learning rates of {folder.name}/{name}: {len(failed)} of {len(trials)} trial "
                    f"runs failed ({causes})."
                )
    return lines


def _no_delta_m(groups: Sequence[Group]) -> list[str]:
    """Returns why rows have no Delta-m, one line for all rows with the same reason."""
    reasons: dict[str, list[str]] = {}
    for group in groups:
        if group.finished and not group.single_task:
            _, missing = find_baseline(group, groups)
            reasons.setdefault(missing, []).append(group.label)
    return [
        f"No Δm for {_listed(labels, all_alike=len(reasons) == 1)}: {reason}."
        for reason, labels in reasons.items()
        if reason
    ]


def _listed(labels: Sequence[str], *, all_alike: bool) -> str:
    return "any of the rows" if all_alike and len(labels) > 2 else ", ".join(labels)


def _protocol(runs: Sequence[Run]) -> str:
    facts: dict[str, list[str | None]] = {"Split": [run.outcome.split for run in runs]}
    facts["dataset"] = [data_set(run.config) for run in runs if "dataset" in run.config]
    for name, key in (("resolution", "image_size"), ("network", "model")):
        facts[name] = [describe(key, run.config[key]) for run in runs if key in run.config]
    facts["epochs"] = [
        describe("epochs", run.config["epochs"]).removesuffix("s").removesuffix(" epoch")
        for run in runs
        if "epochs" in run.config
    ]
    known = [
        f"{name}: {', '.join(dict.fromkeys(filter(None, values)))}"
        for name, values in facts.items()
        if any(values)
    ]
    return f"{'; '.join(known)}."


def _evaluations(runs: Sequence[Run]) -> str:
    """Returns a line on the evaluations that the values come from; see `read.alike`."""
    (number,) = {run.outcome.evaluations for run in runs}
    if number > 1:
        return (
            f"Values are the mean of the last {number} evaluations, all within the last tenth of a "
            "run's epochs; IoU per class is of the final one."
        )
    averaged = [run for run in runs if run.outcome.averaged]
    if not averaged:
        return "Values are those of the final evaluation."
    return (
        f"Values are those of the final evaluation: {len(averaged)} of the {len(runs)} runs have a "
        "mean of their last evaluations, which is not comparable with a final value or with a mean "
        "of another number of evaluations."
    )


def _seeds(groups: Sequence[Group]) -> list[str]:
    """Returns the number of runs per mean, if there is more than one."""
    counts: dict[str, list[str]] = {}
    for group in groups:
        # Each single task may have another number of runs.
        runs = Counter(task for run in group.finished for task in run.tasks).values()
        if max(runs, default=0) > 1:
            number = " to ".join(map(str, sorted({min(runs), max(runs)})))
            counts.setdefault(number, []).append(group.label)
    parts = [f"{number} runs of {', '.join(labels)}" for number, labels in counts.items()]
    return [f"± is the standard error of the mean over seeds: {'; '.join(parts)}."] if parts else []
