"""What a run writes down of its measurements."""

import json
import math
import re

import jax.numpy as jnp
import pytest

from mtl_jax import results, workdir
from mtl_jax.tasks import TASKS, select

DEPTH_AND_CLASSES = select(["depth", "segmentation"])


def evaluation(miou, absolute):
    """All metrics of the two tasks: those that count here, and tenths."""
    names = [metric.name for task in DEPTH_AND_CLASSES for metric in task.metrics]
    return {name: 0.1 for name in names} | {
        "segmentation/miou": miou,
        "depth/absolute_error": absolute,
        "class_iou/0": 0.25,
        "class_iou/1": math.nan,
    }


def row(epoch, **values):
    return {"epoch": epoch, "step": 10 * epoch, "skipped_steps": 1, "train": {}, **values}


def test_epoch_row_averages_over_the_steps_that_were_not_skipped():
    sums = {
        "steps": 4.0, "skipped": 2.0,
        "loss/depth": 6.0, "loss/segmentation": 10.0,
        "labelled/depth": 4.0, "labelled/segmentation": 2.0,
        "weight/depth": 2.0, "weight/segmentation": 8.0,
        "diagnostic/residual": 1.0, "diagnostic/cosine/depth-segmentation": -2.0,
    }  # fmt: skip
    sums = {name: jnp.float32(value) for name, value in sums.items()}
    assert results.epoch_row(sums, DEPTH_AND_CLASSES, epoch=3, step=18) == {
        "epoch": 3,
        "step": 18,
        "skipped_steps": 2,
        "steps_without_labels": {"depth": 0, "segmentation": 2},
        "train": {"depth/loss": 1.5, "segmentation/loss": 5.0},
        "weights": {"depth": 0.5, "segmentation": 2.0},
        "diagnostics": {"residual": 0.25, "cosine/depth-segmentation": -0.5},
    }


def test_epoch_row_of_skipped_steps_only_is_finite():
    names = ["steps", "skipped", "loss/normals", "labelled/normals", "weight/normals"]
    sums = {name: jnp.float32(7.0 if name == "skipped" else 0.0) for name in names}
    found = results.epoch_row(sums, [TASKS["normals"]], epoch=1, step=7)
    assert found["train"] == {"normals/loss": 0.0}
    assert found["skipped_steps"] == 7


def test_score_rises_by_the_same_when_any_tasks_error_is_halved():
    base = results.score(evaluation(0.2, 0.6), DEPTH_AND_CLASSES)
    by_depth = results.score(evaluation(0.2, 0.3), DEPTH_AND_CLASSES)
    by_classes = results.score(evaluation(0.6, 0.6), DEPTH_AND_CLASSES)
    assert by_depth - base == pytest.approx(math.log(2) / 2)
    assert by_classes - base == pytest.approx(math.log(2) / 2)


def test_score_of_a_perfect_result_is_finite():
    assert math.isfinite(results.score(evaluation(1.0, 0.0), DEPTH_AND_CLASSES))


def test_mean_is_of_each_value():
    assert results.mean([{"a": 1.0, "b": 2.0}, {"a": 3.0, "b": 5.0}]) == {"a": 2.0, "b": 3.5}
    unknown = results.mean([{"a": 1.0, "b": None}, {"a": 3.0, "b": 5.0, "c": 1.0}])
    assert unknown["a"] == 2.0
    assert math.isnan(unknown["b"])
    assert math.isnan(unknown["c"])


def test_classes_are_told_apart_from_metrics():
    found = evaluation(0.5, 0.5)
    assert not any(name.startswith("class_iou") for name in results.without_classes(found))
    assert results.by_class(found, ("bed", "tv")) == {"bed": 0.25, "tv": None}


