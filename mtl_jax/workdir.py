"""A run's folder: what the run is, what it measured, what it was made with.

`config.json` holds what defines the run, `metrics.jsonl` one line an epoch, `result.json` the final
table, `samples.npz` predictions to look at, `versions.json` the packages. Of several processes only
the first one writes.
"""

import importlib.metadata
import json
import os
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "jaxopt", "numpy")


def claim(
    workdir: str | os.PathLike, config: Mapping[str, Any], *, free: Sequence[str] = ()
) -> Path:
    """Makes the folder, or takes it up again if it holds this very run.

    Args:
      workdir: may exist; parents are made.
      config: what defines the run, plain JSON values.
      free: keys that may differ from those of the run before.

    Raises:
      ValueError: if it holds another run, naming the first difference.
      OSError: if it can't be written.
    """
    workdir = Path(workdir)
    workdir.mkdir(parents=True, exist_ok=True)
    if (workdir / "config.json").exists():
        check(workdir, config, free=free)
    write_json(workdir / "config.json", config)
    write_json(workdir / "versions.json", versions())
    return workdir


def has_checkpoint(workdir: str | os.PathLike) -> bool:
    """Whether a run in the folder has a state to go on from."""
    return any(path.name.isdecimal() for path in Path(workdir, "checkpoints").glob("*"))


def check(
    workdir: str | os.PathLike, config: Mapping[str, Any], *, free: Sequence[str] = ()
) -> Path:
    """Makes sure that a folder holds the run that this config describes.

    Raises:
      ValueError: if it holds none, or another one; names the first difference.
    """
    workdir = Path(workdir)
    if not (workdir / "config.json").exists():
        raise ValueError(f"--workdir={workdir}: there is no run (no config.json in it)")
    old = read_json(workdir / "config.json")
    new = json.loads(json.dumps(config))
    for key in sorted((old.keys() | new.keys()) - set(free)):
        if old.get(key) != new.get(key):
            raise ValueError(
                f"{workdir} holds a run with {key}={_plain(old.get(key))}, not "
                f"{_plain(new.get(key))}: set another --workdir, or repeat that run's flags "
                f"(--flagfile={workdir / 'flags.txt'})"
            )
    return workdir


def is_writer() -> bool:
    """Whether this process is the one that writes."""
    return jax.process_index() == 0


def _plain(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that numbers depend on, and the device."""
    found = {name: importlib.metadata.version(name) for name in PACKAGES}
    device = jax.devices()[0]
    return {"python": platform.python_version(), **found, "device": device.device_kind}


def write_json(path: Path, value: Any) -> None:
    """Writes a file that is either the old one or complete, whenever the process dies."""
    if not is_writer():
        return
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(value, indent=1) + "\n")
    temporary.replace(path)


def read_json(path: Path) -> Any:
    """What a JSON file holds.

    Raises:
      ValueError: if it is not JSON.
    """
    try:
        return json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is not valid JSON ({error}): delete it") from error


def read_metrics(workdir: Path) -> list[dict[str, Any]]:
    """The lines of `metrics.jsonl`, an unfinished last one left out."""
    path = workdir / "metrics.jsonl"
    if not path.exists():
        return []
    rows = []
    for line in path.read_text().splitlines():
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return rows


def write_metrics(workdir: Path, rows: list[dict[str, Any]]) -> None:
    """Writes all lines of `metrics.jsonl`, complete or not at all."""
    if not is_writer():
        return
    path = workdir / "metrics.jsonl"
    temporary = path.with_suffix(".tmp")
    temporary.write_text("".join(json.dumps(row) + "\n" for row in rows))
    temporary.replace(path)


def write_samples(workdir: Path, samples: Mapping[str, np.ndarray]) -> None:
    """Writes images, labels and predictions for the report's pictures."""
    if is_writer():
        np.savez_compressed(workdir / "samples.npz", **samples)
