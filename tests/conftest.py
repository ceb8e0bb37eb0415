"""Settings that every test runs under, and the list of skips that are expected."""

import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from importlib import metadata
from typing import Any

import pytest

# Four simulated devices, so that data parallelism is tested wherever the tests run.
XLA_FLAGS = "--xla_force_host_platform_device_count=4"
if [int(number) for number in metadata.version("jaxlib").split(".")[:2]] < [0, 11]:
    # The older of XLA's two code generators compiles small programs in a third of the time. Later
    # versions don't have it, and end at a flag that they don't know.
    XLA_FLAGS += " --xla_cpu_use_fusion_emitters=false"
    # Dividing a small program into parts that are compiled at once costs more than it saves.
    XLA_FLAGS += " --xla_cpu_parallel_codegen_split_count=1"
os.environ.setdefault("XLA_FLAGS", XLA_FLAGS)
# Most of the time goes into compiling programs that run once or twice on small arrays: they are
# optimised less, and what one process has compiled the others need not.
os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"
MAKES_CACHE = "JAX_COMPILATION_CACHE_DIR" not in os.environ
if MAKES_CACHE:
    os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="mtl_jax-tests-")
# Thousands of small programs together take longest to compile.
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"

import jax  # noqa: E402  (the variables above must be set first)

jax.config.update("jax_numpy_dtype_promotion", "strict")

# Files that take longest come first, so that no process works alone at the end. That of the rooms
# is before another one that uses the program it compiles.
FIRST = (
    "test_contract.py",
    "test_failures.py",
    "test_rooms.py",
    "test_transformation.py",
    "test_step.py",
    "test_loop.py",
    "test_one_run.py",
    "test_torch_twin.py",
    "test_step_needs.py",
    "test_accumulation.py",
    "test_pretrained.py",
)

# Why a test may be skipped where all extras are installed; --strict-skips refuses any other reason.
EXPECTED_SKIPS = (
    # Properties that some weightings don't have: tests/weighting/.
    "it draws for each task",
    "the step of its weights has a unit",
    "its long steps amplify rounding",
    "it updates in every step",
    "it does not see the gradients",
    "it needs the Gram matrix",
    # An extra with an older orbax, which CI installs in an environment of its own.
    "jax2onnx is not installed",
    "gradio is not installed",
    # What the machine does not allow.
    "root may read everything",
    "no disk can be mounted here: .*",
    "this Pillow lacks the format",
    "there is no Chromium here",
    # Damage to a file that this version of orbax does not write: tests/slow/test_damage.py.
    "nothing is called .* here",
)


@pytest.fixture(autouse=True, scope="module")
def forget_programs() -> Iterator[None]:
    """Frees a module's compiled programs: of all of them a process has too few memory maps."""
    yield
    jax.clear_caches()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    places = {name: place for place, name in enumerate(FIRST)}
    items.sort(key=lambda item: places.get(item.path.name, len(FIRST)))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--strict-skips", action="store_true", help="fail if a test is skipped unexpectedly"
    )


def unexpected_skips(config: pytest.Config) -> list[str]:
    """Returns what was skipped for a reason that is not on the list, by file and reason."""
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    if not config.getoption("strict_skips") or reporter is None:
        return []
    found = {
        (report.longrepr[0], report.longrepr[2].removeprefix("Skipped: "))
        for report in reporter.stats.get("skipped", [])
    }
    known = re.compile("|".join(EXPECTED_SKIPS))
    return sorted(f"{file}: {reason}" for file, reason in found if not known.fullmatch(reason))


def pytest_sessionfinish(session: pytest.Session) -> None:
    if session.exitstatus == pytest.ExitCode.OK and unexpected_skips(session.config):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    for line in unexpected_skips(config):
        terminalreporter.write_line(f"unexpected skip: {line}", red=True)


def pytest_unconfigure() -> None:
    if MAKES_CACHE:
        shutil.rmtree(os.environ["JAX_COMPILATION_CACHE_DIR"], ignore_errors=True)
