"""Compiled programs that are kept in a folder, so that later runs need not compile them again.

JAX names a program by what it computes and the versions of its libraries. The default folder has a
part for each kind of processor, whose instructions a program may use, since hosts of different
kinds often share a home folder.
"""

import hashlib
import os
import platform
import stat
import tempfile
from contextlib import suppress
from pathlib import Path

import jax

from mtl_jax import faults

# A benchmark times the compilation, and a report compiles nothing.
MODES_WITHOUT = ("benchmark", "report")
OFF = "none"
# Bytes of the default folder. A training run on a CPU adds 2 MB.
LIMIT = 2**30
# Bytes that must fit into the folder, the size of a typical program.
PROBE = 2**20


def keep_programs(folder: str | None, *, mode: str) -> str | None:
    """Lets JAX keep compiled programs.

    Args:
      folder: where; `OFF` for nowhere; None for the folder in JAX_COMPILATION_CACHE_DIR or, without
        that variable, `default_folder`, which is kept within `LIMIT`.
      mode: of the command; those of `MODES_WITHOUT` have no default folder.

    Returns:
      A line about the default folder, where that is used or can't be.
    """
    if folder == OFF:
        jax.config.update("jax_compilation_cache_dir", None)
        return None
    if folder is not None:
        _keep_in(Path(folder).expanduser())
        return None
    chosen = jax.config.jax_compilation_cache_dir  # pyrefly: ignore[missing-attribute]
    if mode in MODES_WITHOUT or chosen:
        return None
    try:
        programs = default_folder()
        # JAX runs what it finds there, so nobody else may write to it.
        programs.mkdir(mode=0o700, parents=True, exist_ok=True)
        facts = programs.stat()
        if facts.st_uid != os.getuid() or facts.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise PermissionError(f"others may write to {programs}")
        place = programs / processor()
        place.mkdir(exist_ok=True)
        with tempfile.TemporaryFile(dir=place) as probe:
            probe.write(bytes(PROBE))
    except OSError as error:
        return (
            f"note: compiled programs are not kept ({faults.explain(error)}); "
            "`compilation_cache`=FOLDER keeps them elsewhere"
        )
    prune(programs, LIMIT)
    _keep_in(place)
    return f"compiled programs are kept in {programs} (`compilation_cache`={OFF} keeps none)"


def default_folder() -> Path:
    """Returns the folder of this program among the caches of the user.

    Raises:
      OSError: if the user has no home folder.
    """
    caches = Path(os.environ.get("XDG_CACHE_HOME", ""))
    # As its specification demands, a relative path counts as none.
    if not caches.is_absolute():
        try:
            caches = Path.home() / ".cache"
        except RuntimeError as error:
            raise OSError("there is no home folder") from error
    return caches / "mtl_jax" / "programs"


def processor() -> str:
    """Returns a name for this kind of processor and the instructions that it has."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:  # Linux alone has this file.
        lines = [f"flags: {platform.processor()}"]
    kinds = ("model name", "flags", "Features")
    known = "\n".join(sorted({line for line in lines if line.startswith(kinds)}))
    return f"{platform.machine()}-{hashlib.sha256(known.encode()).hexdigest()[:8]}"


def prune(folder: Path, limit: int) -> None:
    """Deletes the files that were used longest ago, until the others take `limit` bytes or less.

    JAX can do so, too, but then it holds a lock while it reads, which not all file systems have,
    and fails from then on if a killed process has left one of its files without the other.
    """
    found = []
    for path in folder.rglob("*"):
        # Another process may do the same at this moment.
        with suppress(OSError):
            if path.is_file():
                facts = path.stat()
                found.append((max(facts.st_atime, facts.st_mtime), facts.st_size, path))
    excess = sum(size for _, size, _ in found) - limit
    for _, size, path in sorted(found):
        if excess <= 0:
            break
        with suppress(OSError):
            path.unlink()
        excess -= size


def _keep_in(folder: Path) -> None:
    jax.config.update("jax_compilation_cache_dir", str(folder))
    # Small programs, too: a start has dozens of them, which take seconds to compile.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
