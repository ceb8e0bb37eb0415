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


def last(number=10, first=91, end=100):
    metrics = {"depth/absolute_error": 0.6}
    return {"evaluations": number, "epochs": [first, end], "metrics": metrics}


def test_the_mean_of_the_last_evaluations_comes_before_the_final_one(write_run):
    (run,) = read_runs([write_run("a", metrics=METRICS, last=last(), epochs=100)])
    assert run.result.metrics == {"depth/absolute_error": 0.6, "depth/rmse": 0.7}
    assert run.result.evaluations == 10
    # One evaluation is the final one; evaluations of held-out images are of another split.
    for name, more in (("b", {"last": last(1)}), ("c", {"last": last(), "validation": 50})):
        (run,) = read_runs([write_run(name, metrics=METRICS, epochs=100, **more)])
        assert run.result.metrics == METRICS
        assert run.result.evaluations == 1


def test_a_mean_that_reaches_back_beyond_the_last_tenth_is_no_result(write_run, make_epoch):
    # As an older result.json has it: without its epochs, which metrics.jsonl then tells.
    old = {key: value for key, value in last().items() if key != "epochs"}
    every = {n: [make_epoch(epoch) for epoch in range(n, 101, n)] for n in (1, 2)}
    for name, expected, how in (
        ("short", 1, {"epochs": 12, "last": last(10, 3, 12)}),
        ("almost", 1, {"epochs": 99, "last": last(10, 90, 99)}),
        ("enough", 10, {"epochs": 100, "last": last(10, 91, 100)}),
        ("old, each", 10, {"epochs": 100, "last": old, "lines": every[1]}),
        ("old, every second", 1, {"epochs": 100, "last": old, "lines": every[2]}),
        ("old, without curves", 1, {"epochs": 100, "last": old, "lines": []}),
    ):
        (run,) = read_runs([write_run(name, metrics=METRICS, **how)])
        assert run.result.evaluations == expected, name


def test_means_and_final_values_are_never_mixed(write_run):
    mean, longer = (
        write_run(name, metrics=METRICS, epochs=100, last=last(number))
        for name, number in (("mean", 10), ("longer", 5))
    )
    final = write_run("final", metrics=METRICS)
    going = write_run("going", result=False)
    for others in ([final], [longer]):
        for run in read_runs([mean, *others]):
            assert run.result.metrics == METRICS
            assert run.result.evaluations == 1
    # A run without a result has neither.
    assert read_runs([mean, going])[0].result.evaluations == 10


def test_a_result_of_another_length_is_not_that_of_the_run(write_run):
    # As when a run of 2 epochs is made longer and stopped before its end.
    path = write_run(metrics=METRICS)
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps(config | {"epochs": 5}))
    run = read_run(path)
    assert run.result is None
    assert "result.json is that of epoch 2 of a run of 5" in " ".join(run.missing)


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
    run = read_run(path)
    assert "metrics.jsonl has no numbers as train/normals/loss, diagnostics" in run.missing
    (epoch,) = run.epochs
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
