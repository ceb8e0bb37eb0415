"""A prepared data set and a finished run, made once and copied for each test that needs them."""

import shutil
from pathlib import Path

import pytest

from tests.slow import programs


@pytest.fixture(scope="session")
def made(tmp_path_factory) -> Path:
    """A folder with `data`, prepared, and `run`, a finished run of `programs.SMALL`."""
    folder = tmp_path_factory.mktemp("made")
    finished = programs.launch("--workdir=run", folder)
    assert finished.status == 0, finished.text
    return folder


@pytest.fixture
def sandbox(made, tmp_path):
    """A folder with a copy of the prepared data, which is removed afterwards."""
    shutil.copytree(made / "data", tmp_path / "data")
    yield tmp_path
    shutil.rmtree(tmp_path)


@pytest.fixture
def with_run(made, sandbox) -> Path:
    """The sandbox with a copy of the finished run, too."""
    shutil.copytree(made / "run", sandbox / "run")
    return sandbox
