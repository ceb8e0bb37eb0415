"""Ctrl-C and SIGTERM, which must not be lost while a data set is prepared.

An exception in a destructor or in a callback of the garbage collector can't be raised, so Python
prints it and goes on. JAX has such a callback, which runs often while modules are imported and
programs traced: a good part of the interruptions of those seconds ended there.
"""

import _thread
import contextlib
import signal
import sys
import threading
from collections.abc import Callable, Iterator

# Seconds until an interruption is tried again: the callback is over by then.
DELAY = 0.05


def keep() -> Callable[[], None]:
    """From now on, a KeyboardInterrupt or SystemExit that Python drops is delivered again.

    It needs nothing but Python, so that a program can call it before it imports JAX.

    Returns:
      A function that ends this.
    """
    report = sys.unraisablehook

    def deliver_again(unraisable) -> None:
        if isinstance(unraisable.exc_value, KeyboardInterrupt):
            number = signal.SIGINT
        elif isinstance(unraisable.exc_value, SystemExit):
            number = signal.SIGTERM
        else:
            report(unraisable)
            return
        threading.Timer(DELAY, _thread.interrupt_main, [number]).start()

    def end() -> None:
        sys.unraisablehook = report

    sys.unraisablehook = deliver_again
    return end


@contextlib.contextmanager
def kept() -> Iterator[None]:
    """Does as `keep` within a block."""
    end = keep()
    try:
        yield
    finally:
        end()
