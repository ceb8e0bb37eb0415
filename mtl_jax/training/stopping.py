"""Signals of the system that ask a run to stop; it saves its state first."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

import jax
from jax.experimental import multihost_utils

from mtl_jax import faults

# The number of a step -> whether to stop after it.
Stopping = Callable[[int], bool]


@contextmanager
def stop_on_signals() -> Iterator[Stopping]:
    """Yields a function that returns, after a step, whether a signal to stop has arrived.

    Schedulers send SIGTERM before they kill. A second signal ends the program at once. Several
    processes agree on the step after which they stop, even if only one of them got the signal; they
    expect no second SIGTERM.
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
            # JAX catches SIGTERM and notifies the other processes.
            os.kill(os.getpid(), signal.SIGTERM)
        # Python forbids a print in a handler that interrupts another print.
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
