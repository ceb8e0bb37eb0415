"""Which runs are compared: those that agree in config.json except for a short list.

Two results are compared (seeds of one row, Delta-m, the best of a column, a curve) only if the runs
differ in nothing but `MAY_DIFFER`. A setting that is not in that list sets runs apart, so a new one
can't make a comparison wrong.
"""

import json
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

from mtl_jax.report.read import Run
from mtl_jax.report.wording import (
    abridged,
    brief,
    descriptions,
    distinguishing,
    one_line,
    recorded,
)
from mtl_jax.runs.settings import MAY_DIFFER, title, unread

SEEDS = ("seed", "label_seed")
# How tasks are weighed, which has no meaning with one task.
HOW = ("weighting", "weigh_every", "gradients")
# All that may differ between runs that are compared. The class names follow from the data set.
FREE = frozenset((*MAY_DIFFER, "class_names"))
SINGLE_TASK = "Single task"
VERSION = "version of the data set"


class Group(NamedTuple):
    """Runs that differ in nothing but the seed: one row of a table, one colour of a figure.

    Attributes:
      label: unique name of the group.
      single_task: whether each run trains one task; then the runs of all the tasks together are
        one group, as the literature prints them.
      config: the entries of config.json that the runs share.
      runs: at least one.
    """

    label: str
    single_task: bool
    config: dict[str, Any]
    runs: tuple[Run, ...]

    @property
    def tasks(self) -> tuple[str, ...]:
        """The tasks of any of the runs, each one once."""
        return tuple(dict.fromkeys(task for run in self.runs for task in run.tasks))

    @property
    def finished(self) -> tuple[Run, ...]:
        """The runs that have a result."""
        return tuple(run for run in self.runs if run.result is not None)


def protocol(run: Run, ignored: Collection[str] = ()) -> tuple[tuple[str, str], ...]:
    """Returns what must be equal for two runs to be compared, in a form that compares.

    A run whose config.json can't be read is not compared with any. A value of None counts as
    absent.

    Args:
      run: a run of any group.
      ignored: settings that may differ besides `FREE`.
    """
    if not run.config:
        return (("config.json", str(run.path)),)
    free = FREE.union(ignored, _tuned(run))
    fixed = {key: x for key, x in run.config.items() if key not in free and x is not None}
    return tuple(sorted((key, _json(value)) for key, value in fixed.items()))


def identity(run: Run) -> tuple:
    """Returns what the seeds of a group have in common: protocol and weighting.

    With one task there is nothing to weigh, and the runs of all tasks belong together.
    """
    if not run.config:
        return protocol(run)
    shared = shared_config(run)
    free = FREE.union(_tuned(run))
    how = sorted((key, _json(x)) for key, x in shared.items() if key in free and x is not None)
    return (protocol(run), _is_single(run), *how)


def distinct(runs: Sequence[Run]) -> tuple[list[Run], list[str]]:
    """Returns each training once, even if it is in several folders, and a line for each duplicate.

    Runs of one group with the same seeds are duplicates; the first that has finished is kept.
    """
    copies: dict[tuple, list[Run]] = {}
    for run in runs:
        copies.setdefault((identity(run), run.tasks, *seeds(run)), []).append(run)
    kept, notes = [], []
    for same in copies.values():
        first = next((run for run in same if run.result), same[0])
        kept.append(first)
        notes += [_left_out(run, first) for run in same if run is not first]
    return [run for run in runs if any(run is one for one in kept)], notes


def group_runs(runs: Sequence[Run]) -> list[Group]:
    """Returns groups in the order of their first runs; in a protocol, single-task ones first."""
    by_identity: dict[tuple, list[Run]] = {}
    for run in runs:
        by_identity.setdefault(identity(run), []).append(run)
    members = list(by_identity.values())
    protocols = [protocol(first) for first, *_ in members]
    members.sort(key=lambda same: (protocols.index(protocol(same[0])), not _is_single(same[0])))
    return [
        Group(label, _is_single(same[0]), shared_config(same[0]), tuple(same))
        for label, same in zip(_labels([first for first, *_ in members]), members, strict=True)
    ]


def shared_config(run: Run) -> dict[str, Any]:
    """Returns what the config says of the run's group; seeds are left out.

    The tasks and the weighting of a single-task run are left out, too, and a learning rate that was
    chosen for it: all of them are one group.
    """
    idle = {*SEEDS, "class_names"} | ({"tasks", *HOW, *_tuned(run)} if _is_single(run) else set())
    return {key: x for key, x in run.config.items() if key not in idle}


def seeds(run: Run) -> tuple[str, ...]:
    """Returns the seeds that matter; the label seed does not if no labels are withheld or read."""
    idle = run.config.get("label_fraction", 1.0) == 1 or "label_seed" in unread(run.tasks)
    return tuple(_json(run.config.get(key)) for key in (SEEDS[:1] if idle else SEEDS))


