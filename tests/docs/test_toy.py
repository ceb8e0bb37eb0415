"""The script of the toy problem: what its picture claims."""

import importlib.util
from pathlib import Path

import jax
import numpy as np
import pytest

DOCS = Path(__file__).parent.parent.parent / "docs"


@pytest.fixture(scope="module")
def toy():
    spec = importlib.util.spec_from_file_location("toy", DOCS / "toy.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def ends_on_the_front(toy, method):
    with jax.numpy_dtype_promotion("standard"):  # as where the script runs
        way = toy.descend(method)
    gaps = np.linalg.norm((way[:, -1, None] - toy.front()) / [0.1, 1.0], axis=-1).min(axis=-1)
    return int((gaps < 0.1).sum())


@pytest.mark.slow
def test_nash_reaches_the_pareto_front_from_every_start_and_the_sum_does_not(toy):
    assert ends_on_the_front(toy, "nash") == 5
    assert ends_on_the_front(toy, "equal") < 5


def test_no_point_of_the_front_is_better_than_another_in_both_losses(toy):
    front = toy.front()
    better = np.all(front[:, None] < front[None] - 1e-5, axis=-1)
    assert not better.any()
