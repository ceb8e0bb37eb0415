"""Settings in words: for the labels of groups, for captions and for notes."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mtl_jax.runs import grid
from mtl_jax.runs.text import as_text
from mtl_jax.weighting import options

# Settings that a label names before any other, because readers know them.
KNOWN = ("dataset", "image_size", "model", "learning_rate", "epochs", "pretrained")
# These have no words of their own in a label: a data set of a folder is named after it, and the
# version of the data set is not for readers.
WORDLESS = ("folder", "data")
# Parts of the path of pretrained weights, as in rooms-nash-0/export/weights.safetensors.
PRETRAINED_PARTS = 3
# Number of differences that a label or note spells out; a note counts the others.
MOST_DIFFERENCES = 4
# Most characters of a value in a label or note.
LONGEST_VALUE = 40


def distinguishing(configs: Sequence[Mapping[str, Any]], settings: Sequence[str]) -> list[str]:
    """Returns the few of some settings whose words distinguish configs, known ones first."""
    found = [*settings, "dataset"] if "folder" in settings else settings
    ordered = [key for key in KNOWN if key in found]
    ordered += [key for key in found if key not in (*KNOWN, *WORDLESS)]
    chosen: list[str] = []
    for key in ordered:
        more = [*chosen, key]
        if _distinct(configs, more) > _distinct(configs, chosen):
            chosen = more
    return chosen[:MOST_DIFFERENCES]


def _distinct(configs: Sequence[Mapping[str, Any]], keys: Sequence[str]) -> int:
    return len({tuple(descriptions(config, keys)) for config in configs})


def descriptions(config: Mapping[str, Any], keys: Sequence[str]) -> list[str]:
    """Returns those of some settings that a run has, in words."""
    return list(dict.fromkeys(_phrase(config, key) for key in keys if key in config))


def _phrase(config: Mapping[str, Any], key: str) -> str:
    value = config[key]
    if key == "dataset":
        return data_set(config)
    if key == "pretrained" and isinstance(value, str):
        value = "/".join(value.strip("/").split("/")[-PRETRAINED_PARTS:])
    return describe(key, value)


def data_set(config: Mapping[str, Any]) -> str:
    """Returns a run's data set in words; one of a user's own images has the name of its folder."""
    words, folder = describe("dataset", config["dataset"]), config.get("folder")
    name = brief(Path(folder).name) if isinstance(folder, str) else ""
    return " ".join(["folder", name, *words.split(" ")[1:]]) if name else words


def describe(key: str, value: Any) -> str:
    """Returns one setting in words, such as `96×128`, `15 epochs` or `rooms with train=400`."""
    if key == "image_size" and isinstance(value, list):
        return "×".join(map(brief, value))
    if key == "epochs":
        return f"{brief(value)} epoch{'s' * (value != 1)}"
    if key == "tasks" and isinstance(value, list):
        return " + ".join(map(brief, value))
    if value is None:
        return f"no {key}"
    if key not in ("dataset", "model"):
        return f"{key} {brief(value)}"
    name, chosen = options.parts(grid.short(value)) if isinstance(value, str) else (value, [])
    return brief(name) + (f" with {brief(' and '.join(chosen))}" if chosen else "")


def abridged(phrases: Sequence[str]) -> str:
    """Returns the first phrases and the number of the others."""
    more = len(phrases) - MOST_DIFFERENCES
    # Naming the last one takes no more room than counting it.
    if more <= 1:
        return ", ".join(phrases)
    return f"{', '.join(phrases[:MOST_DIFFERENCES])} and {more} more"


def recorded(config: Mapping[str, Any], key: str) -> str:
    """Returns the value of a setting; an older run may lack it."""
    return brief(config[key]) if key in config else "not recorded"


def brief(value: Any) -> str:
    """Returns a value as it is written on the command line, on one line and not too long."""
    text = "none" if value is None else one_line(as_text(value))
    return text if len(text) <= LONGEST_VALUE else f"{text[:LONGEST_VALUE]}…"


def one_line(text: str) -> str:
    """Returns a text with single spaces and no line breaks."""
    return " ".join(text.split())
