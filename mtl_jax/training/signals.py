"""Signals of the system that ask a run to stop: it saves itself first."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

import jax
from jax.experimental import multihost_utils

from mtl_jax import faults

# After the step of this number: whether to stop.
Stopping = Callable[[int], bool]


@contextmanager
def stop_on_signals() -> Iterator[Stopping]:
    """Gives a function that says after a step whether to stop: a signal to stop has come.

    Schedulers send SIGTERM before they kill. A second signal ends the program at once. Several
    processes agree on the step after which they stop, whichever of them got the signal; of SIGTERM
    they then expect one alone.
    """
    alone = jax.process_count() == 1
    event = threading.Event()
    stopping = (
        (lambda step: event.is_set()) if alone else multihost_utils.reached_preemption_sync_point
    )
    if threading.current_thread() is not threading.main_thread():
        yield stopping
        return

    def at_once() -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        if alone:
            for number in set(caught) - {signal.SIGINT}:
                signal.signal(number, signal.SIG_DFL)

    def first(number: int, frame: FrameType | None) -> None:
        at_once()
        event.set()
        if not alone:
            # JAX listens to SIGTERM, and tells the others.
            os.kill(os.getpid(), signal.SIGTERM)
        # A print could fall into another one, which Python forbids.
        name = signal.Signals(number).name
        with suppress(OSError):
            os.write(2, f"\n{name}: saving after this step; again: ends at once\n".encode())

    caught = faults.stop_signals() if alone else (signal.SIGINT,)
    before = [signal.signal(number, first) for number in caught]
    try:
        yield stopping
    finally:
        for number, handler in zip(caught, before, strict=True):
            signal.signal(number, handler)
