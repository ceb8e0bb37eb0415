"""The lock of a run's folder: one process at a time trains there."""

import contextlib
import errno
import os
import socket
import warnings
from collections.abc import Iterator
from pathlib import Path

import filelock
import jax
import numpy as np
from jax.experimental import multihost_utils

from mtl_jax import files
from mtl_jax.runs.workdir import is_writer

# Error codes of a file system without locks.
NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)


class InUse(ValueError):
    """Another process owns the folder."""


@contextlib.contextmanager
def own(workdir: str | os.PathLike) -> Iterator[Path]:
    """Owns a folder, created if it does not exist: one process at a time trains there.

    The lock of a process that dies is released. On a file system without locks, a file takes the
    place of the lock; a process that is killed on another host leaves it behind.

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
