"""The learning rate of each method of a sweep, with trainings that only write their results."""

import json
import math
from pathlib import Path
from types import SimpleNamespace

import pytest

from mtl_jax.commands import rates, sweeps
from mtl_jax.runs import grid, lock, rates_file

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
        (folder / "result.json").write_text('{"epoch": 1}')

    return train


def choose(settings, train, tmp_path):
    runs = grid.weightings_grid(TASKS, ["equal"], [5, 6])
    return rates.choose(settings, runs, lambda x: (tmp_path / x.name).exists(), train)


def test_the_first_seed_chooses_for_all(settings, train, trained, tmp_path, capsys):
    chosen, without = choose(settings, train, tmp_path)
    found = {run.name: run.changes["learning_rate"] for run in chosen}
    expected = {"depth": 0.1, "normals": 0.1, "equal": 0.2}
    assert found == {f"{name}-{seed}": x for name, x in expected.items() for seed in (5, 6)}
    assert without == {}
    assert len(trained) == 9 and all("-5-" in name for name in trained)
    # The chosen run is where the report looks, the others are not.
    assert (tmp_path / "equal-5" / "result.json").exists()
    assert sorted(x.name for x in (tmp_path / "rates").glob("equal*")) == ["equal-5-0.1"]
    shown = capsys.readouterr().out
    assert "equal-5-0.3 can't be chosen: gradients were not finite" in shown
    tried = "0.1 (-1.0986), 0.2 (-0.6931), 0.3 (failed); 1 of 3 failed"
    assert f"equal-5: learning rate 0.2, of {tried}" in shown
    trials = json.loads((tmp_path / "learning_rates.json").read_text())
    assert trials["equal-5"] == {
        "0.1": pytest.approx(-math.log(3.0)),
        "0.2": pytest.approx(-math.log(2.0)),
        "0.3": "gradients were not finite",
    }


def test_a_choice_stays(settings, train, trained, tmp_path):
    first, _ = choose(settings, train, tmp_path)
    count, trials = len(trained), rates_file.read(tmp_path)
    assert choose(settings, train, tmp_path) == (first, {})
    assert len(trained) == count
    assert rates_file.read(tmp_path) == trials


def test_a_choice_stays_if_its_run_is_continued(settings, train, trained, tmp_path):
    first, _ = choose(settings, train, tmp_path)
    count, trials = len(trained), rates_file.read(tmp_path)
    # It takes more epochs, in which its error falls; meanwhile it has no result.
    values = {"depth/absolute_error": 0.5, "normals/mean": 0.5}
    row = {"epoch": 2, "step": 2, "skipped_steps": 0, "evaluation": values}
    (tmp_path / "equal-5" / "metrics.jsonl").write_text(json.dumps(row) + "\n")
    (tmp_path / "equal-5" / "result.json").unlink()
    assert choose(settings, train, tmp_path) == (first, {})
    (tmp_path / "equal-5" / "result.json").write_text('{"epoch": 2}')
    assert choose(settings, train, tmp_path) == (first, {})
    assert len(trained) == count
    # Rates are compared by what they came to after the same number of epochs.
    assert rates_file.read(tmp_path) == trials


@pytest.mark.parametrize("evaluation", [{}, {"evaluation": {"depth/absolute_error": 0.1}}])
def test_a_rate_is_judged_by_the_last_state_alone(settings, train, tmp_path, evaluation):
    def lose_a_row(run):
        train(run)
        if run.name == "rates/depth-5-0.2":
            row = {"epoch": 1 if not evaluation else 0, "step": 1, "skipped_steps": 0}
            path = tmp_path / run.name / "metrics.jsonl"
            path.write_text(json.dumps(row | evaluation) + "\n")

    chosen, _ = choose(settings, lose_a_row, tmp_path)
    assert {run.changes["learning_rate"] for run in chosen if "depth" in run.name} == {0.1}
    failed = rates_file.failures(rates_file.read(tmp_path)["depth-5"])
    assert failed["0.2"] == "metrics.jsonl has no evaluation of the last epoch"


def test_nothing_is_chosen_until_all_rates_are_tried(settings, train, tmp_path, capsys):
    def fail_once(run):
        if run.name == "rates/equal-5-0.1":
            raise OSError("disk full")
        train(run)

    chosen, without = choose(settings, fail_once, tmp_path)
    assert {run.name for run in chosen} == {"depth-5", "depth-6", "normals-5", "normals-6"}
    assert list(without) == ["equal-5", "equal-6"]
    assert "not all trial runs finished" in without["equal-5"]
    tried = "0.1 (failed), 0.2 (-0.6931), 0.3 (failed); 2 of 3 failed"
    assert f"equal-5: learning rate none, of {tried}" in capsys.readouterr().out
    assert rates_file.read(tmp_path)["equal-5"]["0.1"] == "disk full"
    chosen, without = choose(settings, train, tmp_path)
    assert len(chosen) == 6 and without == {}


def test_rates_that_another_process_tries_are_waited_for(settings, train, tmp_path):
    def one_in_use(run):
        if run.name == "rates/equal-5-0.1":
            raise lock.InUse("process 7")
        train(run)

    _, without = choose(settings, one_in_use, tmp_path)
    assert "other processes are trying rates" in without["equal-6"]
    assert rates_file.read(tmp_path)["equal-5"]["0.1"] is None


def test_an_error_that_is_not_finite_is_a_failure(settings, train, tmp_path, monkeypatch):
    monkeypatch.setitem(ERRORS, "equal", {0.1: math.nan, 0.2: 2.0})
    chosen, _ = choose(settings, train, tmp_path)
    assert {run.changes["learning_rate"] for run in chosen if "equal" in run.name} == {0.2}
    failed = rates_file.failures(rates_file.read(tmp_path)["equal-5"])
    assert failed["0.1"] == "an error of a task is not finite"


def test_a_method_without_a_rate_is_named_and_the_others_reported(
    settings, train, tmp_path, monkeypatch
):
    def diverge(one):
        if "equal" in one.workdir[0]:
            raise FloatingPointError("gradients were not finite")
        changes = {"learning_rate": one.learning_rate, "tasks": one.tasks}
        train(grid.Run(str(Path(one.workdir[0]).relative_to(tmp_path)), changes))

    def is_done(one, outline):
        return Path(one.workdir[0], "result.json").exists()

    monkeypatch.setattr(sweeps, "has_finished", is_done)
    monkeypatch.setattr(sweeps, "check_run", lambda one, outline: None)
    reported = []
    message = (
        "^2 runs have no learning rate because all 3 trial runs failed: set other `learning_rates` "
        r"\(equal-5, equal-6\)$"
    )
    with pytest.raises(ValueError, match=message):
        sweeps.run(
            settings,
            None,
            grid.weightings_grid(TASKS, ["equal"], [5, 6]),
            train=diverge,
            report=lambda folders, out: reported.extend(folders),
        )
    assert {x.name for x in reported} == {"depth-5", "depth-6", "normals-5", "normals-6"}


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
