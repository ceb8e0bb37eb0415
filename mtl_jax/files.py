"""Files that are always whole: either the old one or the new one, whenever the process dies."""

import os
from pathlib import Path


def write(path: str | os.PathLike, content: str | bytes) -> None:
    """Writes a file next to its place and then renames it, so that no reader sees a part of it.

    Args:
      path: of the file; its folder must exist. Text is encoded as UTF-8.
      content: of the whole file.

    Raises:
      OSError: if it can't be written, naming the file; the old file is then untouched.
    """
    path = Path(path)
    temporary = path.with_name(f"{path.name}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            # Without it a machine that loses power could be left with the new name and no content.
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        # A full disk is reported without the name of the file.
        temporary.unlink(missing_ok=True)
        raise OSError(error.errno, os.strerror(error.errno), str(path)) from error
