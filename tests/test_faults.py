"""Faults of the environment: one line that says what to do."""

import errno
import os
import signal
import subprocess
import sys

import pytest

from mtl_jax import faults


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(errno.ENOSPC, "x", "/a/b"), ["/a/b: No space left on device", "free some space"]),
        (OSError(errno.EROFS, "x", "/a/b"), ["/a/b", "can be written"]),
        (OSError("can't download it"), ["can't download it"]),
        (ValueError("two\nlines"), ["two lines"]),
        (RuntimeError("RESOURCE_EXHAUSTED: Out of memory on device"), ["out of memory", "`batch"]),
        (MemoryError(), ["out of memory (of this machine)", "`batch_size`"]),
        (ModuleNotFoundError("No module named 'x'"), ["'x'", "pip install"]),
        (KeyError("step"), ["KeyError", "`debug`"]),
        (KeyboardInterrupt(), ["interrupted", "the same command continues a training run"]),
    ],
)
def test_an_error_is_explained_in_one_line(error, words):
    text = faults.explain(error)
    assert "\n" not in text
    for word in words:
        assert word in text


@pytest.mark.parametrize("value", ["--nonsense", "--xla_force_host_platform_device_count=abc"])
def test_xla_flags_that_would_end_the_process_are_refused(value, monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", value)
    with pytest.raises(ValueError, match="XLA_FLAGS=.*correct the variable"):
        faults.check_xla_flags()


@pytest.mark.parametrize("value", ["", "--xla_force_host_platform_device_count=2"])
def test_good_xla_flags_pass(value, monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", value)
    faults.check_xla_flags()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_interrupts_once_and_the_handlers_come_back(number):
    before = signal.getsignal(number)
    with pytest.raises(KeyboardInterrupt), faults.interruptible():
        os.kill(os.getpid(), number)
        signal.sigtimedwait([], 1.0)
    assert signal.getsignal(number) == before


def test_a_second_signal_ends_the_process_at_once():
    code = """
import os, signal
from mtl_jax import faults
with faults.interruptible():
    try:
        os.kill(os.getpid(), signal.SIGINT)
    except KeyboardInterrupt:
        os.kill(os.getpid(), signal.SIGINT)
        print("still here")
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ended.returncode == -signal.SIGINT
    assert not ended.stdout


def test_an_interruption_that_python_drops_is_delivered_again():
    code = """
import gc, os, signal, sys, time
from mtl_jax import faults
faults.prepare_process("x")

def drop(phase, info):
    gc.callbacks.remove(drop)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(0.01)

with faults.interruptible():
    try:
        gc.callbacks.append(drop)
        gc.collect()
        # Python interrupts between two calls.
        for _ in range(1000):
            time.sleep(0.01)
    except KeyboardInterrupt:
        print("interrupted")
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout == "interrupted\n"


def test_what_fails_while_importing_is_one_line_that_names_the_environment():
    ended = subprocess.run(
        [sys.executable, "launch.py", "--help"],
        env={**os.environ, "JAX_ENABLE_X64": "maybe"},
        capture_output=True, text=True,
    )  # fmt: skip
    assert ended.returncode == 1
    (line,) = ended.stderr.splitlines()
    assert line.startswith("launch.py: ")
    assert "JAX_ENABLE_X64" in line


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interruption_while_importing_is_one_line_with_exit_status_1(number):
    code = f"""
import os, signal
signal.signal({int(number)}, signal.SIG_DFL)
from mtl_jax import faults
faults.prepare_process("x")
os.kill(os.getpid(), {int(number)})
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ended.returncode == 1
    assert ended.stderr.startswith("x: interrupted; ")
    assert ended.stderr.count("\n") == 1


def test_an_interrupted_program_ends_without_shutting_python_down():
    code = """
import atexit, sys
sys.argv = ["launch.py"]
import launch

def evaluate(args):
    atexit.register(print, "shut down")
    print("evaluating")
    raise KeyboardInterrupt

launch.evaluate, launch.settle = evaluate, lambda args: args
launch.parse_flags(["launch.py", "--mode=evaluate", "--workdir=none"])
launch.main(["launch.py"])
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ended.returncode == 1
    assert ended.stdout == "evaluating\n"
    assert ended.stderr.startswith("launch.py: interrupted; ")
    assert ended.stderr.count("\n") == 1


def test_a_hangup_that_is_ignored_stays_so():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert signal.SIGHUP not in faults.stop_signals()
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        assert signal.SIGHUP in faults.stop_signals()
    finally:
        signal.signal(signal.SIGHUP, before)


def test_closed_streams_are_not_a_fault():
    code = "from mtl_jax import faults; faults.prepare_process('x'); print(1)"
    ended = subprocess.run([sys.executable, "-c", f"import sys; sys.stdout = None; {code}"])
    assert ended.returncode == 0
