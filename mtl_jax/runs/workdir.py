"""The folder of a run: its settings, measurements and package versions.

`config.json` holds what defines the run, `metrics.jsonl` one line per epoch (see `metrics_file`),
`result.json` the final table, `evaluation.npz` what else a report draws of that evaluation,
`samples.npz` predictions to look at, `versions.json` the packages.
One process at a time owns the folder (see `lock`) and writes there; if several processes train
together, it is the first.
"""

import importlib.metadata
import io
import json
import math
import os
import platform
from collections.abc import Collection, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import jax
import numpy as np

from mtl_jax import files
from mtl_jax.runs.text import printable, shown

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "jaxopt", "numpy")

# Files that a folder holds only if a run has written there.
TRACES = ("metrics.jsonl", "result.json", "samples.npz", "evaluation.npz", "codebook.npy")
FILES = ("config.json", "versions.json", "flags.txt", *TRACES)


def check(
    workdir: str | os.PathLike,
    config: Mapping[str, Any],
    *,
    free: Collection[str] = (),
    defaults: Mapping[str, Any] = MappingProxyType({}),
) -> Path:
    """Checks that a folder holds the run that this config describes, or none; writes nothing.

    Args:
      workdir: the run's folder.
      config: what defines the run, plain JSON values.
      free: keys that may differ.
      defaults: values of keys that a config may lack.

    Raises:
      ValueError: if it holds another run, naming the first difference, or traces of one that
        nothing identifies.
    """
    workdir = Path(workdir)
    if _is_free(workdir):
        return workdir
    found = {**defaults, **read_config(workdir, known=config)}
    # Tuples become lists, as they do in the file.
    config = json.loads(to_json(config))
    for key in config:
        if key not in free and found.get(key) != config[key]:
            raise ValueError(
                f"{workdir} holds a run with `{key}`={shown(key, found.get(key))}, not "
                f"{shown(key, config[key])}: set another `workdir`, or use the settings in "
                f"{workdir / 'flags.txt'}"
            )
    return workdir


def read_config(workdir: Path, *, known: Collection[str] | None = None) -> dict[str, Any]:
    """Returns what `config.json` says of the run in a folder.

    Args:
      workdir: the run's folder.
      known: keys that it may have; None for any.

    Raises:
      ValueError: if the folder holds no run, one that nothing identifies, or one of another version
        of the program.
    """
    path = workdir / "config.json"
    if _is_free(workdir):
        raise ValueError(
            f"`workdir`={workdir}: there is no run in it (no config.json): give the folder of a run"
        )
    try:
        found = read_json(path)
    except ValueError as error:
        raise ValueError(f"{error}: put a good copy there or set another `workdir`") from error
    foreign = sorted(found.keys() - set(found if known is None else known))
    if foreign:
        raise ValueError(
            f"{workdir} holds a run of another version of this program, whose config.json has "
            f"{', '.join(map(printable, foreign[:3]))}: use that version, or set another `workdir`"
        )
    return found


def _is_free(workdir: Path) -> bool:
    """Returns whether a folder holds no run.

    Raises:
      ValueError: if it holds traces of one that nothing identifies, or something else in the place
        of a run's files.
    """
    for name in FILES:
        if (workdir / name).exists() and not (workdir / name).is_file():
            raise ValueError(
                f"{workdir / name} is not a file: move it away or set another `workdir`"
            )
    if (workdir / "checkpoints").exists() and not (workdir / "checkpoints").is_dir():
        raise ValueError(
            f"{workdir / 'checkpoints'} is a file where the checkpoints' folder belongs: move it "
            "away or set another `workdir`"
        )
    if (workdir / "config.json").exists():
        return False
    _refuse_unidentified(workdir)
    return True


def _refuse_unidentified(workdir: Path) -> None:
    """Refuses to take over files that may belong to another run."""
    traces = [name for name in TRACES if (workdir / name).exists()]
    traces += ["checkpoints"] if has_checkpoint(workdir) else []
    if traces:
        raise ValueError(
            f"{workdir} holds a run ({', '.join(traces)}) without the config.json that says which: "
            "put its config.json back or set another `workdir`"
        )


def write(workdir: Path, config: Mapping[str, Any]) -> None:
    """Writes config.json and versions.json.

    Raises:
      OSError: if the files can't be written, naming the file.
    """
    write_json(workdir / "config.json", config)
    write_json(workdir / "versions.json", versions())


