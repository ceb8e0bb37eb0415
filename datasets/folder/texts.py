"""Reads the text files of a folder."""

from collections.abc import Iterator
from pathlib import Path


def read(path: Path) -> str:
    """Returns the text of a file.

    Raises:
      ValueError: in one line, if it can't be read or is not text.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ValueError(f"{path} can't be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not text in UTF-8") from error


def rows(path: Path) -> Iterator[tuple[str, list[str]]]:
    """Yields the place, such as `palette.txt: line 3`, and the words of each line that has any.

    Words are separated by spaces, tabs or commas. What follows a `#` at the beginning of a line is
    a comment.

    Raises:
      ValueError: as `read`.
    """
    for number, line in enumerate(read(path).splitlines(), start=1):
        words = line.replace(",", " ").split()
        if words and not words[0].startswith("#"):
            yield f"{path}: line {number}", words
