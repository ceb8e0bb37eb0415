"""How many labels the runs had: lines under the tables, and runs with other labels kept apart.

The data of a folder can change between two runs with the same settings.
"""

from collections.abc import Sequence

from mtl_jax.report.grouping import Group, protocol
from mtl_jax.report.read import Result, Run
from mtl_jax.runs import labels
from mtl_jax.runs.labels import IMAGES

# The setting that `apart` adds to those of a run.
KEY = "labels"


def apart(runs: Sequence[Run]) -> list[Run]:
    """Returns the runs; those with the same settings and other labels differ in `labels`.

    Runs that agree in everything but the numbers of labels of a task are not seeds of one group,
    and their results can't be compared. Runs whose labels were not counted are left as they are.
    """
    kinds: dict[tuple, dict[str, set[str]]] = {}
    for run in runs:
        for task, text in _data(run).items():
            kinds.setdefault(protocol(run), {}).setdefault(task, set()).add(text)
    found = []
    for run in runs:
        tasks = [
            f"{task} {text}"
            for task, text in _data(run).items()
            if len(kinds[protocol(run)][task]) > 1
        ]
        found.append(run._replace(config=run.config | {KEY: ", ".join(tasks)}) if tasks else run)
    return found


def notes(groups: Sequence[Group]) -> list[str]:
    """Returns lines that say how many labels the rows had, and why some have no metrics."""
    lines: dict[str, list[str]] = {}
    for group in groups:
        for text in dict.fromkeys(map(_sentence, _results(group))):
            lines.setdefault(text, []).append(group.label)
    finished = [group.label for group in groups if group.finished]
    said = [
        text if rows == finished else f"{', '.join(rows)}: {text}" for text, rows in lines.items()
    ]
    reasons = {
        f"no {task} metrics: {reason}"
        for group in groups
        for run in group.finished
        for task, reason in labels.none_of(run.outcome.labels, run.outcome.split).items()
    }
    return [f"{text[0].upper()}{text[1:]}." for text in (*said, *sorted(reasons))]


def _data(run: Run) -> dict[str, str]:
    """Returns the numbers of labelled images of both splits, of each task; none if not counted."""
    found = run.result.labels if run.result and run.config else {}
    if not found:
        return {}
    train, test = found["present"], found["judged"]
    return {
        task: f"{train[task]}/{train[IMAGES]} + {test[task]}/{test[IMAGES]}"
        for task in test
        if task != IMAGES and task in train
    }


def _results(group: Group) -> list[Result]:
    """Returns the results of a group; single-task runs of one seed are one result."""
    counted = [run.outcome for run in group.finished if run.outcome.labels]
    if not group.single_task or not counted:
        return counted
    merged: dict[str, dict[str, int]] = {}
    for outcome in counted:
        for part, counts in outcome.labels.items():
            merged[part] = {**merged.get(part, {}), **counts}
    return [counted[0]._replace(labels=merged)]


def _sentence(result: Result) -> str:
    return labels.sentence(result.labels, result.split)
