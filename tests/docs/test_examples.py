"""docs/examples: what they claim of the weightings."""

from pathlib import Path
from types import ModuleType

import jax
import numpy as np
import pytest

from tests.docs import scripts


def load(name: str) -> ModuleType:
    return scripts.load(f"examples/{name}")


@pytest.fixture(autouse=True)
def as_a_script():
    with jax.numpy_dtype_promotion("standard"):
        yield


def test_no_point_of_the_front_is_better_than_another_in_both_losses():
    front = load("toy").front()
    better = np.all(front[:, None] < front[None] - 1e-5, axis=-1)
    assert not better.any()


@pytest.mark.slow
def test_nash_reaches_the_pareto_front_from_every_start_and_the_sum_does_not():
    toy = load("toy")
    assert toy.on_front(toy.descend("nash"), toy.front()) == 5
    assert toy.on_front(toy.descend("equal"), toy.front()) < 5


@pytest.mark.slow
def test_eight_units_need_weights_of_their_own():
    regression = load("regression")
    sums, balanced = (np.asarray(regression.errors(name)) for name in ("equal", "nash"))
    # The sum learns the largest numbers alone.
    assert sums[:4].min() > 0.5 and sums[-1] < 0.3
    assert balanced.mean() < 0.6 * sums.mean()


@pytest.mark.slow
def test_a_differential_equation_keeps_its_boundary():
    pytest.importorskip("equinox")
    physics = load("physics")
    plain = np.median(physics.errors("equal"))
    for name in ("nash", "config", "pcgrad"):
        assert np.median(physics.errors(name)) < plain / 2, name


@pytest.mark.slow
def test_a_policy_gains_all_rewards():
    policy = load("policy")
    assert policy.train("equal").min() < 0.1
    for name in ("nash", "imtl_g"):
        assert policy.train(name).min() > 0.35, name


@pytest.mark.slow
def test_a_student_follows_labels_and_teacher():
    pytest.importorskip("haiku")
    distillation = load("distillation")
    teacher = distillation.train_teacher()
    plain, balanced = (distillation.accuracies(name, teacher) for name in ("equal", "nash"))
    assert balanced.min() > 0.97 and balanced.mean() > plain.mean()


def test_every_example_is_run():
    text = Path(__file__).read_text(encoding="utf-8")
    page = (scripts.DOCS / "own_loop.md").read_text(encoding="utf-8")
    for path in (scripts.DOCS / "examples").glob("*.py"):
        assert f'load("{path.stem}")' in text
        assert f"`python docs/examples/{path.name}" in page