def has_checkpoint(workdir: str | os.PathLike) -> bool:
    """Returns whether a run in the folder has a state to resume from."""
    return any(path.name.isdecimal() for path in Path(workdir, "checkpoints").glob("*"))


def is_writer() -> bool:
    """Returns whether this process is the one that writes."""
    return jax.process_index() == 0


def versions() -> dict[str, str]:
    """Returns the versions of Python and of the packages that numbers depend on, and the device."""
    found = {name: importlib.metadata.version(name) for name in PACKAGES}
    device = jax.devices()[0]
    return {"python": platform.python_version(), **found, "device": device.device_kind}


def to_json(value: Any, **options: Any) -> str:
    """Returns a value as JSON text; non-finite numbers, which JSON can't hold, become null."""
    return json.dumps(jsonable(value), allow_nan=False, **options)


def jsonable(value: Any) -> Any:
    """Returns a value as JSON can hold it: lists for tuples, None for non-finite numbers."""
    if isinstance(value, Mapping):
        return {key: jsonable(x) for key, x in value.items()}
    if isinstance(value, (list, tuple)):
        return [jsonable(x) for x in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_json(path: Path, value: Any) -> None:
    """Writes a file that is either the old one or complete, whenever the process dies."""
    if is_writer():
        files.write(path, to_json(value, indent=1) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """Returns the object in a JSON file.

    Raises:
      ValueError: if it holds anything else, naming the file.
      OSError: if it can't be read.
    """
    try:
        return parse_object(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path} is damaged ({error})") from error


def parse_object(content: bytes) -> dict[str, Any]:
    """Returns the object that JSON text describes.

    Raises:
      ValueError: if it is not UTF-8, not JSON, or JSON of something else.
    """
    try:
        value = json.loads(content.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise ValueError("not UTF-8 text") from error
    except RecursionError as error:
        raise ValueError("brackets nested too deeply") from error
    except ValueError as error:
        raise ValueError(f"no valid JSON: {error}") from error
    if not isinstance(value, dict):
        raise ValueError("no JSON object")
    return value


def read_if_whole(path: Path) -> dict[str, Any]:
    """Returns the object in a JSON file; an empty one if it is missing or damaged."""
    try:
        return read_json(path)
    except (ValueError, FileNotFoundError):
        return {}


def finished_epoch(workdir: Path) -> int:
    """Returns the epoch that `result.json` is of; 0 if there is none or it can't be used."""
    epoch = read_if_whole(workdir / "result.json").get("epoch")
    return max(epoch, 0) if isinstance(epoch, int) else 0


def has_finished(workdir: Path, *, epochs: int, patience: int) -> bool:
    """Returns whether `result.json` is that of a run of this length.

    Args:
      epochs: epochs of the run.
      patience: evaluations without a new best one that end it before; 0 if none do.
    """
    result = read_if_whole(workdir / "result.json")
    ended = result.get("patience")
    early = isinstance(ended, int) and 0 < patience <= ended
    return early or finished_epoch(workdir) >= epochs


def result_at(workdir: Path, *, step: int) -> dict[str, Any]:
    """Returns what `result.json` holds if it is of this step; nothing if not, or if it is damaged.

    Args:
      step: of the state whose result is wanted.
    """
    found = read_if_whole(workdir / "result.json")
    return found if found.get("step") == step else {}


def step_and_split(workdir: Path) -> tuple[int, str]:
    """Returns step and split of `result.json`; 0 and "" if there is none or it can't be used."""
    result = read_if_whole(workdir / "result.json")
    step, split = result.get("step"), result.get("split")
    return (step, split) if isinstance(step, int) and isinstance(split, str) else (0, "")


def remove_result(workdir: Path) -> None:
    """Removes the result and its arrays, which are out of date once the run continues."""
    if is_writer():
        for name in ("result.json", "samples.npz", "evaluation.npz"):
            (workdir / name).unlink(missing_ok=True)


def read_samples(workdir: Path) -> dict[str, np.ndarray]:
    """Returns what `samples.npz` holds; nothing if it is missing or damaged."""
    try:
        # NumPy leaves a file open that is not an archive.
        with np.load(io.BytesIO((workdir / "samples.npz").read_bytes())) as archive:
            return {name: archive[name] for name in archive.files}
    # A broken archive fails in as many ways as it has layers: zip, deflate, header and array.
    except Exception:
        return {}


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes a compressed `.npz` file, complete or not at all."""
    if is_writer():
        content = io.BytesIO()
        named: dict[str, Any] = dict(arrays)
        np.savez_compressed(content, **named)
        files.write(path, content.getvalue())
