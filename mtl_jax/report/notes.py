"""What a reader of the tables must know, in words."""

from collections.abc import Sequence

from mtl_jax.report.rows import FLOOR, Row
from mtl_jax.report.runs import Run
from mtl_jax.report.settings import SINGLE_TASK, Setting, describe
from mtl_jax.report.tables import DELTA_M

DELTA_M_MEANING = (
    "Δm is the mean relative drop against single-task training in percent, "
    "100 · mean of s (m − b) / b, with m the value, b its single-task value and s = −1 where "
    "higher is better, +1 elsewhere: **negative is better**, below zero the tasks help each other. "
    "By metrics: over all columns alike (Navon et al., 2022). By tasks: first over the columns of "
    "each task, then over the tasks (Maninis et al., 2019, who print it with the opposite sign)."
)
DELTA_M_ABSENT = (
    "No Δm: it needs a single-task run of each task with the same dataset, image size, backbone "
    "and epochs among the work directories."
)
RANK_MEANING = (
    "Mean rank: a row's place in each of the columns before Δm, averaged; 1 would be the best in "
    "all. ms a step: from the images a second of training, on the machine of the runs."
)
FLOOR_MEANING = (
    f"{FLOOR}: the majority class, the median depth and the mean normal of the training split at "
    "every pixel; what a model must clear."
)


def table_notes(settings: Sequence[Setting], rows: Sequence[Row]) -> list[str]:
    """Lines under the tables: definitions, split, resolution, epochs, which numbers."""
    runs = [run for setting in settings for run in setting.runs if run.result]
    if not runs:
        return ["No run has finished: there is no table yet."]
    has_delta = any(row.values.get(column.name) for row in rows for column in DELTA_M)
    lines = [
        f"**{run.result.leaked} images that {run.path.name} was judged by are among those that it "
        "was trained on: its row says nothing about new images.**"
        for run in runs
        if run.result.leaked
    ]
    lines += [DELTA_M_MEANING] if has_delta else []
    lines += [_protocol(runs), _evaluations(runs)]
    if any(setting.single_task and len(setting.tasks) > 1 for setting in settings):
        lines.append(f"{SINGLE_TASK}: each task's columns come from the run of that task alone.")
    lines += _seeds(settings)
    if any(row.values.get("mean_rank") for row in rows):
        lines.append(RANK_MEANING)
    if any(not row.ranked for row in rows):
        lines.append(FLOOR_MEANING)
    return lines if has_delta else [*lines, DELTA_M_ABSENT]


def missing_notes(runs: Sequence[Run]) -> list[str]:
    """A line for each run of which something is missing."""
    return [f"{run.path}: {'; '.join(run.missing)}" for run in runs if run.missing]


def _protocol(runs: Sequence[Run]) -> str:
    facts = {"Split": [run.result.split for run in runs]}
    for name, key in (
        ("dataset", "dataset"),
        ("resolution", "image_size"),
        ("backbone", "backbone"),
    ):
        facts[name] = [describe(key, run.config[key]) for run in runs if key in run.config]
    facts["epochs"] = [str(run.config["epochs"]) for run in runs if "epochs" in run.config]
    known = [
        f"{name}: {', '.join(dict.fromkeys(values))}" for name, values in facts.items() if values
    ]
    return f"{'; '.join(known)}."


def _evaluations(runs: Sequence[Run]) -> str:
    counts = sorted({run.result.evaluations for run in runs})
    if counts == [1]:
        return "Values are those of the final evaluation."
    number = " or ".join(map(str, counts))
    return (
        f"Values are the mean of the last {number} evaluations; IoU per class is of the final one."
    )


def _seeds(settings: Sequence[Setting]) -> list[str]:
    """How many runs stand behind a mean, where there is more than one."""
    counts = {}
    for setting in settings:
        finished = [run for run in setting.runs if run.result]
        number = max(
            (sum(task in run.tasks for run in finished) for task in setting.tasks), default=0
        )
        if number > 1:
            counts.setdefault(number, []).append(setting.label)
    parts = [f"{number} runs of {', '.join(labels)}" for number, labels in counts.items()]
    return [f"± is the standard error of the mean over seeds: {'; '.join(parts)}."] if parts else []
