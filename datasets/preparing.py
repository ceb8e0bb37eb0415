"""Preparing a data set on disk: once, by one process at a time, and completely or not at all."""

import contextlib
import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import filelock
import tensorflow_datasets as tfds

from datasets import prepared
from datasets.streaming import StreamingBuilder

FULL = (errno.ENOSPC, errno.EDQUOT)
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


def prepare(
    builder: StreamingBuilder,
    *,
    manual_dir: str | Path | None = None,
    bytes_per_pixel: float,
) -> None:
    """Downloads and prepares a data set if necessary; a failure leaves nothing behind.

    Args:
      builder: of any config with a height and width; its data_dir is where the set goes.
      manual_dir: folder of files that were downloaded by hand; by default `downloads/manual` in the
        builder's data_dir.
      bytes_per_pixel: approximate size of the set on disk per pixel of its images.

    Raises:
      ValueError: in one line, for a folder that is missing or damaged, or that another version of
        the builder or something else made.
      OSError: in one line, for a folder that can't be written or a full disk.
      Exception: any error of the builder about the files that it reads.
    """
    folder, data_dir = Path(builder.data_dir), Path(builder.data_dir_root)
    if not folder.exists():
        if manual_dir is not None and not Path(manual_dir).is_dir():
            what = "is not a folder" if Path(manual_dir).exists() else "there is no such folder"
            raise ValueError(f"`manual_dir`={manual_dir}: {what}")
        _refuse_other_versions(folder)
        with _alone_in(folder.parent, data_dir):
            # While this process waited, another may have done it.
            if not folder.exists():
                _make(builder, data_dir, manual_dir, bytes_per_pixel)
    if not builder.is_prepared():
        raise ValueError(f"{folder} holds no data set: delete it, or set another `data_dir`")
    prepared.check(builder)


def _make(
    builder: StreamingBuilder,
    data_dir: Path,
    manual_dir: str | Path | None,
    bytes_per_pixel: float,
) -> None:
    for killed in Path(builder.data_dir).parent.glob("incomplete.*"):
        shutil.rmtree(killed)
    config = builder.builder_config
    pixels = sum(builder.split_sizes().values()) * config.height * config.width
    _check_space(data_dir, pixels * bytes_per_pixel)
    with _cleaned_up(data_dir, "downloads", builder.name), _full_disk_reported(data_dir):
        builder.download_and_prepare(
            download_config=tfds.download.DownloadConfig(
                manual_dir=manual_dir, try_download_gcs=False
            )
        )


def _refuse_other_versions(folder: Path) -> None:
    others = sorted(path.name for path in folder.parent.glob("[0-9]*.*.*") if path.is_dir())
    if others:
        raise ValueError(
            f"{folder.parent} was prepared by version {', '.join(others)} of the builder, but this "
            f"is version {folder.name}: delete that folder, or set another `data_dir`"
        )


@contextlib.contextmanager
def _alone_in(folder: Path, data_dir: Path) -> Iterator[None]:
    """Makes the folder and keeps other processes out; removes the folders that it leaves empty."""
    folder, data_dir = folder.absolute(), data_dir.absolute()
    # A process that failed may have left empty folders in data_dir for this one to remove.
    own = [
        path for path in (folder, *folder.parents) if data_dir in path.parents or not path.exists()
    ]
    path = folder / "lock"
    lock = filelock.FileLock(path)
    with contextlib.ExitStack() as at_the_end:
        at_the_end.callback(_remove_empty, own)
        try:
            _lock(lock, folder)
        except OSError as error:
            raise OSError(
                f"can't write to {data_dir} ({error.strerror}): choose another `data_dir`"
            ) from error
        at_the_end.callback(lock.release)
        # Removed while it is held: a process that waits for it notices and makes a new one.
        at_the_end.callback(path.unlink, missing_ok=True)
        yield


def _lock(lock: filelock.FileLock, folder: Path) -> None:
    """Takes the lock; if it has to wait, it prints a line."""
    waiting = False
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(blocking=waiting)
        except FileNotFoundError:
            # The other process failed and removed the folder, too.
            continue
        except filelock.Timeout:
            print(f"waiting for another process that is preparing {folder}", flush=True)
            waiting = True
            continue
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
            print(f"{folder} is on a file system without locks: prepare it with a single process")
        return


def _check_space(data_dir: Path, needed: float) -> None:
    free = shutil.disk_usage(data_dir).free
    if free < needed:
        raise OSError(
            f"{data_dir} has {free / 1e6:,.0f} MB free and the data set needs about "
            f"{needed / 1e6:,.0f} MB: free some space or choose another `data_dir`"
        )


@contextlib.contextmanager
def _cleaned_up(data_dir: Path, *subfolders: str) -> Iterator[None]:
    """Removes empty folders and, on failure, partial downloads that were created in the subfolders.

    TFDS removes half-written records itself. A complete download has been verified, so it stays.
    """
    folders = [data_dir / name for name in subfolders]
    before = {path for folder in folders for path in _tree(folder)}
    try:
        yield
    except BaseException:
        for path in _new(folders, before):
            if path.is_file() and (".tmp." in path.parent.name or path.parent.name == ".config"):
                path.unlink()
        raise
    finally:
        _remove_empty([path for path in _new(folders, before) if path.is_dir()])


@contextlib.contextmanager
def _full_disk_reported(data_dir: Path) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        if not any(map(_is_full_disk, _causes(error))):
            raise
        raise OSError(
            f"no space left on the disk of {data_dir}: free some space or choose another `data_dir`"
        ) from error


def _is_full_disk(error: BaseException) -> bool:
    # The writers of records and of HDF5 put the text of the error number into their own messages.
    return (isinstance(error, OSError) and error.errno in FULL) or any(
        os.strerror(number) in str(error) for number in FULL
    )


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yields the error and its causes."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _remove_empty(folders: list[Path]) -> None:
    for folder in folders:
        # A folder that is not empty, or was never made, is left alone.
        with contextlib.suppress(OSError):
            folder.rmdir()


def _new(folders: list[Path], before: set[Path]) -> list[Path]:
    """Returns what is new in the folders, children before parents."""
    found = [path for folder in folders for path in reversed(_tree(folder))]
    return [path for path in found if path not in before]


def _tree(folder: Path) -> list[Path]:
    """Returns the folder and everything in it, parents before children."""
    return sorted([folder, *folder.rglob("*")]) if folder.exists() else []
