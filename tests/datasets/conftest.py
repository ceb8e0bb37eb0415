"""Settings of the tests that make data sets."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import jax
import pytest

from datasets import account_page
from tests import fakes
from tests.datasets import folder_files


@pytest.fixture(scope="module")
def optimised() -> Iterator[None]:
    """Compiles programs as users do: on full-size frames this saves more time than it takes."""
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", True)


@pytest.fixture(autouse=True)
def no_page(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaves out the pictures, which take longer than all the rest, unless a test is about them."""
    if "page" not in request.node.name:
        monkeypatch.setattr(account_page, "make", lambda account: "")


@pytest.fixture(scope="session")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of `folder_files.EXAMPLES`."""
    root = tmp_path_factory.mktemp("folder") / "mine"
    folder_files.write(root, folder_files.EXAMPLES, fakes.CLASSES)
    return root


@pytest.fixture
def root(original: Path, tmp_path: Path) -> Path:
    """A copy of a folder, to change."""
    return shutil.copytree(original, tmp_path / "mine")
