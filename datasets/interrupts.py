"""Ctrl-C while a data set is prepared, which must not be lost."""

import contextlib
import sys
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def kept() -> Iterator[Callable[[], None]]:
    """Keeps the interruptions that Python drops, and raises them at the next chance.

    An exception that arises in a destructor or a callback of the garbage collector can't be
    raised, so Python prints and forgets it. JAX has such a callback, which runs often while it
    traces and compiles: that is where most interruptions arrive in those seconds.

    Yields:
      A function that raises what was dropped since, if anything: KeyboardInterrupt, SystemExit or
      another exception that is no Exception.
    """
    dropped: list[BaseException] = []
    report = sys.unraisablehook

    def keep(unraisable) -> None:
        if isinstance(unraisable.exc_value, Exception):
            report(unraisable)
        else:
            dropped.append(unraisable.exc_value)

    def raise_dropped() -> None:
        if dropped:
            raise dropped.pop()

    sys.unraisablehook = keep
    try:
        yield raise_dropped
        raise_dropped()
    finally:
        sys.unraisablehook = report
