"""A setting's value as text."""

import csv
import io
from typing import Any


def as_text(value: Any) -> str:
    """Returns a value as it is written on the command line."""
    if isinstance(value, list):
        text = io.StringIO()
        csv.writer(text, lineterminator="").writerow(value)
        return text.getvalue()
    if isinstance(value, tuple):
        return "x".join(map(str, value))
    return str(value).lower() if isinstance(value, bool) else "" if value is None else str(value)


def shown(name: str, value: Any) -> str:
    """Returns the value of a setting in config.json as it is written on the command line."""
    size = name == "image_size" and isinstance(value, list)
    return printable(as_text(tuple(value) if size else value))


def printable(text: str) -> str:
    """Returns a text without characters that a terminal does not show."""
    return text if text.isprintable() else repr(text)
