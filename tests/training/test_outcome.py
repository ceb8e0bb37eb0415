"""Warnings about the outcome of a training."""

import pytest

from mtl_jax.training import outcome
from mtl_jax.weighting import METHODS


@pytest.mark.parametrize(("name", "steps", "warns"), [("igb", 20, 1), ("igb", 21, 0), ("si", 1, 0)])
def test_a_run_that_ends_in_the_warmup_of_its_weighting_says_so(name, steps, warns, capsys):
    options = {"steps_per_epoch": 10} if name == "igb" else {}
    outcome.warn_of_warmup(METHODS[name](**options), name, steps)
    assert capsys.readouterr().out.count("its first 20 steps, and this run has 20") == warns
