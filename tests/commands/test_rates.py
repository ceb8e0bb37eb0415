"""The learning rate of each method of a sweep, with trainings that only write their results."""

import json
from types import SimpleNamespace

import pytest

from mtl_jax.commands import rates
from mtl_jax.runs import grid

TASKS = ("depth", "normals")
# The error that each rate leads to: a larger one for the method than for the single tasks.
ERRORS = {"equal": {0.1: 3.0, 0.2: 2.0, 0.3: 4.0}, "depth": {0.1: 1.0, 0.2: 2.0, 0.3: 3.0}}


@pytest.fixture
def settings(tmp_path):
    return SimpleNamespace(mode="sweep", workdir=[str(tmp_path)], learning_rates=[0.1, 0.2, 0.3])


@pytest.fixture
def trained():
    return []


@pytest.fixture
def train(tmp_path, trained):
    """Returns a training that diverges at the largest rate."""

    def train(run):
        trained.append(run.name)
        rate, tasks = run.changes["learning_rate"], run.changes["tasks"]
        if rate == 0.3:
            raise FloatingPointError("gradients were not finite")
        error = ERRORS["equal" if len(tasks) > 1 else "depth"][rate]
        values = {"depth/absolute_error": error, "normals/mean": error}
        row = {"epoch": 1, "step": 1, "skipped_steps": 0, "evaluation": values}
        folder = tmp_path / run.name
        folder.mkdir(parents=True)
        (folder / "metrics.jsonl").write_text(json.dumps(row) + "\n")
        (folder / "config.json").write_text(json.dumps({"tasks": tasks, "learning_rate": rate}))
        (folder / "result.json").write_text("{}")

    return train


def choose(settings, train, tmp_path):
    runs = grid.weightings_grid(TASKS, ["equal"], [5, 6])
    return rates.choose(settings, runs, lambda x: (tmp_path / x.name).exists(), train)


def test_the_first_seed_chooses_for_all(settings, train, trained, tmp_path, capsys):
    chosen, without = choose(settings, train, tmp_path)
    found = {run.name: run.changes["learning_rate"] for run in chosen}
    expected = {"depth": 0.1, "normals": 0.1, "equal": 0.2}
    assert found == {f"{name}-{seed}": x for name, x in expected.items() for seed in (5, 6)}
    assert without == []
    assert len(trained) == 9 and all("-5-" in name for name in trained)
    # The chosen run is where the report looks, the others are not.
    assert (tmp_path / "equal-5" / "result.json").exists()
    assert sorted(x.name for x in (tmp_path / "rates").glob("equal*")) == ["equal-5-0.1"]
    assert "equal-5-0.3 is out of the choice: gradients were not finite" in capsys.readouterr().out
    scores = json.loads((tmp_path / "learning_rates.json").read_text())
    assert scores["equal-5"]["0.3"] is None
    assert scores["equal-5"]["0.2"] > scores["equal-5"]["0.1"]


def test_a_choice_stays(settings, train, trained, tmp_path):
    first, _ = choose(settings, train, tmp_path)
    count = len(trained)
    assert choose(settings, train, tmp_path) == (first, [])
    assert len(trained) == count


def test_nothing_is_chosen_until_all_rates_are_tried(settings, train, tmp_path):
    def fail_once(run):
        if run.name == "rates/equal-5-0.1":
            raise OSError("disk full")
        train(run)

    chosen, without = choose(settings, fail_once, tmp_path)
    assert {run.name for run in chosen} == {"depth-5", "depth-6", "normals-5", "normals-6"}
    assert without == ["equal-5", "equal-6"]
    chosen, without = choose(settings, train, tmp_path)
    assert len(chosen) == 6 and without == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"validation": 0}, "`learning_rates`: .* set `validation`"),
        ({"coordinator": "auto"}, "`coordinator`"),
        ({"learning_rates": [0.1, 0.1]}, "`learning_rates`=0.1,0.1: .*different"),
    ],
)
def test_what_can_not_choose_is_refused(settings, changes, message):
    usual = {"validation": 9, "coordinator": None}
    with pytest.raises(ValueError, match=message):
        rates.check(SimpleNamespace(**vars(settings) | usual | changes))
