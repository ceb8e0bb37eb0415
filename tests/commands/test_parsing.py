"""The user's own functions among the settings."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from mtl_jax.commands import parsing


def resolved(dataset):
    settings = SimpleNamespace(dataset=dataset, weighting="nash", weightings=["uw"], folder=None)
    return parsing.resolved(settings).dataset


def test_a_data_set_of_ones_own_is_found_from_anywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("my_data.py").write_text("def mine(*, train=3, test=1): pass")
    path = tmp_path / "my_data.py"
    assert resolved("my_data.py:mine:test=1,train=4") == f"{path}:mine:train=4"
    monkeypatch.chdir("/")
    assert resolved(f"{path}:mine:train=4") == f"{path}:mine:train=4"
    with pytest.raises(ValueError, match="^`dataset`=my_data.py:mine: /my_data.py can't be import"):
        resolved("my_data.py:mine")


@pytest.mark.parametrize("text", ["rooms", "rooms:train=4", "folder:depth_scale=256"])
def test_names_of_data_sets_stay(text):
    assert resolved(text) == text
