"""What a benchmark found, as files: a page of Markdown, and the same as JSON."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mtl_jax import files
from mtl_jax.runs import workdir


def write(folder: Path, name: str, text: str, facts: Mapping[str, Any]) -> None:
    """Writes NAME.json and NAME.md.

    Args:
      folder: created if it does not exist.
      name: name of the files.
      text: the page.
      facts: plain JSON values; the versions of the packages are added.

    Raises:
      OSError: if a file can't be written, naming it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    workdir.write_json(folder / f"{name}.json", {**facts, "versions": workdir.versions()})
    files.write(folder / f"{name}.md", text)
