"""The command that serves a page, where gradio is missing."""

import sys
import tempfile
from types import SimpleNamespace

import pytest

from mtl_jax.commands import demos


def test_a_demo_without_its_extra_is_refused(monkeypatch, tmp_path):
    monkeypatch.setenv("GRADIO_TEMP_DIR", "before")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.delitem(sys.modules, "mtl_jax.deploy.demo", raising=False)
    monkeypatch.setitem(sys.modules, "fastapi", None)
    settings = SimpleNamespace(workdir=["runs/none"], mode="demo")
    with pytest.raises(ValueError, match=r"`mode`=demo needs gradio .*pip install -e '\.\[demo\]'"):
        list(demos.demo(settings))
    assert not list(tmp_path.iterdir())
