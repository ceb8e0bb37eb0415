"""The single-task results that Delta-m compares with, or why there are none."""

import math
from collections.abc import Sequence

from mtl_jax.report.grouping import FREE, Group, difference, differing, protocol, seeds
from mtl_jax.report.read import Run
from mtl_jax.report.spread import mean_and_error
from mtl_jax.runs.settings import unread
from mtl_jax.tasks import TASKS

# There is no run at all.
ABSENT = "absent"


def find_baseline(group: Group, groups: Sequence[Group]) -> tuple[dict[str, float], str]:
    """Returns mean results of single-task runs that differ from a group only in the task.

    Args:
      groups: all groups of the report.

    Returns:
      The standard metrics of the group's tasks, and why there is no baseline, as a clause; empty
      if there is one.
    """
    alone = [other for other in groups if other.single_task]
    reasons: dict[str, list[str]] = {}
    for task in group.tasks:
        reason = _lacking(group, task, alone)
        reasons.setdefault(reason, []).append(task)
    lacking = [_clause(reason, tasks) for reason, tasks in reasons.items() if reason]
    if lacking or not group.tasks:
        return {}, "; ".join(lacking) or "its tasks are not known"
    finished = [run for other in alone for run in other.finished]
    # Runs that differ in what their task does not read are one training, which counts once.
    trainings = {(run.tasks, *seeds(run)): run for run in finished if _comparable(group, run)}
    return _means(group, list(trainings.values()))


def standard_metrics(group: Group) -> dict[str, bool]:
    """Returns the columns that enter Delta-m, name -> whether higher is better."""
    metrics = [metric for task in group.tasks for metric in TASKS[task].metrics]
    return {metric.name: metric.higher_is_better for metric in metrics if metric.standard}


def splits(group: Group) -> tuple[str, ...]:
    """Returns the splits of the group's results, usually one."""
    return tuple(dict.fromkeys(run.outcome.split for run in group.finished))


def _comparable(group: Group, run: Run) -> bool:
    """Returns whether a run differs from a group in nothing that its tasks read."""
    ignored = unread(run.tasks)
    same = protocol(group.runs[0], ignored) == protocol(run, ignored)
    return same and splits(group) == (run.outcome.split,)


def _lacking(group: Group, task: str, alone: Sequence[Group]) -> str:
    """Returns `ABSENT` or the difference of a task's single-task runs; "" if one compares."""
    runs = [run for other in alone for run in other.finished if task in run.tasks]
    if not runs:
        return ABSENT
    if any(_comparable(group, run) for run in runs):
        return ""
    own, free = group.runs[0].config, FREE | unread([task])
    closest = min(runs, key=lambda run: len(differing([run.config, own], free=free)))
    which = difference(closest.config, own, free=free)
    if not which:
        which = f"split ({closest.outcome.split}, {', '.join(splits(group))})"
    return which


def _clause(reason: str, tasks: Sequence[str]) -> str:
    """Returns a reason of `_lacking` with the tasks that it holds for."""
    if reason != ABSENT:
        return f"the single-task runs of {listed(tasks)} differ in {reason}"
    if len(tasks) == 1:
        return (
            f"there is no finished single-task run of {tasks[0]} (--tasks={tasks[0]} trains one, "
            "and --mode=sweep includes them)"
        )
    return (
        f"there are no finished single-task runs of {listed(tasks, 'or')} (--tasks={tasks[0]} "
        "trains one of them, and --mode=sweep includes them)"
    )


def _means(group: Group, baselines: Sequence[Run]) -> tuple[dict[str, float], str]:
    results = [run.outcome.metrics for run in baselines]
    labels = {m.name: m.label for task in group.tasks for m in TASKS[task].metrics}
    names = list(standard_metrics(group))
    means = {
        name: mean_and_error([result[name] for result in results if name in result])[0]
        for name in names
    }
    absent = [labels[name] for name in names if not any(name in result for result in results)]
    if absent:
        return {}, f"the single-task runs have no {listed(absent)}"
    odd = [labels[name] for name in names if not math.isfinite(means[name])]
    if odd:
        return (
            {},
            f"{listed(odd)} of the single-task runs is not finite",
        )
    zero = [labels[name] for name in names if means[name] == 0]
    if zero:
        return {}, f"{listed(zero)} of the single-task runs is 0, from which no drop is relative"
    if not any(set(names) <= run.outcome.metrics.keys() for run in group.finished):
        lacking = [labels[n] for n in names if n not in group.finished[0].outcome.metrics]
        return {}, f"its results have no {listed(lacking)}"
    return means, ""


def listed(words: Sequence[str], last: str = "and") -> str:
    """Returns words as a list in a sentence, such as `a, b and c`."""
    return f" {last} ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)
