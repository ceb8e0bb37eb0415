"""What the documents hold: blocks of code, commands, flags and links."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted((ROOT / "datasets").rglob("*.md")),
]


def name(page: Path) -> str:
    """Returns the page's path in the repository."""
    return str(page.relative_to(ROOT))


def blocks(page: Path, language: str) -> list[str]:
    """Returns the page's blocks of code in a language."""
    text = page.read_text(encoding="utf-8")
    return re.findall(rf"```{language}\n(.*?)```", text, flags=re.DOTALL)


def commands(page: Path) -> Iterator[list[str]]:
    """Yields the words of each command in the page's blocks of shell."""
    for block in blocks(page, "sh"):
        for line in block.replace("\\\n", " ").splitlines():
            for command in line.split("&&"):
                if words := shlex.split(command, comments=True):
                    yield words


def launched(page: Path) -> Iterator[list[str]]:
    """Yields the flags of each `python launch.py` in blocks and in the text."""
    for words in commands(page):
        if words[:2] == ["python", "launch.py"]:
            yield words[2:]
    for code in inline(page):
        if code.startswith("python launch.py "):
            yield shlex.split(code)[2:]


def inline(page: Path) -> list[str]:
    """Returns the page's inline code."""
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    return re.findall(r"`([^`\n]+)`", text)


def links(page: Path) -> list[str]:
    """Returns the targets of the page's links and pictures in the repository."""
    return re.findall(r"\]\((?!https?:)([^)]+)\)", page.read_text(encoding="utf-8"))


def anchors(page: Path) -> set[str]:
    """Returns the anchors of the page's headings, as GitHub and the site make them."""
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    headings = re.findall(r"^#+ (.*)$", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
