"""A prepared data set and a finished run, made through launch.py."""

import pytest

from mtl_jax import models
from mtl_jax.report import pictures
from tests import tiny
from tests.command_line import ROOMS, command_line


@pytest.fixture(scope="session")
def prepared(tmp_path_factory):
    """A data_dir in which a few tiny rooms are prepared, by --mode=prepare."""
    folder = tmp_path_factory.mktemp("data")
    command_line("--mode=prepare", *ROOMS, f"--data_dir={folder}")
    return folder


@pytest.fixture(scope="module")
def trained(prepared, tmp_path_factory):
    """The folder of a finished run of a tiny network, which can be named in the module's tests."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    place = [f"--data_dir={prepared}", f"--workdir={folder}"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(models.MODELS, "tiny", tiny.model)
        with pytest.MonkeyPatch.context() as coarse:
            # Figures of few pixels take less time.
            coarse.setattr(pictures, "DPI", 20)
            command_line(*ROOMS, *place, "--model=tiny", "--weigh_every=2")
        yield folder
