"""Putting a data set on disk: once, by one process at a time, and wholly or not at all."""

import contextlib
import errno
import fcntl
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import tensorflow_datasets as tfds

FULL = (os.strerror(errno.ENOSPC), os.strerror(errno.EDQUOT))


def prepare(
    builder: tfds.core.DatasetBuilder,
    *,
    manual_dir: str | Path | None = None,
    bytes_needed: float = 0,
) -> None:
    """Downloads and prepares a data set unless that is done; a failure leaves nothing behind.

    Args:
      builder: of any config; its data_dir is where the set goes.
      manual_dir: folder of files that were fetched by hand; by default `downloads/manual` in the
        builder's data_dir.
      bytes_needed: about what the set takes on disk.

    Raises:
      ValueError: in one line, for a folder that is missing, or that another version of the builder
        or something else made.
      OSError: in one line, for a folder that can't be written or a full disk.
      Whatever the builder raises for the files that it reads.
    """
    folder, data_dir = Path(builder.data_dir), Path(builder.data_dir_root)
    if not folder.exists():
        if manual_dir is not None and not Path(manual_dir).is_dir():
            raise ValueError(f"--manual_dir={manual_dir}: there is no such folder")
        _refuse_other_versions(folder)
        with _alone_in(folder.parent, data_dir):
            # While this process waited, another may have done it.
            if not folder.exists():
                _make(builder, data_dir, manual_dir, bytes_needed)
    if not builder.is_prepared():
        raise ValueError(f"{folder} holds no data set: delete it, or set another --data_dir")
    builder.info.read_from_directory(builder.data_dir)


def _make(
    builder: tfds.core.DatasetBuilder,
    data_dir: Path,
    manual_dir: str | Path | None,
    bytes_needed: float,
) -> None:
    for killed in Path(builder.data_dir).parent.glob("incomplete.*"):
        shutil.rmtree(killed)
    _check_space(data_dir, bytes_needed)
    with _cleaned_up_on_failure(data_dir, "downloads", builder.name):
        builder.download_and_prepare(
            download_config=tfds.download.DownloadConfig(
                manual_dir=manual_dir, try_download_gcs=False
            )
        )


def _refuse_other_versions(folder: Path) -> None:
    others = sorted(path.name for path in folder.parent.glob("[0-9]*.*.*") if path.is_dir())
    if others:
        raise ValueError(
            f"{folder.parent} was prepared by version {', '.join(others)} of the builder, this one "
            f"is {folder.name}: delete that folder, or set another --data_dir"
        )


@contextlib.contextmanager
def _alone_in(folder: Path, data_dir: Path) -> Iterator[None]:
    """Makes the folder and keeps other processes out; removes what it made and is still empty."""
    new = [path for path in (folder, *folder.absolute().parents) if not path.exists()]
    lock = folder / "lock"
    with contextlib.ExitStack() as at_the_end:
        at_the_end.callback(_remove_empty, new)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            file = at_the_end.enter_context(lock.open("w"))
        except OSError as error:
            raise OSError(
                f"can't write to {data_dir} ({error.strerror}): choose another --data_dir"
            ) from error
        _wait_for(file.fileno(), folder)
        at_the_end.callback(lock.unlink, missing_ok=True)
        yield


def _wait_for(lock: int, folder: Path) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        print(f"waiting for another process that prepares {folder}")
        fcntl.flock(lock, fcntl.LOCK_EX)
    except OSError:
        # Some network file systems have no locks: there it is left to the user.
        pass


def _check_space(data_dir: Path, needed: float) -> None:
    free = shutil.disk_usage(data_dir).free
    if free < needed:
        raise OSError(
            f"{data_dir} has {free / 1e6:,.0f} MB free and the data set needs about "
            f"{needed / 1e6:,.0f} MB: free some space or choose another --data_dir"
        )


@contextlib.contextmanager
def _cleaned_up_on_failure(data_dir: Path, *subfolders: str) -> Iterator[None]:
    """Removes the partial downloads and empty folders that came about in these subfolders.

    TFDS removes half-written records itself, and a complete download was verified, so it stays.
    """
    folders = [data_dir / name for name in subfolders]
    before = {path for folder in folders for path in _tree(folder)}
    try:
        yield
    except BaseException as error:
        found = [path for folder in folders for path in reversed(_tree(folder))]
        for path in found:
            if path in before:
                continue
            if path.is_dir():
                _remove_empty([path])
            elif ".tmp." in path.parent.name or path.parent.name == ".config":
                path.unlink()
        # The writer of the records reports it by a RuntimeError of many words.
        if any(words in str(error) for words in FULL):
            raise OSError(
                f"no space left on the disk of {data_dir}: free some space or choose another "
                "--data_dir"
            ) from error
        raise


def _remove_empty(folders: list[Path]) -> None:
    for folder in folders:
        # One that holds something, or was never made, is left.
        with contextlib.suppress(OSError):
            folder.rmdir()


def _tree(folder: Path) -> list[Path]:
    """The folder and all that is in it, parents before children."""
    return sorted([folder, *folder.rglob("*")]) if folder.exists() else []
