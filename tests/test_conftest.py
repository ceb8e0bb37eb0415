"""Where --strict-skips is given, a test can't vanish."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = """
import pytest

def test_passes():
    pass

def test_skips():
    {}
"""


# In place of JAX, of which these tests need nothing and whose import takes longer than they do.
JAX = """
from types import SimpleNamespace

config = SimpleNamespace(update=lambda *_: None)

def clear_caches():
    pass
"""


def outcome(folder: Path, body: str, *flags: str) -> subprocess.CompletedProcess[str]:
    """Runs pytest on two tests of which one has the body, with the settings of this folder."""
    shutil.copy(Path(__file__).parent / "conftest.py", folder)
    (folder / "jax.py").write_text(JAX)
    (folder / "test_it.py").write_text(TESTS.format(body))
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *flags, "."]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


@pytest.mark.parametrize("workers", ["0", "1"])
def test_an_unexpected_skip_fails(tmp_path, workers):
    body = "pytest.importorskip('a_module_that_nobody_has')"
    done = outcome(tmp_path, body, "--strict-skips", "-n", workers)
    assert done.returncode == 1
    assert "unexpected skip: " in done.stdout and "a_module_that_nobody_has" in done.stdout


def test_a_module_that_is_skipped_as_a_whole_fails(tmp_path):
    (tmp_path / "test_other.py").write_text(
        "import pytest\npytest.importorskip('a_module_that_nobody_has')\n"
    )
    done = outcome(tmp_path, "pass", "--strict-skips", "-n", "1")
    assert done.returncode == 1
    assert "test_other.py: " in done.stdout


def test_an_expected_skip_does_not(tmp_path):
    done = outcome(tmp_path, "pytest.skip('root may read everything')", "--strict-skips")
    assert done.returncode == 0 and "1 skipped" in done.stdout


def test_without_the_option_no_skip_does(tmp_path):
    assert outcome(tmp_path, "pytest.skip('no reason')").returncode == 0
