"""The part of the page on errors, and the file that it is made of."""

import re

import numpy as np
import pytest

from mtl_jax.report import write_report
from mtl_jax.report.read import read_run
from tests.fakes import TASKS

pytestmark = pytest.mark.usefixtures("unarranged")

PARTS = ("errors", "best", "worst", "image", "true", "predicted")
RESULT = {metric.name: 0.5 for task in TASKS.values() for metric in task.metrics}


def part_of(report):
    """The part of the page on errors."""
    return report.read_text().split("<h2>Errors</h2>")[1].split("<h2>Runs</h2>")[0]


def files_of(report):
    return {path.name for path in report.parent.glob("errors_*")}


def test_a_run_has_its_charts_and_its_best_and_worst_images(write_run, make_details, tmp_path):
    run = write_run(metrics=RESULT, errors=make_details())
    report = write_report([run], tmp_path / "out")
    assert files_of(report) == {
        "errors_depth_over_distance.png", "errors_normals_angles.png",
        "errors_segmentation_confusion_run.png", "errors_segmentation_confusion_run_iou.png",
        *(f"errors_{task}_{end}_run.png" for task in TASKS for end in ("best", "worst")),
    }  # fmt: skip
    part = part_of(report)
    assert part.count("<img") == 10
    assert re.findall("<h3>(.*)</h3>", part) == ["Segmentation", "Depth", "Normals"]
    assert "<details" not in part
    assert "evaluation.npz" not in part


def test_an_old_run_has_a_line_instead(write_run, make_details, tmp_path):
    old = [write_run(f"old-{i}", metrics=RESULT, seed=i) for i in range(7)]
    part = part_of(write_report(old, tmp_path / "old"))
    assert "<img" not in part
    assert "no evaluation.npz in the folder" in part
    assert f"{old[4]} and 2 more. --mode=evaluate --workdir=FOLDER writes it." in part
    new = write_run("new", weighting="uw", metrics=RESULT, errors=make_details())
    part = part_of(write_report([old[0], new], tmp_path / "both"))
    assert f"in the folder: {old[0]}. " in part
    assert part.count("<img") == 10


def test_a_run_that_goes_on_has_no_such_line(write_run, tmp_path):
    assert "<h2>Errors</h2>" not in write_report([write_run(result=None)], tmp_path).read_text()


def test_groups_share_the_curves_and_have_blocks_of_their_own(write_run, make_details, tmp_path):
    runs = [write_run(t, tasks=(t,), metrics=RESULT, errors=make_details((t,))) for t in TASKS]
    runs += [
        write_run(f"uw-{i}", weighting="uw", seed=i, metrics=RESULT, errors=make_details(seed=i))
        for i in range(2)
    ]
    report = write_report(runs, tmp_path / "out")
    part = part_of(report)
    for task in TASKS:
        blocks = re.findall(rf'<details name="errors-{task}"( open)?><summary>(.*?)</s', part)
        assert blocks == [(" open", f"Single task, run {task}"), ("", "UW, run uw-0")]
    assert part.count("Each seed has a line of its own.</figcaption>") == 2
    assert not any("uw-1" in name for name in files_of(report))


def test_the_pixels_of_a_profile_are_those_of_all_its_runs(write_run, tmp_path):
    name, runs = "depth/over_distance", []
    for data, pixels in (("a", 10), ("b", 1000)):
        errors = {name: pixels * np.ones((3, 23))}
        runs.append(write_run(data, dataset=data, metrics=RESULT, errors=errors))
    assert "true depth of 230 or 23,000 pixels." in part_of(write_report(runs, tmp_path / "out"))


@pytest.mark.slow  # It draws the pictures of many runs.
def test_only_the_first_groups_have_pictures(write_run, make_details, tmp_path):
    runs = [
        write_run(
            f"{i}", tasks=("depth", "normals"), weighting=f"m{i}", metrics=RESULT,
            pictures=i == 5, errors=make_details(("depth",)),
        )
        for i in range(6)
    ]  # fmt: skip
    report = write_report(runs, tmp_path / "out")
    part = part_of(report)
    assert part.count("<details") == 4
    assert "Only the first 4 groups have pictures of their own here" in part
    text = report.read_text()
    assert "Only the first 4 groups are here" in text
    # The strips of all runs are files next to the page.
    assert [path.name for path in report.parent.glob("strips_*")] == ["strips_5.png"]


def test_what_a_diverged_run_leaves_is_left_out(write_run, make_details, tmp_path):
    arrays = make_details()
    gone = {
        name: np.zeros_like(x)
        for name, x in arrays.items()
        if name in ("segmentation/confusion", "depth/over_distance", "normals/angles")
    }
    kept = {name: x for name, x in arrays.items() if name.endswith("/errors")}
    report = write_report([write_run(metrics=RESULT, errors=gone | kept)], tmp_path / "out")
    assert "<h2>Errors</h2>" not in report.read_text()


@pytest.mark.parametrize("content", [b"", b"garbage", b"PK\x03\x04"])
def test_a_broken_file_is_named(write_run, content):
    path = write_run(metrics=RESULT, pictures=True)
    (path / "evaluation.npz").write_bytes(content)
    run = read_run(path)
    assert run.missing == ("evaluation.npz can't be read (no charts of errors)",)
    assert run.details.charts == run.details.extremes == {}


@pytest.mark.parametrize(
    ("name", "array", "words"),
    [
        ("depth/over_distance", np.ones((2, 9)), "depth/over_distance in another form"),
        ("segmentation/confusion", np.full((3, 3), -1), "segmentation/confusion in another form"),
        ("normals/angles", np.full(3, "x"), "normals/angles in another form"),
        ("depth/best", np.array([0.5, 1.5]), "not all of the best and worst images of depth"),
        ("depth/best", np.array([0, 99]), "not all of the best and worst images of depth"),
        ("depth/best", np.array([0, 1, 2]), "not all of the best and worst images of depth"),
        ("depth/errors", np.ones(2, np.float32), "not all of the best and worst images of depth"),
        ("depth/errors", np.float32(1.0), "not all of the best and worst images of depth"),
        ("depth/image", np.ones((4, 6, 8, 3)), "has no images"),
        ("depth/true", np.ones((4, 6, 7)), "has depth in another shape"),
        ("segmentation/predicted", np.full((4, 6, 8), 0.5), "predicted_segmentation of another"),
    ],
)
def test_what_is_broken_in_it_is_named_and_the_rest_kept(
    write_run, make_details, name, array, words
):
    path = write_run(metrics=RESULT, pictures=True, errors=make_details() | {name: array})
    run = read_run(path)
    assert any(words in phrase for phrase in run.missing)
    task, kind = name.split("/")
    is_chart = kind not in PARTS
    assert len(run.details.charts) == 3 - is_chart
    assert run.details.extremes.keys() == set(TASKS) - (set() if is_chart else {task})
