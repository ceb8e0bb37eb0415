import json
import math

import numpy as np
import pytest

from mtl_jax.report.runs import FILES, read_run, read_runs

METRICS = {"depth/absolute_error": 0.5, "depth/rmse": 0.7}


def test_a_complete_run_is_read_as_it_was_written(write_run):
    path = write_run(
        tasks=("depth", "segmentation"),
        metrics=METRICS,
        floor={"depth/absolute_error": 0.9},
        class_iou={"bed": 0.25, "tv": None},
        pictures=True,
        seed=3,
    )
    run = read_run(path)
    assert run.missing == ()
    assert run.tasks == ("segmentation", "depth")
    assert run.config["seed"] == 3
    assert [epoch.epoch for epoch in run.epochs] == [1, 2]
    assert run.epochs[1].train == {"depth/loss": 0.5, "segmentation/loss": 0.5}
    assert run.epochs[1].facts["images_per_second"] == 20.0
    assert run.result.metrics == METRICS
    assert run.result.evaluations == 1
    assert run.result.floor == {"depth/absolute_error": 0.9}
    assert run.result.class_iou == {"bed": 0.25}
    assert set(run.samples) == {
        "image", "segmentation", "depth", "predicted_segmentation", "predicted_depth",
    }  # fmt: skip


def test_the_mean_of_the_last_evaluations_comes_before_the_final_one(write_run):
    last = {"evaluations": 10, "metrics": {"depth/absolute_error": 0.6}}
    result = read_run(write_run("a", metrics=METRICS, last=last)).result
    assert result.metrics == {"depth/absolute_error": 0.6, "depth/rmse": 0.7}
    assert result.evaluations == 10
    # One evaluation is the final one; evaluations of held-out images are of another split.
    for name, more in (("b", {"last": last | {"evaluations": 1}}), ("c", {"validation": 50})):
        result = read_run(write_run(name, metrics=METRICS, **({"last": last} | more))).result
        assert result.metrics == METRICS
        assert result.evaluations == 1


@pytest.mark.parametrize(
    ("name", "phrase"),
    [
        ("config.json", "named after its directory"),
        ("metrics.jsonl", "no curves"),
        ("result.json", "no row in the tables"),
        ("samples.npz", "no pictures"),
    ],
)
@pytest.mark.parametrize("damage", ["absent", "empty", "cut", "list", "binary"])
def test_a_missing_or_broken_file_is_said_and_stops_nothing(write_run, name, phrase, damage):
    path = write_run(metrics=METRICS, pictures=True)
    content = (path / name).read_bytes()
    broken = {
        "empty": b"",
        "cut": content[: len(content) // 3],
        "list": b"[1]",
        "binary": b"\xff\0",
    }
    if damage == "absent":
        (path / name).unlink()
    else:
        (path / name).write_bytes(broken[damage])
    run = read_run(path)
    assert len(run.missing) == 1
    assert name in run.missing[0]
    if name != "metrics.jsonl" or damage in ("absent", "empty"):
        assert phrase in run.missing[0]
    # The tasks are known from the numbers, too.
    assert run.tasks == ("segmentation", "depth", "normals")


def test_a_folder_that_is_no_run_is_refused_in_one_line(tmp_path):
    for path in (tmp_path, tmp_path / "absent"):
        with pytest.raises(ValueError, match="not a run's work directory") as error:
            read_run(path)
        assert str(path) in str(error.value)
        assert all(name in str(error.value) for name in FILES)
        assert "\n" not in str(error.value)
    with pytest.raises(ValueError, match="one work directory"):
        read_runs([])


def test_a_directory_given_twice_is_read_once(write_run, tmp_path):
    path = write_run()
    assert len(read_runs([path, str(path), tmp_path / "." / "run"])) == 1


def test_a_folder_of_runs_stands_for_those_in_it(write_run, tmp_path):
    inside = [write_run(f"study/{name}") for name in ("b", "a")]
    (tmp_path / "study" / "report").mkdir()
    alone = write_run("alone")
    found = read_runs([alone, tmp_path / "study", inside[0]])
    assert [run.path for run in found] == [alone, inside[1], inside[0]]


def test_an_unfinished_line_is_left_out_and_a_repeated_epoch_replaced(write_run, make_epoch):
    path = write_run(lines=[make_epoch(2), make_epoch(1), make_epoch(2, skipped_steps=7)])
    with (path / "metrics.jsonl").open("a") as file:
        file.write('{"epoch": 3, "train": {"depth/l')
    run = read_run(path)
    assert [epoch.epoch for epoch in run.epochs] == [1, 2]
    assert run.epochs[1].facts["skipped_steps"] == 7
    assert "1 line of metrics.jsonl" in run.missing[0]


def test_values_that_are_no_numbers_are_left_out(write_run, make_epoch):
    odd = {"depth/loss": None, "normals/loss": "x", "segmentation/loss": math.nan}
    path = write_run(lines=[make_epoch(1, train=odd, weights=None, diagnostics=[1])])
    (epoch,) = read_run(path).epochs
    assert list(epoch.train) == ["segmentation/loss"]
    assert math.isnan(epoch.train["segmentation/loss"])
    assert epoch.weights == epoch.diagnostics == {}


def test_a_result_without_metrics_is_no_result(write_run):
    path = write_run()
    run = read_run(path)
    assert run.result is None
    assert "result.json has no metrics" in run.missing[0]
    (path / "result.json").write_text(json.dumps({"metrics": [], "last": 3}))
    assert read_run(path).result is None


def test_samples_of_another_shape_are_left_out(write_run, make_samples):
    path = write_run(metrics=METRICS)
    arrays = make_samples()
    arrays["predicted_depth"] = arrays["predicted_depth"][:, 1:]
    np.savez(path / "samples.npz", **arrays)
    run = read_run(path)
    assert "predicted_depth" not in run.samples
    assert "depth" in run.samples
    assert "predicted_depth" in run.missing[0]
    np.savez(path / "samples.npz", depth=arrays["depth"])
    assert read_run(path).samples == {}