def name_of(run: Run) -> str:
    """Returns the name of a row or curve of the run, such as `FairGrad (alpha=1)`."""
    name, chosen = _title(run)
    return f"{name} ({', '.join(chosen)})" if chosen else name


def _title(run: Run) -> tuple[str, list[str]]:
    """Returns the title of the run's weighting and its options without the defaults."""
    if not run.config:
        return run.path.name, []
    if _is_single(run):
        return SINGLE_TASK, []
    weighting = run.config.get("weighting")
    if not isinstance(weighting, str):
        return run.path.name, []
    name, chosen = title(weighting)
    return brief(name), [brief(option) for option in chosen]


def differing(configs: Sequence[Mapping[str, Any]], *, free: frozenset[str] = FREE) -> list[str]:
    """Returns the settings outside `free` in which configs differ; None counts as absent."""
    keys = dict.fromkeys(key for config in configs for key in config if key not in free)
    return [key for key in keys if len({_json(config.get(key)) for config in configs}) > 1]


def difference(
    first: Mapping[str, Any], second: Mapping[str, Any], *, free: frozenset[str] = FREE
) -> str:
    """Returns the differences of two runs, such as `model (segnet, resnet_unet)`."""
    if not first or not second:
        return "config.json (can't be read)"
    return abridged(
        [
            f"{key} ({recorded(first, key)}, {recorded(second, key)})"
            for key in differing([first, second], free=free)
        ]
    )


def set_apart(runs: Sequence[Run]) -> list[str]:
    """Returns the settings in which runs differ that are not compared; none if all are."""
    protocols = [dict(protocol(run)) for run in runs if run.config]
    keys = differing(protocols, free=frozenset())
    return [VERSION if key == "data" else key for key in keys]


def _tuned(run: Run) -> tuple[str, ...]:
    """Returns the settings that a sweep chose for each method and each single task."""
    return ("learning_rate",) if run.config.get("learning_rates") else ()


def _is_single(run: Run) -> bool:
    named = run.config.get("tasks")
    return len(run.tasks) == 1 and (not isinstance(named, list) or len(named) == 1)


def _left_out(run: Run, kept: Run) -> str:
    line = f"{run.path} is left out: it is {kept.path} again, the same settings and seeds"
    rates = [recorded(one.config, "learning_rate") for one in (kept, run)]
    if _tuned(run) and rates[0] != rates[1]:
        line += f" except the learning rate ({', '.join(rates)}), of which a single task has one"
    if run.result and kept.result:
        pairs = {
            name: (kept.result.metrics.get(name), run.result.metrics.get(name))
            for name in {**kept.result.metrics, **run.result.metrics}
        }
        unequal = [
            f"{name} ({brief(one)}, {brief(other)})"
            for name, (one, other) in pairs.items()
            if _json(one) != _json(other)
        ]
        if unequal:
            line += f", yet with other results: {abridged(unequal)}"
    return f"{line}."


def _labels(runs: Sequence[Run]) -> list[str]:
    """Returns names of groups, each given by a run, with the few settings that distinguish them.

    Groups that no such setting distinguishes have their folders in brackets.
    """
    configs = [shared_config(run) for run in runs]
    known = [config for config in configs if config]
    protocols = [protocol(run) for run in runs]
    per_protocol = list(dict(zip(protocols, configs, strict=True)).values())
    apart = distinguishing(per_protocol, differing(per_protocol))
    labels = []
    for run, config, own in zip(runs, configs, protocols, strict=True):
        namesakes = [
            other
            for one, other, same in zip(runs, configs, protocols, strict=True)
            if same == own and name_of(one) == name_of(run)
        ]
        keys = apart + [key for key in _tuned(run) if key in differing(known)]
        keys += [key for key in differing(namesakes, free=frozenset()) if key in FREE]
        name, options = _title(run)
        phrases = options + descriptions(config, keys)
        labels.append(one_line(f"{name} ({', '.join(phrases)})" if phrases else name))
    brackets = [tuple(descriptions(config, apart)) for config in configs]
    pairs = {(x, own) for x, own, run in zip(brackets, protocols, runs, strict=True) if run.config}
    protocols_of = Counter(phrases for phrases, _ in pairs)
    return [
        f"{label} [{_tail(run, runs)}]"
        if labels.count(label) > 1 or (run.config and protocols_of[phrases] > 1)
        else label
        for label, phrases, run in zip(labels, brackets, runs, strict=True)
    ]


def _tail(run: Run, runs: Sequence[Run]) -> str:
    """Returns the end of a run's path, as short as distinguishes it from the others'."""
    others = [other.path.parts for other in runs if other is not run]
    parts = run.path.parts
    lengths = range(1, len(parts))
    tails = [parts[-n:] for n in lengths if not any(x[-n:] == parts[-n:] for x in others)]
    return "/".join(tails[0]) if tails else str(run.path)


def _json(value: Any) -> str:
    return json.dumps(value, sort_keys=True)
