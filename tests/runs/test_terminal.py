"""Evaluations as text for the terminal."""

import re

import pytest

from mtl_jax.runs import labels, terminal
from tests.runs.evaluations import DEPTH_AND_CLASSES, evaluation


def test_text_table_stands_over_the_trivial_predictor():
    result = {
        "metrics": evaluation(0.4567, 0.5),
        "last": {"evaluations": 10, "metrics": evaluation(0.45, 0.6)},
        "floor": evaluation(0.0213, 0.9),
    }
    lines = terminal.text_table(result, DEPTH_AND_CLASSES, "Nash-MTL").splitlines()
    assert len({len(line) for line in lines}) == 1
    head, *body = (re.split(" {2,}", line.strip()) for line in lines)
    column = head.index("mIoU % ↑") - len(head)
    assert [cells[column] for cells in body] == ["45.67", "45.00", "2.13"]
    column = head.index("AbsErr m ↓") - len(head)
    assert [cells[column] for cells in body] == ["0.5000", "0.6000", "0.9000"]
    assert "RelErr ↓" in head
    assert [cells[0] for cells in body] == [
        "Nash-MTL", "mean of last 10 evaluations", "trivial predictor"
    ]  # fmt: skip


def test_text_table_leaves_out_the_mean_of_one_evaluation():
    result = {"metrics": evaluation(0.4, 0.5), "floor": evaluation(0.02, 0.9)}
    one = result | {"last": {"evaluations": 1, "metrics": evaluation(0.4, 0.5)}}
    for each in (result, one):
        assert len(terminal.text_table(each, DEPTH_AND_CLASSES, "uw").splitlines()) == 3


NINE = {"images": 9, "depth": 9}
ALL = {"images": 1200, "depth": 1200, "segmentation": 1200}
SOME = {"images": 1200, "depth": 1200, "segmentation": 31}


@pytest.mark.parametrize(
    ("trained", "judged", "split", "line"),
    [
        (ALL, NINE, "test", "labels: all 1,200 training images; all 9 test images"),
        (
            SOME,
            {"images": 9, "depth": 0},
            "test",
            "labels: depth 1,200, segmentation 31 of 1,200 training images; "
            "depth 0 of 9 test images",
        ),
        (NINE, NINE, "test", "labels: all 9 training images; all 9 test images"),
        (NINE, NINE, "train", "labels: all 9 training images"),
        (
            SOME,
            ALL,
            "train",
            "labels: depth 1,200, segmentation 31 of 1,200 training images; "
            "all 1,200 evaluated images",
        ),
    ],
)
def test_the_labels_stand_under_the_table(trained, judged, split, line):
    counted = {"trained": trained, "present": ALL, "judged": judged}
    result = {"metrics": evaluation(0.4, 0.5), "floor": evaluation(0.02, 0.9)}
    found = terminal.text_table(
        result | {"split": split, "labels": counted}, DEPTH_AND_CLASSES, "uw"
    )
    assert (
        found.splitlines()[:-1] == terminal.text_table(result, DEPTH_AND_CLASSES, "uw").splitlines()
    )
    assert found.splitlines()[-1] == line


def test_why_a_task_has_no_metrics():
    counted = {"judged": {"images": 9, "depth": 0, "segmentation": 4}}
    assert labels.none_of(counted, "test") == {
        "depth": "none of the 9 test images has depth labels"
    }
    assert labels.none_of({}, "test") == {}
