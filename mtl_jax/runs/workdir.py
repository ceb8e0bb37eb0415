"""The folder of a run: its settings, measurements and package versions.

`config.json` holds what defines the run, `metrics.jsonl` one line per epoch, `result.json` the
final table, `samples.npz` predictions to look at, `versions.json` the packages. One process at a
time owns the folder and writes there; if several processes train together, it is the first.
"""

import contextlib
import errno
import importlib.metadata
import io
import itertools
import json
import math
import os
import platform
import socket
import warnings
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import filelock
import jax
import numpy as np
from jax.experimental import multihost_utils

from mtl_jax import files
from mtl_jax.runs.text import as_text

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "jaxopt", "numpy")

# What a folder holds only if a run has been there.
TRACES = ("metrics.jsonl", "result.json", "samples.npz", "codebook.npy")
FILES = ("config.json", "versions.json", "flags.txt", *TRACES)

# Error codes of a file system without locks.
NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)


class InUse(ValueError):
    """Another process owns the folder."""


@contextlib.contextmanager
def own(workdir: str | os.PathLike) -> Iterator[Path]:
    """Owns a folder, created if it does not exist: one process at a time trains there.

    The lock of a process that dies goes with it. Where a file system has no locks the presence of
    a file stands for one, which a process killed on another host leaves behind.

    Raises:
      InUse: at once, if another process owns the folder.
      OSError: if the folder can't be made or locked.
    """
    folder = Path(workdir)
    lock, fault = None, None
    if is_writer():
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lock = _lock(folder)
        except OSError as error:
            fault = error
    mine = not is_writer() or lock is not None
    if jax.process_count() > 1:
        # The other processes would wait for the one that is refused.
        mine = bool(multihost_utils.broadcast_one_to_all(np.int32(mine)))
    if fault is not None:
        reason = fault.strerror or fault
        raise OSError(f"`workdir`={folder}: it can't be made or locked ({reason})") from fault
    if not mine:
        raise InUse(_in_use(folder))
    if lock is None:
        yield folder
        return
    owner = folder / ".owner"
    # It is only read for a message.
    with contextlib.suppress(OSError):
        files.write(owner, f"{os.getpid()} {socket.gethostname()}\n")
    try:
        yield folder
    finally:
        with contextlib.suppress(OSError):
            owner.unlink(missing_ok=True)
        lock.release()


def _lock(folder: Path) -> filelock.BaseFileLock | None:
    """Takes the folder's lock; returns None if another process has it."""
    try:
        try:
            return _taken(filelock.FileLock(folder / ".lock"))
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
            return _taken(filelock.SoftFileLock(folder / ".lock.soft"))
    except filelock.Timeout:
        return None


def _taken(lock: filelock.BaseFileLock) -> filelock.BaseFileLock:
    with warnings.catch_warnings():
        # The library's own way around missing locks; `own` documents it.
        warnings.filterwarnings("ignore", message="flock not supported")
        lock.acquire(timeout=0)
    return lock


def _in_use(folder: Path) -> str:
    owner = "another process"
    with contextlib.suppress(OSError, ValueError):
        pid, host = (folder / ".owner").read_text(encoding="utf-8").split()
        owner = f"process {pid} on {host}"
    line = f"`workdir`={folder}: {owner} is training there; wait for it or set another `workdir`"
    # A lock of the system is an empty file.
    for left in (folder / ".lock", folder / ".lock.soft"):
        if left.exists() and left.stat().st_size:
            return f"{line} (if that process has died, delete {left})"
    return line


def check(
    workdir: str | os.PathLike,
    config: Mapping[str, Any],
    *,
    free: Collection[str] = (),
) -> Path:
    """Checks that a folder holds the run that this config describes, or none; writes nothing.

    Args:
      workdir: the run's folder.
      config: what defines the run, plain JSON values.
      free: keys that may differ.

    Raises:
      ValueError: if it holds another run, naming the first difference, or traces of one that
        nothing identifies.
    """
    workdir = Path(workdir)
    if _is_free(workdir):
        return workdir
    found = read_config(workdir, known=config)
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
        raise ValueError(f"`workdir`={workdir}: there is no run (no config.json in it)")
    try:
        found = read_json(path)
    except ValueError as error:
        raise ValueError(f"{error}: put a good copy there or set another `workdir`") from error
    foreign = sorted(found.keys() - set(found if known is None else known))
    if foreign:
        raise ValueError(
            f"{workdir} holds a run of another version of this program, whose config.json has "
            f"{', '.join(map(_printable, foreign[:3]))}: use that version, or set another `workdir`"
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
    """Refuses to take over what may be another run's."""
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


def shown(name: str, value: Any) -> str:
    """Returns the value of a setting in config.json as it is written on the command line."""
    size = name == "image_size" and isinstance(value, list)
    return _printable(as_text(tuple(value) if size else value))


def _printable(text: str) -> str:
    return text if text.isprintable() else repr(text)


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


def result_of(workdir: Path, *, step: int) -> dict[str, Any]:
    """Returns what `result.json` holds if it is of this step; nothing if not, or if it is damaged.

    Args:
      step: of the state whose result is wanted.
    """
    found = read_if_whole(workdir / "result.json")
    return found if found.get("step") == step else {}


def remove_result(workdir: Path) -> None:
    """Removes the result and the samples, which are out of date once the run continues."""
    if is_writer():
        for name in ("result.json", "samples.npz"):
            (workdir / name).unlink(missing_ok=True)


def read_metrics(workdir: Path) -> tuple[list[dict[str, Any]], list[str]]:
    """Returns the lines of `metrics.jsonl`, with NaN for a null among a group's numbers.

    Returns:
      The rows that can be read, and for each other line a phrase that says what is wrong with it.
      An incomplete last line, left by a killed process, is not an error.
    """
    try:
        content = (workdir / "metrics.jsonl").read_bytes()
    except FileNotFoundError:
        return [], []
    rows, faults = [], []
    lines = content.split(b"\n")
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = parse_object(line)
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


def write_metrics(workdir: Path, rows: list[dict[str, Any]]) -> None:
    """Writes all lines of `metrics.jsonl`, complete or not at all."""
    if is_writer():
        files.write(workdir / "metrics.jsonl", "".join(to_json(row) + "\n" for row in rows))


def set_metrics_aside(workdir: Path) -> Path:
    """Keeps a copy of a `metrics.jsonl` that is damaged before it is written again."""
    path = workdir / "metrics.jsonl"
    names = itertools.chain([""], (f"-{number}" for number in itertools.count(2)))
    candidates = (path.with_name(f"metrics.jsonl.damaged{name}") for name in names)
    aside = next(candidate for candidate in candidates if not candidate.exists())
    if is_writer():
        files.write(aside, path.read_bytes())
    return aside


def read_samples(workdir: Path) -> dict[str, np.ndarray]:
    """Returns what `samples.npz` holds; nothing if it is missing or damaged."""
    try:
        # NumPy leaves a file open that is not an archive.
        with np.load(io.BytesIO((workdir / "samples.npz").read_bytes())) as archive:
            return {name: archive[name] for name in archive.files}
    # A broken archive fails in as many ways as it has layers: zip, deflate, header and array.
    except Exception:
        return {}


def write_samples(workdir: Path, samples: Mapping[str, np.ndarray]) -> None:
    """Writes images, labels and predictions for the report's pictures."""
    if is_writer():
        content = io.BytesIO()
        arrays: dict[str, Any] = dict(samples)
        np.savez_compressed(content, **arrays)
        files.write(workdir / "samples.npz", content.getvalue())
