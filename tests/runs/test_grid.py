"""The grid of runs: order, skipping, failures."""

import pytest

from mtl_jax import faults
from mtl_jax.faults import Stopped
from mtl_jax.runs import grid, lock


def names(runs):
    return [run.name for run in runs]


def test_a_grid_has_single_tasks_and_weightings_seed_by_seed():
    runs = grid.weightings_grid(["depth", "normals"], ["equal", "nash"], [3, 5])
    assert names(runs) == [
        "depth-3", "normals-3", "equal-3", "nash-3", "depth-5", "normals-5", "equal-5", "nash-5",
    ]  # fmt: skip
    assert runs[1].changes == {"tasks": ["normals"], "seed": 3}
    assert runs[-1].changes == {"tasks": ["depth", "normals"], "weighting": "nash", "seed": 5}


def test_one_task_has_nothing_to_weigh():
    assert names(grid.weightings_grid(["depth"], ["equal", "nash"], [0])) == ["depth-0"]


@pytest.mark.parametrize(
    ("weightings", "seeds", "named"),
    [
        ([], [0], "`weightings`="),
        (["uw", "uw"], [0], "`weightings`=uw,uw"),
        (["uw"], [], "`seeds`"),
    ],
)
def test_an_empty_or_doubled_grid_is_refused(weightings, seeds, named):
    with pytest.raises(ValueError, match=named):
        grid.weightings_grid(["depth", "normals"], weightings, seeds)


RUNS = grid.weightings_grid(["depth", "normals"], ["equal", "uw"], [0])


@pytest.mark.parametrize(
    "error", [ValueError("no\nlabels"), OSError("disk"), RuntimeError("memory"), KeyError("x")]
)
def test_a_failure_is_reported_and_the_others_go_on(error, capsys):
    trained = []

    def train(run):
        trained.append(run.name)
        if run.name == "normals-0":
            raise error

    outcome = grid.perform(RUNS, lambda run: run.name == "equal-0", train)
    assert trained == ["depth-0", "normals-0", "uw-0"]
    assert outcome == ({"normals-0": faults.explain(error)}, [])
    printed = capsys.readouterr().out
    assert "[2/4] normals-0: FAILED" in printed
    assert "[3/4] equal-0: done already" in printed


def test_a_run_that_another_process_trains_is_not_a_failure(tmp_path, capsys):
    def train(run):
        with lock.own(tmp_path / run.name):
            pass

    with lock.own(tmp_path / "normals-0"):
        outcome = grid.perform(RUNS, lambda run: False, train)
    assert outcome == ({}, ["normals-0"])
    assert "[2/4] normals-0: left to the process that trains it" in capsys.readouterr().out


@pytest.mark.parametrize("stop", [Stopped("saved"), KeyboardInterrupt()])
def test_a_request_to_stop_ends_the_grid(stop):
    trained = []

    def train(run):
        trained.append(run.name)
        raise stop

    with pytest.raises(type(stop)):
        grid.perform(RUNS, lambda run: False, train)
    assert trained == ["depth-0"]


def test_a_study_has_every_arm_part_and_seed_once():
    arms = [["segmentation"], ["segmentation", "depth"]]
    runs = grid.study_grid(arms, ["uw", "nash"], [0.125, 1.0], [0, 1])
    assert names(runs)[:3] == [
        "segmentation-0.125-0", "segmentation+depth-uw-0.125-0", "segmentation+depth-nash-0.125-0",
    ]  # fmt: skip
    assert len(set(names(runs))) == len(runs) == 12
    assert runs[0].changes == {
        "tasks": ["segmentation"], "label_fraction": 0.125, "label_seed": 0, "seed": 0,
    }  # fmt: skip
    assert runs[-1].changes["weighting"] == "nash"


def test_folders_of_texts_with_options_are_plain_names_and_differ():
    texts = [
        "nash",
        "fairgrad:alpha=1",
        "fairgrad:alpha=2",
        "fixed:task_weights=1+2",
        "/a/b.py:own",
    ]
    runs = grid.weightings_grid(["depth", "normals"], texts, [3])[2:]
    assert names(runs) == [
        "nash-3", "fairgrad-alpha=1-3", "fairgrad-alpha=2-3", "fixed-task_weights=1+2-3",
        "b.py-own-3",
    ]  # fmt: skip
    assert [run.changes["weighting"] for run in runs] == texts


def test_runs_that_would_share_a_folder_are_refused():
    with pytest.raises(ValueError, match="`weightings`: two of them would share .*mine.py-own-0"):
        grid.weightings_grid(["depth", "normals"], ["/a/mine.py:own", "/b/mine.py:own"], [0])