def test_log_writes_rows_and_drops_those_of_later_steps_on_resuming(tmp_path, capsys):
    log = results.Log(tmp_path, DEPTH_AND_CLASSES, start=0)
    for epoch in (1, 2):
        log.add(row(epoch, evaluation=evaluation(0.1 * epoch, 0.5)))
    log.close()
    assert [line["epoch"] for line in workdir.read_metrics(tmp_path)] == [1, 2]
    assert "epoch 2: AbsErr 0.5000 m  RelErr 0.1000  mIoU 20.00%" in capsys.readouterr().out
    assert list(tmp_path.glob("events.out.tfevents.*"))
    resumed = results.Log(tmp_path, DEPTH_AND_CLASSES, start=10)
    assert [line["epoch"] for line in workdir.read_metrics(tmp_path)] == [1]
    resumed.add(row(2))
    resumed.close()
    assert [line["epoch"] for line in workdir.read_metrics(tmp_path)] == [1, 2]


def test_finish_writes_the_result_with_the_mean_of_the_last_evaluations(tmp_path):
    log = results.Log(tmp_path, DEPTH_AND_CLASSES, start=0)
    for epoch in range(1, 101):
        log.rows.append(row(epoch, evaluation=evaluation(epoch / 1000, 0.5)))
    log.close()
    result = log.finish(
        evaluation(0.5, 0.4), evaluation(0.02, 0.9), ("bed", "tv"), watched="test", leaked=3
    )
    assert result == json.loads((tmp_path / "result.json").read_text())
    assert (result["epoch"], result["step"], result["skipped_steps"]) == (100, 1000, 100)
    assert result["leaked"] == 3
    assert result["metrics"]["segmentation/miou"] == 0.5
    assert result["floor"]["depth/absolute_error"] == 0.9
    assert result["class_iou"] == {"bed": 0.25, "tv": None}
    assert result["last"]["evaluations"] == 10
    assert result["last"]["epochs"] == [91, 100]
    # The mean of 0.091, 0.092, ... 0.1.
    assert result["last"]["metrics"]["segmentation/miou"] == pytest.approx(0.0955)


@pytest.mark.parametrize(
    ("epochs", "every", "watched"),
    [(9, 1, "test"), (12, 1, "test"), (99, 1, "test"), (100, 2, "test"), (200, 1, "validation")],
)
def test_the_final_evaluation_stands_alone_without_ten_in_the_last_tenth(
    tmp_path, epochs, every, watched
):
    log = results.Log(tmp_path, DEPTH_AND_CLASSES, start=0)
    for epoch in range(1, epochs + 1):
        seen = {"evaluation": evaluation(epoch / 1000, 0.5)} if epoch % every == 0 else {}
        log.rows.append(row(epoch, **seen))
    log.close()
    final = evaluation(0.5, 0.4)
    result = log.finish(final, evaluation(0.02, 0.9), ("bed", "tv"), watched=watched, leaked=0)
    assert result["last"] == {
        "evaluations": 1, "epochs": [epochs, epochs], "metrics": result["metrics"]
    }  # fmt: skip


@pytest.mark.parametrize("unknown", [math.nan, None])
def test_result_json_is_json_where_a_metric_is_unknown(tmp_path, unknown):
    log = results.Log(tmp_path, DEPTH_AND_CLASSES, start=0)
    final = evaluation(unknown, 0.4) | {"class_iou/1": unknown}
    for epoch in range(1, 101):
        log.rows.append(row(epoch, evaluation=final))
    log.close()
    result = log.finish(final, evaluation(math.nan, 0.9), ("bed", "tv"), watched="test", leaked=0)
    text = (tmp_path / "result.json").read_text()

    def refuse(name):
        raise AssertionError(f"{name} is no JSON")

    assert json.loads(text, parse_constant=refuse) == result
    for values in (result["metrics"], result["last"]["metrics"], result["floor"]):
        assert values["segmentation/miou"] is None
        assert values["depth/rmse"] == pytest.approx(0.1)
    table = results.text_table(result, DEPTH_AND_CLASSES, "nash")
    assert "nan" not in table.lower()


def test_text_table_stands_over_the_trivial_predictor():
    result = {
        "metrics": evaluation(0.4567, 0.5),
        "last": {"evaluations": 10, "metrics": evaluation(0.45, 0.6)},
        "floor": evaluation(0.0213, 0.9),
    }
    lines = results.text_table(result, DEPTH_AND_CLASSES, "nash").splitlines()
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
    for given in (result, one):
        assert len(results.text_table(given, DEPTH_AND_CLASSES, "uw").splitlines()) == 3
