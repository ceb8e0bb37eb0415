"""The memory of a process, kept between the steps of a training run."""

import ctypes
import os
import platform

# Parameter of `mallopt` -> value, from glibc's malloc.h.
SETTINGS = (
    (-8, 1),  # M_ARENA_MAX: of several heaps, all but the first are too small for such blocks.
    (-4, 0),  # M_MMAP_MAX: no block is mapped alone.
    (-1, -1),  # M_TRIM_THRESHOLD: freed memory is never returned.
)


def keep_freed() -> bool:
    """Keeps memory that is freed for the next allocation, instead of returning it to the system.

    XLA allocates the temporary arrays of a step as one block on a CPU and frees it after the step.
    glibc maps blocks of that size anew each time, and Linux fills them with zeros page by page when
    they are first touched. It must be called before JAX starts its threads.

    Returns:
      Whether it did. It leaves other C libraries alone, and a process whose environment has
      settings of glibc's own, such as MALLOC_ARENA_MAX.
    """
    own = [name for name in os.environ if name.startswith("MALLOC_") or name == "GLIBC_TUNABLES"]
    if own or platform.libc_ver()[0] != "glibc":
        return False
    library = ctypes.CDLL(None)
    return all([library.mallopt(parameter, value) for parameter, value in SETTINGS])
