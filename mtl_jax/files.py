"""Checks of paths, and files that are written atomically.

A file is either the old one or the new one, whenever the process dies.
"""

import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO


def write(path: str | os.PathLike, content: str | bytes) -> None:
    """Writes a temporary file and then renames it, so that no reader sees a partial file.

    Args:
      path: path of the file; its folder must exist.
      content: content of the whole file; text is encoded as UTF-8.

    Raises:
      OSError: if it can't be written, naming the file; the old file is then untouched.
    """
    with replacing(path) as file:
        file.write(content.encode() if isinstance(content, str) else content)


@contextmanager
def replacing(path: str | os.PathLike) -> Iterator[BinaryIO]:
    """Opens a temporary file to write to, which becomes the file `path` at the end.

    Raises:
      OSError: as `write`.
    """
    path = Path(path)
    temporary = path.with_name(f"{path.name}.tmp")
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            # Without this, a power failure could leave the new name without its content.
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        # A full disk is reported without the name of the file.
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def check_name(name: str, text: str) -> Path:
    """Returns the path in a text, with ~ expanded.

    Args:
      name: name of the argument or variable, for the error.
      text: path of a file or folder.

    Raises:
      ValueError: for an empty text, an unknown user or an address of a network.
    """
    if not text:
        raise ValueError(f"{name}: a name is empty")
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]*:/", text):
        raise ValueError(
            f"{name}={text}: addresses are not supported; give a folder of a mounted file "
            "system (gcsfuse and mountpoint-s3 mount buckets)"
        )
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        raise ValueError(f"{name}={text}: there is no such user") from error


def check_no_file(name: str, folder: Path) -> None:
    """Checks that a path that should be a folder is one, if it exists.

    Raises:
      ValueError: if it is a file.
    """
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{name}={folder} is a file: give a folder")


def check_writable(name: str, folder: Path) -> None:
    """Checks that files can be written to a folder, or that it can be made; writes nothing.

    Args:
      name: name of the argument, for the error.
      folder: the folder, which need not exist.

    Raises:
      ValueError: if it is a file or can't be written.
    """
    try:
        check_no_file(name, folder)
        # The folder is not made here, since several processes may check it at once.
        nearest = next(path for path in (folder, *folder.absolute().parents) if path.exists())
        with tempfile.TemporaryFile(dir=nearest):
            pass
    except OSError as error:
        raise ValueError(
            f"{name}={folder}: {error.strerror}: choose a folder that can be written"
        ) from error
