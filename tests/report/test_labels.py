"""Lines about labels, and runs that had others."""

import pytest

from mtl_jax.report import labels, write_report
from mtl_jax.report.grouping import group_runs
from mtl_jax.report.read import read_runs
from tests.fakes import TASKS

RESULT = {metric.name: 0.5 for task in TASKS.values() for metric in task.metrics}


def counted(tasks=tuple(TASKS), *, images=(40, 8), **other):
    """Counts where all images have labels, but for the (train, test) counts of some tasks."""
    train, test = ({"images": n} | dict.fromkeys(tasks, n) for n in images)
    for task, counts in other.items():
        train[task], test[task] = counts
    return {"trained": train, "present": train, "judged": test}


def notes_of(*folders):
    runs = labels.apart(read_runs(folders))
    return labels.notes(group_runs(runs))


def test_one_line_where_all_images_have_all_labels(write_run):
    together = [
        write_run(f"run{i}", metrics=RESULT, result={"labels": counted()}, seed=i) for i in (0, 1)
    ]
    alone = [
        write_run(task, tasks=[task], metrics=RESULT, result={"labels": counted([task])})
        for task in TASKS
    ]
    assert notes_of(*together, *alone) == ["Labels: all 40 training images; all 8 test images."]


def test_the_counts_of_each_task_where_some_are_missing(write_run):
    half = {"segmentation": (20, 8), "depth": (26, 8)}
    together = write_run("run", metrics=RESULT, result={"labels": counted(**half)})
    alone = [
        write_run(
            task,
            tasks=[task],
            metrics=RESULT,
            result={"labels": counted([task], **{k: x for k, x in half.items() if k == task})},
        )
        for task in TASKS
    ]
    assert notes_of(together, *alone) == [
        "Labels: segmentation 20, depth 26, normals 40 of 40 training images; all 8 test images."
    ]


def test_a_task_without_labels_has_a_reason_in_place_of_numbers(write_run, tmp_path):
    metrics = {name: None if name.startswith("depth/") else x for name, x in RESULT.items()}
    folder = write_run(metrics=metrics, result={"labels": counted(depth=(40, 0))})
    write_report([folder], tmp_path / "report")
    table = (tmp_path / "report" / "table.md").read_text()
    assert "- No depth metrics: none of the 8 test images has depth labels." in table
    assert "AbsErr" not in table and "nan" not in table and "mIoU" in table
    text = (tmp_path / "report" / "report.html").read_text()
    assert "segmentation 8, depth 0, normals 8 of 8 test images" in text


@pytest.mark.parametrize("other", [{"segmentation": (20, 8)}, {"segmentation": (40, 7)}])
def test_runs_with_other_labels_are_not_compared(write_run, tmp_path, other):
    """Not as seeds of a group, nor for the best value, nor with single-task runs."""
    one = write_run("one", metrics=RESULT, result={"labels": counted()}, seed=0)
    changed = write_run("changed", metrics=RESULT, result={"labels": counted(**other)}, seed=1)
    alone = [
        write_run(task, tasks=[task], metrics=RESULT, result={"labels": counted([task])})
        for task in TASKS
    ]
    runs = labels.apart(read_runs([one, changed, *alone]))
    assert len(group_runs(runs)) == 4
    found = notes_of(one, changed, *alone)
    train, test = other["segmentation"]
    assert any(f"segmentation {train}/40 + {test}/8" in line for line in found)
    write_report([one, changed, *alone], tmp_path / "report")
    table = (tmp_path / "report" / "table.md").read_text()
    assert "the single-task runs of segmentation differ in labels" in table


def test_runs_whose_labels_were_not_counted_are_shown_as_before(write_run):
    folders = [write_run("old", metrics=RESULT), write_run("new", metrics=RESULT, seed=1)]
    runs = read_runs(folders)
    assert labels.apart(runs) == runs
    assert notes_of(*folders) == []


def test_runs_of_other_tasks_are_compared(write_run):
    """Their labels agree where they have the same tasks."""
    three = write_run("three", metrics=RESULT, result={"labels": counted(depth=(30, 8))})
    two = write_run(
        "two",
        tasks=("segmentation", "depth"),
        metrics=RESULT,
        result={"labels": counted(("segmentation", "depth"), depth=(30, 8))},
    )
    runs = read_runs([three, two])
    assert labels.apart(runs) == runs


@pytest.mark.parametrize(
    "odd", [[], "x", {"trained": 3}, {"judged": {"images": 8}}, {"trained": {}, "judged": {}}]
)
def test_damaged_counts_are_left_out(write_run, odd):
    assert notes_of(write_run(metrics=RESULT, result={"labels": odd})) == []
