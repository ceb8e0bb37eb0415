"""The single-task results that Delta-m compares with, or why there are none."""

import math
from collections.abc import Sequence

from mtl_jax.report.settings import Setting, difference, differing, protocol
from mtl_jax.report.spread import mean_and_error
from mtl_jax.tasks import TASKS


def find_baseline(setting: Setting, settings: Sequence[Setting]) -> tuple[dict[str, float], str]:
    """Returns mean results of single-task runs that differ from a setting in the task alone.

    Args:
      settings: all of the report.

    Returns:
      The standard metrics of the setting's tasks, and why there is no baseline, as a clause; empty
      if there is one.
    """
    alone = [other for other in settings if other.single_task]
    reasons: dict[str, list[str]] = {}
    for task in setting.tasks:
        reason = _lacking(setting, task, alone)
        reasons.setdefault(reason, []).append(task)
    lacking = [reason.format(listed(tasks)) for reason, tasks in reasons.items() if reason]
    if lacking or not setting.tasks:
        return {}, "; ".join(lacking) or "its tasks are not known"
    return _means(setting, [other for other in alone if _comparable(setting, other)])


def standard_metrics(setting: Setting) -> dict[str, bool]:
    """Returns the columns that Delta-m is over, by name -> whether higher is better."""
    metrics = [metric for task in setting.tasks for metric in TASKS[task].metrics]
    return {metric.name: metric.higher_is_better for metric in metrics if metric.standard}


def splits(setting: Setting) -> tuple[str, ...]:
    """Returns the splits that the setting's results are of; one, as a rule."""
    return tuple(dict.fromkeys(run.outcome.split for run in setting.finished))


def _comparable(setting: Setting, other: Setting) -> bool:
    same = protocol(setting.runs[0]) == protocol(other.runs[0])
    return same and splits(setting) == splits(other)


def _has(setting: Setting, task: str) -> bool:
    return any(task in run.tasks for run in setting.finished)


def _lacking(setting: Setting, task: str, alone: Sequence[Setting]) -> str:
    """Returns why a task has no single-task run to compare with, its name left open, or ""."""
    others = [other for other in alone if _has(other, task)]
    if not others:
        return "there is no finished single-task run of {}"
    if any(_comparable(setting, other) for other in others):
        return ""
    configs = {id(other): other.runs[0].config for other in others}
    own = setting.runs[0].config
    closest = min(others, key=lambda other: len(differing([configs[id(other)], own])))
    which = difference(configs[id(closest)], own)
    if not which:
        which = f"split ({', '.join(splits(closest))}, {', '.join(splits(setting))})"
    # What the runs say of themselves may have braces in it.
    return "the single-task runs of {} differ in " + which.replace("{", "{{").replace("}", "}}")


def _means(setting: Setting, baselines: Sequence[Setting]) -> tuple[dict[str, float], str]:
    results = [run.outcome.metrics for other in baselines for run in other.finished]
    labels = {m.name: m.label for task in setting.tasks for m in TASKS[task].metrics}
    names = list(standard_metrics(setting))
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
    if not any(set(names) <= run.outcome.metrics.keys() for run in setting.finished):
        lacking = [labels[n] for n in names if n not in setting.finished[0].outcome.metrics]
        return {}, f"its results have no {listed(lacking)}"
    return means, ""


def listed(words: Sequence[str]) -> str:
    """Returns words as a list in a sentence, such as `a, b and c`."""
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)
