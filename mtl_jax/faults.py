"""Faults of the machine and its environment, each reported in one line that says what to do.

It imports only the standard library: it must work where the import of JAX fails, as it does with a
broken variable in the environment.
"""

import _thread
import errno
import io
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any, NoReturn

# Advice for errors of the operating system.
ADVICE = {
    errno.ENOSPC: "free some space and repeat the command",
    errno.EDQUOT: "free some of your quota and repeat the command",
    errno.EROFS: "choose a folder on a disk that can be written",
    errno.EACCES: "choose another path, or change its permissions",
    errno.EPERM: "choose another path, or change its permissions",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.ENOTDIR: "a part of this path is a file; choose another one",
    errno.EIO: "the disk or the network file system failed; repeat the command",
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
}
OUT_OF_MEMORY = ("RESOURCE_EXHAUSTED", "out of memory", "bad_alloc")
# Creates the client that reads XLA_FLAGS, and nothing else.
READ_XLA_FLAGS = "from jaxlib import xla_client; xla_client.make_cpu_client()"
LONGEST = 200
# Seconds until a dropped interruption is delivered again; its cause is over by then.
DELAY = 0.05

# Printed for each write that tensorstore abandons.
GIVEN_UP = "Event loop is closed"

_dropped = threading.Event()


class Stopped(Exception):
    """The run was asked to stop and has saved a checkpoint."""


def explain(error: BaseException) -> str:
    """Returns what happened and what to do about it in one line; settings are in backticks."""
    text = " ".join(str(error).split())
    if isinstance(error, KeyboardInterrupt):
        return "interrupted; the same command continues a training run from its last checkpoint"
    if isinstance(error, ImportError):
        if isinstance(error.__cause__, ImportError):
            # The package adds advice for those who import it.
            return explain(error.__cause__)
        return (
            f"{text}: activate the environment that has it (. .venv/bin/activate), or install it "
            "by pip install -e '.[train]' in the clone"
        )
    if isinstance(error, MemoryError) or any(x.lower() in text.lower() for x in OUT_OF_MEMORY):
        return (
            f"out of memory ({_short(text) or 'of this machine'}): lower `batch_size`, "
            "`eval_batch_size` or `image_size`, or set `precision`=bfloat16 or a smaller `model`"
        )
    if isinstance(error, OSError) and error.errno is not None:
        where = f"{error.filename}: " if error.filename else ""
        advice = ADVICE.get(error.errno)
        return f"{where}{os.strerror(error.errno)}" + (f": {advice}" if advice else "")
    if isinstance(error, (ValueError, OSError, FloatingPointError)) and text:
        return text
    return f"{type(error).__name__}: {_short(text)} (`debug` shows where)"


def prepare_process(name: str) -> None:
    """Makes a program that is about to import JAX report an error in one line.

    Args:
      name: name of the program, with which the line begins.
    """
    # A stream may be closed, and a run must not end because a terminal can't show a degree sign.
    sys.stdout = sys.stdout or open(os.devnull, "w")  # noqa: SIM115
    sys.stderr = sys.stderr or open(os.devnull, "w")  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    # Figures are drawn without a window; matplotlib need not look for a GUI backend.
    os.environ["MPLBACKEND"] = "agg"
    # Output of C++ about a fault comes before the line that explains it.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

    def report(
        kind: type[BaseException], error: BaseException, trace: TracebackType | None
    ) -> None:
        if str(error) == GIVEN_UP:
            return
        broken = isinstance(error, ValueError)
        hint = " (a variable of the environment, such as JAX_PLATFORMS, is wrong)" if broken else ""
        print(f"{name}: {explain(error)}{hint}", file=sys.stderr, flush=True)

    def end(number: int, frame: FrameType | None) -> None:
        # In the middle of an import an exception could be taken for a broken package.
        end_at_once(f"{name}: {explain(KeyboardInterrupt())}")

    for number in stop_signals():
        signal.signal(number, end)
    sys.excepthook = report
    sys.unraisablehook = _interrupt_again


def end_at_once(line: str) -> NoReturn:
    """Prints the line and ends the process with exit status 1, without shutting Python down.

    A library may still be at work in a thread of its own, and then crash with Python's shutdown.
    """
    print(line, file=sys.stderr, flush=True)
    os._exit(1)


def silence_threads() -> None:
    """Leaves errors in other threads to the main thread, where they are raised again."""
    threading.excepthook = lambda args: None


def check_xla_flags() -> None:
    """Makes sure that XLA can read the variable XLA_FLAGS, which would otherwise end the process.

    Raises:
      ValueError: if it can't.
    """
    value = os.environ.get("XLA_FLAGS", "").strip()
    if not value:
        return
    tried = subprocess.run([sys.executable, "-c", READ_XLA_FLAGS], capture_output=True, text=True)
    # XLA exits without an exception. A traceback would mean that this check is out of date.
    if tried.returncode and "Traceback" not in tried.stderr:
        raise ValueError(f"XLA_FLAGS={value}: XLA can't read it; correct the variable or unset it")


def stop_signals() -> tuple[signal.Signals, ...]:
    """Returns the signals that ask to stop: SIGINT, SIGTERM, and SIGHUP unless nohup ignores it."""
    ignored = signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    return (signal.SIGINT, signal.SIGTERM, *(() if ignored else (signal.SIGHUP,)))


@contextmanager
def interruptible() -> Iterator[None]:
    """Makes a signal that asks to stop raise KeyboardInterrupt; a second one ends the process."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    signals = stop_signals()
    before = {number: signal.getsignal(number) for number in signals}
    interrupted = threading.Event()

    def interrupt(number: int, frame: FrameType | None) -> None:
        if interrupted.is_set() and not _dropped.is_set():
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        interrupted.set()
        _dropped.clear()
        raise KeyboardInterrupt

    try:
        for number in signals:
            signal.signal(number, interrupt)
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def no_interruption_lost() -> Iterator[None]:
    """Delivers an interruption again if it comes where Python can't raise it.

    That is in a callback of the garbage collector. JAX has one, which runs often while modules are
    imported and programs are traced, so many interruptions in those seconds would be lost.
    """
    before = sys.unraisablehook
    sys.unraisablehook = _interrupt_again
    try:
        yield
    finally:
        sys.unraisablehook = before


def _interrupt_again(unraisable: Any) -> None:
    if str(unraisable.exc_value) == GIVEN_UP:
        return
    numbers = {KeyboardInterrupt: signal.SIGINT, SystemExit: signal.SIGTERM}
    number = numbers.get(type(unraisable.exc_value))
    if number is None:
        sys.__unraisablehook__(unraisable)
        return
    _dropped.set()
    threading.Timer(DELAY, _thread.interrupt_main, [number]).start()


def _short(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."
