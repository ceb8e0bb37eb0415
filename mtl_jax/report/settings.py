"""Which runs belong together: the seeds of a setting, the single-task runs of a protocol."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from mtl_jax.report.runs import Run

# Results are comparable within one protocol.
DATA = ("nyu_layout", "nyu_classes", "rooms_train", "rooms_test", "metric_protocol")
PROTOCOL = ("dataset", "image_size", "backbone", "epochs", *DATA)
# What may differ between the runs of one setting.
INDIVIDUAL = ("seed", "label_seed", "workdir", "class_names")
SINGLE_TASK = "Single task"
# The weightings as the literature calls them; settings such as `uw_form` begin with their names.
TITLES = {
    "equal": "Equal weights", "fixed": "Fixed weights", "rlw": "RLW", "si": "Scale-invariant",
    "gls": "GLS", "pbi": "PBI", "stch": "STCH", "dwa": "DWA", "dwa_window": "DWA (window)",
    "uw": "UW", "imtl_l": "IMTL-L", "famo": "FAMO", "nash": "Nash-MTL", "fairgrad": "FairGrad",
    "mgda": "MGDA", "cagrad": "CAGrad", "upgrad": "UPGrad", "dualproj": "DualProj",
    "pcgrad": "PCGrad", "gradvac": "GradVac", "imtl_g": "IMTL-G", "imtl": "IMTL",
    "aligned_mtl": "Aligned-MTL", "config": "ConFIG", "gradnorm": "GradNorm", "modo": "MoDo",
    "sdmgrad": "SDMGrad", "graddrop": "GradDrop", "db_mtl": "DB-MTL", "moco": "MoCo",
    "excess_mtl": "ExcessMTL",
}  # fmt: skip
# Settings of several weightings, by names that begin like one of them.
SHARED = ("nash_every", "nash_max_norm")


class Setting(NamedTuple):
    """Runs that differ in nothing but the seed: one row of a table, one colour of a figure.

    Attributes:
      label: unique name of the setting.
      single_task: whether each run trains one task; then the runs of all the tasks together are
        one setting, as the literature prints them.
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


def group(runs: Sequence[Run]) -> list[Setting]:
    """Settings in the order of their first runs, single-task ones first within a protocol."""
    groups: dict[str, list[Run]] = {}
    for run in runs:
        groups.setdefault(_identity(run), []).append(run)
    members = list(groups.values())
    protocols = [protocol(group[0].config) for group in members]
    members.sort(key=lambda group: (protocols.index(protocol(group[0].config)), not _single(group)))
    configs = [_shared_config(group) for group in members]
    return [
        Setting(label, _single(group), config, tuple(group))
        for label, config, group in zip(_labels(members, configs), configs, members, strict=True)
    ]


def protocol(config: Mapping[str, Any]) -> tuple[str, ...]:
    """What must be equal for two results to be comparable, in a form that compares."""
    return tuple(json.dumps(config.get(key)) for key in PROTOCOL)


def describe(key: str, value: Any) -> str:
    """One setting in words, such as `96×128` or `15 epochs`."""
    if key == "image_size" and isinstance(value, list):
        return "×".join(map(str, value))
    if key == "epochs":
        return f"{value} epoch{'s' * (value != 1)}"
    if key == "tasks" and isinstance(value, list):
        return " + ".join(map(str, value))
    if key in PROTOCOL:
        return str(value)
    if value is None:
        return f"no {key}"
    return f"{key} {value if isinstance(value, str) else json.dumps(value)}"


def _single(group: Sequence[Run]) -> bool:
    return len(group[0].tasks) == 1


def _identity(run: Run) -> str:
    if not run.config:
        return str(run.path)
    single = _single([run])
    # A value of None and none at all are the same.
    set_values = {key: value for key, value in run.config.items() if value is not None}
    config = {key: x for key, x in set_values.items() if _matters(key, run.config, single)}
    return json.dumps([single, config], sort_keys=True)


def _matters(key: str, config: Mapping[str, Any], single: bool) -> bool:
    """Whether a setting makes a difference to this run, other than by chance."""
    weighting = None if single else config.get("weighting")
    owners = {title for title in TITLES if key.startswith(f"{title}_")} - {"imtl"}
    idle = bool(owners) and weighting not in owners and (single or key not in SHARED)
    # With one task there is nothing to weigh.
    return not idle and key not in INDIVIDUAL and not (single and key in ("tasks", "weighting"))


def _shared_config(group: Sequence[Run]) -> dict[str, Any]:
    first = group[0].config
    return {key: value for key, value in first.items() if _matters(key, first, _single(group))}


def _labels(members: Sequence[Sequence[Run]], configs: Sequence[dict]) -> list[str]:
    """Names with as many of the settings in brackets as tell them apart."""
    names = [_name(group) for group in members]
    common = [key for key in PROTOCOL if _vary(key, [config for config in configs if config])]
    labels = []
    for name, config in zip(names, configs, strict=True):
        namesakes = [other for title, other in zip(names, configs, strict=True) if title == name]
        keys = common + [key for key in config if key not in PROTOCOL and _vary(key, namesakes)]
        described = [describe(key, config[key]) for key in keys if key in config]
        labels.append(f"{name} ({', '.join(described)})" if described else name)
    return [
        label if labels.count(label) == 1 else f"{label} [{group[0].path}]"
        for label, group in zip(labels, members, strict=True)
    ]


def _name(group: Sequence[Run]) -> str:
    run = group[0]
    if not run.config:
        return run.path.name
    if _single(group):
        return SINGLE_TASK
    weighting = str(run.config.get("weighting", run.path.name))
    return TITLES.get(weighting, weighting)


def _vary(key: str, configs: Sequence[Mapping[str, Any]]) -> bool:
    return len({json.dumps(config.get(key), sort_keys=True) for config in configs}) > 1
