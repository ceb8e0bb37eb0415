"""How many labels the other tasks save: a task's result over its fraction of labels.

The task is the one with labels that `data.withhold_labels` hides, its result the first of its
metrics.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from mtl_jax.report.figures import STYLE, colours
from mtl_jax.report.grouping import (
    FREE,
    difference,
    differing,
    identity,
    name_of,
    protocol,
    shared_config,
)
from mtl_jax.report.read import Run, numbers
from mtl_jax.report.spread import mean_and_error
from mtl_jax.report.wording import describe, descriptions
from mtl_jax.tasks import WITHHELD as TASK

METRIC = TASK.metrics[0]
ALONE = f"{TASK.name.capitalize()} alone"
# Settings besides `FREE` in which runs of one curve may differ: its axis, and those that
# distinguish its arms.
AXES = frozenset(("label_fraction", "pretrained"))
# Has no effect on runs with all labels, which record its default.
PER_BATCH = "labelled_per_batch"
# Arm -> fraction of the images with labels -> result of each seed, as it is printed.
Results = dict[str, dict[float, list[float]]]


def collect(runs: Sequence[Run]) -> Results:
    """Returns the results of finished runs that learn the task, arms in the order of their runs.

    All runs of the curve agree in every setting except the fraction of labels, the pretrained
    weights and those that may differ between any compared runs; with all labels, the number of
    labelled images per batch has no effect. Runs with other tasks, another
    weighting or other pretrained weights are separate arms. If there are several groups of such
    runs, the largest that makes a study is used; `left_out` names the other runs.
    """
    return _results(_members(runs))


def left_out(runs: Sequence[Run]) -> list[str]:
    """Returns a line for each run with a result that is not in the curve, and why."""
    members = _members(runs)
    others = [run for run in _with_result(runs) if not any(run is member for member in members)]
    return [
        f"{run.path} is not in the curve of few labels: {_why(run, members)}." for run in others
    ]


def _with_result(runs: Sequence[Run]) -> list[Run]:
    return [run for run in runs if run.config and run.result and METRIC.name in run.result.metrics]


def _members(runs: Sequence[Run]) -> list[Run]:
    fitting = [run for run in _with_result(runs) if _part_of(run) is not None]
    numbers = {_per_batch(run) for run in fitting if not _has_all_labels(run)}
    groups: dict[tuple, list[Run]] = {}
    for run in fitting:
        shared = protocol(run, AXES | {PER_BATCH})
        # A run with all labels is the end of every curve.
        for number in numbers if _has_all_labels(run) else {_per_batch(run)}:
            groups.setdefault((run.outcome.split, number, *shared), []).append(run)
    size = {key: (is_study(_results(group)), len(group)) for key, group in groups.items()}
    return groups[max(size, key=lambda key: size[key])] if groups else []


def is_study(results: Results) -> bool:
    """Returns whether there is a curve to draw: several fractions, and an arm of the task alone."""
    parts = {part for arm in results.values() for part in arm}
    return len(parts) > 1 and ALONE in results and len(results) > 1


def parts_needed(alone: Mapping[float, Sequence[float]], result: float) -> float | None:
    """Returns the fraction of labels with which the task alone gets a result; None if with none.

    Interpolated between the fractions that were tried, in the logarithm of the fraction.
    """
    parts = sorted(alone)
    means = [mean_and_error(alone[part])[0] for part in parts]
    for (low, below), (high, above) in zip(
        zip(parts, means, strict=True), list(zip(parts, means, strict=True))[1:], strict=False
    ):
        if below <= result <= above and above > below:
            way = (result - below) / (above - below)
            return math.exp((1 - way) * math.log(low) + way * math.log(high))
    return None


def to_markdown(results: Results) -> str:
    """Returns the result of each arm and fraction, with standard errors, and the labels it saves.

    Labels are saved if the task alone needs more of them for the same result. The number of runs is
    below the table, or in each cell if it differs.
    """
    parts = sorted({part for arm in results.values() for part in arm})
    counts = {len(seeds) for arm in results.values() for seeds in arm.values()}
    lines = [f"| {METRIC.head} | " + " | ".join(_part(part) for part in parts) + " |"]
    lines.append("|:--" + "|--:" * len(parts) + "|")
    for arm, values in results.items():
        cells = [
            _cell(results, arm, part, count_runs=len(counts) > 1) if part in values else "–"
            for part in parts
        ]
        lines.append(f"| {arm} | " + " | ".join(cells) + " |")
    if counts == {1}:
        lines += ["", "Each cell is the result of one run."]
    elif len(counts) == 1:
        lines += ["", f"Each cell is the mean of {counts.pop()} runs, with its standard error."]
    return "\n".join(lines) + "\n"


@matplotlib.rc_context(STYLE)
def labels_figure(results: Results) -> Figure:
    """Draws the result of each arm over the fraction of the images with labels, with errors."""
    figure = Figure(figsize=(6.4, 4.0), layout="constrained")
    axes = figure.subplots()
    palette = colours(list(results), [ALONE])
    for arm, values in results.items():
        means, errors = zip(*(mean_and_error(seeds) for seeds in values.values()), strict=True)
        errors = [error or 0.0 for error in errors]
        axes.errorbar(
            list(values),
            means,
            errors,
            color=palette[arm],
            label=arm,
            marker="o",
            markersize=4,
            capsize=3,
            linestyle="--" if arm == ALONE else "-",
        )
    parts = sorted({part for arm in results.values() for part in arm})
    axes.set_xscale("log")
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xticks(parts, [_part(part) for part in parts])
    axes.set(
        xlabel=f"fraction of the images with {TASK.name} labels",
        ylabel=f"{METRIC.label} / {METRIC.unit}",
    )
    axes.legend()
    return figure


def _results(runs: Sequence[Run]) -> Results:
    results: Results = {}
    names = _arm_names(runs)
    for run in runs:
        arm = results.setdefault(names[_arm(run)], {})
        part = _part_of(run)
        if part is not None:
            arm.setdefault(part, []).append(METRIC.printed(run.outcome.metrics[METRIC.name]))
    return {arm: dict(sorted(parts.items())) for arm, parts in results.items()}


def _why(run: Run, members: Sequence[Run]) -> str:
    if _part_of(run) is None or not members:
        return "its label_fraction is not a fraction of the images"
    if run.outcome.split != members[0].outcome.split:
        return f"its split is {run.outcome.split}, not {members[0].outcome.split}"
    other = next((member for member in members if not _has_all_labels(member)), members[0])
    free = FREE | AXES | ({PER_BATCH} if _has_all_labels(run) else set())
    return f"it differs in {difference(run.config, other.config, free=free)}"


def _part_of(run: Run) -> float | None:
    part = numbers({"": run.config.get("label_fraction", 1.0)}).get("", 0.0)
    return part if 0.0 < part <= 1.0 else None


def _has_all_labels(run: Run) -> bool:
    return _part_of(run) == 1.0


def _per_batch(run: Run) -> str | None:
    return dict(protocol(run)).get(PER_BATCH)


def _arm(run: Run) -> tuple:
    """Returns what distinguishes arms: tasks, weighting with options, and pretrained weights."""
    shared, *how = identity(run)
    return (run.tasks, *how, dict(shared).get("pretrained"))


def _arm_names(runs: Sequence[Run]) -> dict[tuple, str]:
    """Returns names with the settings or pretrained weights that distinguish arms."""
    arms = {_arm(run): run for run in runs}
    starts = {arm[-1] for arm in arms}
    named = {arm: _arm_name(run) for arm, run in arms.items()}
    given = [run.config["pretrained"] for arm, run in arms.items() if arm[-1] is not None]
    short = _without_common(given)
    names = {}
    for arm, run in arms.items():
        namesakes = [shared_config(x) for other, x in arms.items() if named[other] == named[arm]]
        options = [key for key in differing(namesakes, free=frozenset()) if key in FREE]
        phrases = descriptions(run.config, options)
        if len(starts) > 1 and arm[-1] is not None:
            which = describe("pretrained", short[str(run.config["pretrained"])])
            phrases.append("pretrained" if starts == {None, arm[-1]} else which)
        names[arm] = ", ".join([named[arm], *phrases])
    return names


def _without_common(paths: Sequence[Any]) -> dict[str, str]:
    """Returns each path without the folders and the file name that all of them have in common."""
    names = sorted({str(path) for path in paths})
    rows = [name.split("/") for name in names]
    for end in (0, -1):
        while min(map(len, rows), default=0) > 1 and len({row[end] for row in rows}) == 1:
            for row in rows:
                row.pop(end)
    return {name: "/".join(row) for name, row in zip(names, rows, strict=True)}


def _arm_name(run: Run) -> str:
    others = [task for task in run.tasks if task != TASK.name]
    return f"+ {' + '.join(others)}, {name_of(run)}" if others else ALONE


def _part(part: float) -> str:
    inverse = 1.0 / part
    whole = round(inverse)
    return f"1/{whole}" if whole > 1 and abs(inverse - whole) < 0.02 else f"{part:g}"


def _cell(results: Results, arm: str, part: float, *, count_runs: bool) -> str:
    seeds = results[arm][part]
    mean, error = mean_and_error(seeds)
    known = error is not None and not math.isnan(mean)
    text = f"{mean:.2f} ± {error:.2f}" if known else f"{mean:.2f}"
    notes = [f"{len(seeds)} run{'s' * (len(seeds) > 1)}"] if count_runs else []
    needed = None if arm == ALONE else parts_needed(results[ALONE], float(np.round(mean, 6)))
    if needed is not None:
        notes.append(f"{100 * (1 - part / needed):+.0f} % labels saved")
    return f"{text} ({', '.join(notes)})" if notes else text
