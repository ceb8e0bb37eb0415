"""The file `metrics.jsonl` of a run: one line per epoch."""

import itertools
import math
from pathlib import Path
from typing import Any

from mtl_jax import files
from mtl_jax.runs import workdir

NAME = "metrics.jsonl"


def read(folder: Path) -> tuple[list[dict[str, Any]], list[str]]:
    """Returns the lines of `metrics.jsonl`, with NaN for a null among a group's numbers.

    Returns:
      The rows that can be read, and for each other line a phrase that says what is wrong with it.
      An incomplete last line, left by a killed process, is not an error.
    """
    try:
        content = (folder / NAME).read_bytes()
    except FileNotFoundError:
        return [], []
    rows, faults = [], []
    lines = content.split(b"\n")
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = workdir.parse_object(line)
        except ValueError as error:
            if number < len(lines):
                faults.append(f"line {number} can't be read ({error})")
            continue
        rows.append({key: _with_nan(value) for key, value in row.items()})
    return rows, faults


def _with_nan(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    return {key: math.nan if x is None else x for key, x in value.items()}


def write(folder: Path, rows: list[dict[str, Any]]) -> None:
    """Writes all lines of `metrics.jsonl`, complete or not at all."""
    if workdir.is_writer():
        files.write(folder / NAME, "".join(workdir.to_json(row) + "\n" for row in rows))


def set_aside(folder: Path) -> Path:
    """Copies a damaged `metrics.jsonl`, before it is written again; returns the copy's path."""
    path = folder / NAME
    names = itertools.chain([""], (f"-{number}" for number in itertools.count(2)))
    candidates = (path.with_name(f"{NAME}.damaged{name}") for name in names)
    aside = next(candidate for candidate in candidates if not candidate.exists())
    if workdir.is_writer():
        files.write(aside, path.read_bytes())
    return aside
