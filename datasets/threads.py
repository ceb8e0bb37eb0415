"""Work on the examples of a set by several threads, which finish them in order."""

import collections
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

# More would hold more examples in memory than the reading of files can use.
THREADS = min(16, os.cpu_count() or 1)
_WORKERS = ThreadPoolExecutor(THREADS, "prepare")


def in_order(function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """Yields `function(item)` for each item, computed by threads up to `THREADS` items in advance.

    The caller's thread takes the items. Decompressing, compressing and the arithmetic of NumPy let
    other threads run, which makes processes unnecessary. An error is raised in the place of its
    result, and ends the work.

    Args:
      function: must not call `in_order` itself, since its thread would wait for others.
    """
    waiting: collections.deque[Future[Result]] = collections.deque()
    try:
        for item in items:
            waiting.append(_WORKERS.submit(function, item))
            if len(waiting) > THREADS:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for job in waiting:
            job.cancel()
