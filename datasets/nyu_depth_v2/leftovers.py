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
def cleaned_up_on_failure(data_dir: Path, *subfolders: str) -> Iterator[None]:
    """Removes the partial downloads and empty folders that came about in a data_dir.

    TFDS removes half-written records itself, and a complete download was verified, so it stays.

    Args:
      data_dir: need not exist yet.
      subfolders: what in it to clean; nothing else is looked at.

    Raises:
      OSError: in one line, for a full disk; any other error passes through.
    """
    folders = [data_dir / name for name in subfolders]
    above = [path for path in (data_dir, *data_dir.absolute().parents) if not path.exists()]
    before = {path for folder in folders for path in _tree(folder)}
    try:
        yield
    except BaseException as error:
        found = [path for folder in folders for path in reversed(_tree(folder))]
        for path in found + above:
            if path not in before and path.exists():
                _remove_leftover(path)
        # The writer of the records reports it by a RuntimeError of many words.
        if "No space left" in str(error):
            raise OSError(
                f"no space left on the disk of {data_dir}: free some space or choose another "
                "data_dir"
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
