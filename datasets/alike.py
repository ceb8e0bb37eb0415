"""Problems of one kind, which hundreds of files may have, in one line."""

import re
from collections.abc import Iterable

# Up to this number of problems of one kind have a line each.
MOST = 6
# If there are more, their line names this number of files.
NAMED = 3
# The name of a file, or of an example, and what follows it.
PARTS = re.compile(r"(.+?\.\w{3,4}|\w+ example \d+)(?=[ :,])(.*)")
NUMBER = re.compile(r"\d[\d.,]*")


def lines(problems: Iterable[str], source: str) -> list[str]:
    """Returns lines for the problems in their order; many of one kind share a line.

    Problems are of one kind if they differ only in the names of their files and in numbers.

    Args:
      problems: each with the name of a file or an example before it.
      source: folder of the files, which is left out of the names of the others.
    """
    kinds: dict[str, list[tuple[str, str]]] = {}
    for problem in problems:
        found = PARTS.fullmatch(problem)
        name, phrase = found.groups() if found else (problem, problem)
        kinds.setdefault(NUMBER.sub("#", phrase), []).append((name, problem))
    return [line for alike in kinds.values() for line in _lines(alike, source)]


def _lines(alike: list[tuple[str, str]], source: str) -> list[str]:
    """Returns the lines for problems of one kind, pairs of the name of a file and the problem."""
    if len(alike) <= MOST:
        return [problem for _, problem in alike]
    names = [name.removeprefix(source).lstrip("/") for name, _ in alike[1:NAMED]]
    others = len(alike) - NAMED
    return [f"{alike[0][1]}; likewise {', '.join(names)} and {others:,} more"]
