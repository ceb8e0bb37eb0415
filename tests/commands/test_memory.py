"""Whether freed memory is kept: by the page faults of a process that touches it again."""

import os
import platform
import subprocess
import sys

import pytest

from mtl_jax.commands import memory

# Faults of a second block of the same size, allocated in a thread as XLA does.
CODE = """
import ctypes, resource, sys, threading
from mtl_jax.commands import memory

SIZE = 100 * 2**20
library = ctypes.CDLL(None)
library.malloc.restype = ctypes.c_void_p
library.malloc.argtypes = [ctypes.c_size_t]
library.free.argtypes = [ctypes.c_void_p]

def touch():
    block = library.malloc(SIZE)
    ctypes.memset(block, 1, SIZE)
    library.free(block)

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

kept = memory.keep_freed()
def run():
    touch()
    before = faults()
    touch()
    print(kept, faults() - before)

thread = threading.Thread(target=run)
thread.start()
thread.join()
"""


def outcome(**environment: str) -> tuple[bool, int]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    clean.pop("GLIBC_TUNABLES", None)
    command = [sys.executable, "-c", CODE]
    done = subprocess.run(command, env=clean | environment, capture_output=True, text=True)
    assert not done.stderr
    kept, faults = done.stdout.split()
    return kept == "True", int(faults)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has these settings")
def test_freed_blocks_are_used_again():
    kept, faults = outcome()
    assert kept and faults < 100


def test_settings_of_the_user_stay():
    kept, faults = outcome(MALLOC_ARENA_MAX="3")
    assert not kept and faults > 1000


def test_other_c_libraries_are_left_alone(monkeypatch):
    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    monkeypatch.setattr(memory.ctypes, "CDLL", None)
    assert not memory.keep_freed()
