"""Keeping a disk clean when the preparation of a data set fails."""

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path


def check_space(folder: Path, needed: float) -> None:
    """Checks that the disk of a folder, which need not exist yet, has this many bytes free.

    Raises:
      OSError: in one line, if it has not.
    """
    existing = next(path for path in (folder, *folder.absolute().parents) if path.is_dir())
    free = shutil.disk_usage(existing).free
    if free < needed:
        raise OSError(
            f"{folder} has {free / 1e9:.1f} GB free and the data set needs about "
            f"{needed / 1e9:.1f} GB: free some space or choose another data_dir"
        )


@contextlib.contextmanager
def cleaned_up_on_failure(*folders: Path) -> Iterator[None]:
    """Removes the partial downloads and empty folders that came about in `folders`.

    TFDS removes half-written records itself, and a complete download was verified, so it stays.

    Raises:
      OSError: in one line, for a full disk; any other error passes through.
    """
    before = {path for folder in folders for path in _tree(folder)}
    try:
        yield
    except BaseException as error:
        for folder in folders:
            for path in reversed(_tree(folder)):
                if path not in before:
                    _remove_leftover(path)
        # The writer of the records reports it by a RuntimeError of many words.
        if "No space left" in str(error):
            raise OSError(
                f"no space left on the disk of {folders[0].parent}: free some space or choose "
                "another data_dir"
            ) from error
        raise


def _remove_leftover(path: Path) -> None:
    if path.is_dir():
        # A folder that holds something complete stays.
        with contextlib.suppress(OSError):
            path.rmdir()
    elif ".tmp." in path.parent.name or path.parent.name == ".config":
        path.unlink()


def _tree(folder: Path) -> list[Path]:
    """The folder and all that is in it, parents before children."""
    return sorted([folder, *folder.rglob("*")]) if folder.exists() else []
