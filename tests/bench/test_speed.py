"""The benchmark measures what it says; no test here asserts a time."""

import json
import time

import jax
import numpy as np
import optax

from mtl_jax import data
from mtl_jax.bench import speed
from mtl_jax.training.step import Recipe
from mtl_jax.weighting import METHODS
from tests import fakes, tiny


def test_every_weighting_gets_a_row(tmp_path):
    batch = speed.synthetic_batch(
        tiny.TASKS, image_size=(32, 48), batch_size=4, num_classes=len(fakes.CLASSES)
    )
    optimizer, network = optax.sgd(0.1), tiny.network()
    recipes = {x: Recipe(network, METHODS[x](), optimizer) for x in ("equal", "nash")}
    called = []
    result = speed.compare_weightings(
        recipes,
        batch,
        devices=jax.local_devices()[:2],
        rounds=2,
        others={"other": lambda: called.append(1)},
        missing={"absent": "it is not installed"},
    )
    assert [row.weighting for row in result.rows] == ["equal", "nash"]
    equal, nash = result.rows
    assert equal.ratio_to_equal == 1.0
    assert nash.diagnostics["iterations"] >= 1
    assert nash.diagnostics["residual"] < 1e-2
    assert "iterations" not in equal.diagnostics
    assert list(result.passes) == ["forward", "forward + 1", "forward + 3"]
    assert len(called) == 3  # one to warm up
    assert result.trunk_megabytes > 0
    text = speed.write(result, SOLVERS, tmp_path / "new", what="tiny")
    assert (tmp_path / "new/benchmark.md").read_text() == text
    assert "| nash |" in text
    assert "| absent | not measured (it is not installed) | – |" in text
    assert "nash / equal is" in text
    assert "| 3 | 1.000 | 1.0e-07 | – | – |" in text
    written = json.loads((tmp_path / "new/benchmark.json").read_text())
    assert [row["weighting"] for row in written["rows"]] == ["equal", "nash"]
    assert written["rows"][1]["iterations"] == nash.diagnostics["iterations"]
    assert (written["num_tasks"], written["rounds"], written["batch_size"]) == (3, 2, 4)


SOLVERS = [
    {
        "tasks": 3,
        "ours_milliseconds": 1.0,
        "ours_residual": 1e-7,
        "published_milliseconds": None,
        "published_residual": None,
    }
]


def test_a_compilation_is_timed_unless_programs_are_kept():
    """Where they are, as in tests, a program may come from a file."""
    function, x = jax.jit(lambda x: x + 1), np.ones(2, np.float32)
    folder = jax.config.jax_compilation_cache_dir
    assert folder
    compiled, seconds = speed.compile_ahead(function, x)
    assert compiled(x)[0] == 2 and seconds is None
    try:
        jax.config.update("jax_compilation_cache_dir", None)
        assert speed.compile_ahead(function, x)[1] > 0
    finally:
        jax.config.update("jax_compilation_cache_dir", folder)


def test_the_published_program_is_made_once_and_solves_each_problem_alone(monkeypatch):
    made = []

    class Solver:
        def __init__(self, size):
            made.append(size)
            self.last = np.ones(size)

        def solve(self, gram):
            start, self.last = self.last, np.full(len(gram), 5.0)
            return start

    monkeypatch.setattr(speed, "Published", Solver)
    solve = speed.published_solver(2)
    for _ in range(3):
        np.testing.assert_array_equal(solve(np.eye(2)), 1.0)
    assert made == [2]


def test_the_made_up_batch_is_like_a_stored_one():
    batch = speed.synthetic_batch(
        tiny.TASKS, image_size=(32, 48), batch_size=2, num_classes=len(fakes.CLASSES)
    )
    stored = data.batch_of([fakes.example(0), fakes.example(1)], data.training_entries(tiny.TASKS))
    assert batch.keys() == stored.keys()
    for name, array in stored.items():
        assert (batch[name].shape, batch[name].dtype) == (array.shape, array.dtype)


def test_times_are_medians_of_calls_in_turn():
    order = []

    def call(name, seconds):
        order.append(name)
        time.sleep(seconds)

    times = speed.take_turns({"a": lambda: call("a", 0.0), "b": lambda: call("b", 0.01)}, rounds=3)
    assert order == ["a", "b"] * 4
    assert times["b"] >= 10


def test_our_solver_solves(monkeypatch):
    monkeypatch.setattr(speed, "SOLVER_SIZES", (3,))
    for row in speed.compare_solvers():
        assert row["ours_residual"] < 1e-4
    weights = speed.our_solver(2)(np.diag([4.0, 0.25]).astype(np.float32))
    np.testing.assert_allclose(weights, [0.5, 2.0], rtol=1e-5)
