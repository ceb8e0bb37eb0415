import json
import math

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mtl_jax.report.few_labels import collect, left_out
from mtl_jax.report.grouping import distinct, group_runs
from mtl_jax.report.notes import table_notes
from mtl_jax.report.read import FILES, read_run, read_runs
from mtl_jax.report.rows import result_rows
from mtl_jax.report.tables import class_table, further_table, standard_table, to_csv, to_markdown

METRICS = {"depth/absolute_error": 0.5, "depth/rmse": 0.7}


def test_a_complete_run_is_read_as_it_was_written(write_run):
    path = write_run(
        tasks=("depth", "segmentation"),
        metrics=METRICS,
        result={
            "floor": {"depth/absolute_error": 0.9},
            "class_iou": {"bed": 0.25, "tv": None},
        },
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
    (run,) = read_runs([write_run("a", metrics=METRICS, result={"last": last()}, epochs=100)])
    assert run.result.metrics == {"depth/absolute_error": 0.6, "depth/rmse": 0.7}
    assert run.result.evaluations == 10
    # One evaluation is the final one; evaluations of held-out images are of another split.
    for name, mean, validation in (("b", last(1), 0), ("c", last(), 50)):
        more = {"result": {"last": mean}, "validation": validation}
        (run,) = read_runs([write_run(name, metrics=METRICS, epochs=100, **more)])
        assert run.result.metrics == METRICS
        assert run.result.evaluations == 1


def test_a_mean_that_reaches_back_beyond_the_last_tenth_is_not_a_result(write_run, make_epoch):
    # As an older result.json has it: without its epochs, which are then read from metrics.jsonl.
    old = {key: value for key, value in last().items() if key != "epochs"}
    every = {n: [make_epoch(epoch) for epoch in range(n, 101, n)] for n in (1, 2)}
    for name, expected, mean, how in (
        ("short", 1, last(10, 3, 12), {"epochs": 12}),
        ("almost", 1, last(10, 90, 99), {"epochs": 99}),
        ("enough", 10, last(10, 91, 100), {"epochs": 100}),
        ("old, each", 10, old, {"epochs": 100, "lines": every[1]}),
        ("old, every second", 1, old, {"epochs": 100, "lines": every[2]}),
        ("old, without curves", 1, old, {"epochs": 100, "lines": []}),
    ):
        (run,) = read_runs([write_run(name, metrics=METRICS, result={"last": mean}, **how)])
        assert run.result.evaluations == expected, name


def test_means_and_final_values_are_never_mixed(write_run):
    mean, longer = (
        write_run(name, metrics=METRICS, epochs=100, result={"last": last(number)})
        for name, number in (("mean", 10), ("longer", 5))
    )
    final = write_run("final", metrics=METRICS)
    going = write_run("going", result=None)
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
    assert "result.json is of epoch 2, but the run has 5" in " ".join(run.missing)


@pytest.mark.parametrize(
    ("name", "phrase"),
    [
        ("config.json", "named after its folder"),
        ("metrics.jsonl", "no curves"),
        ("result.json", "no row in the tables"),
        ("samples.npz", "no pictures"),
    ],
)
@pytest.mark.parametrize("damage", ["absent", "empty", "cut", "list", "binary"])
def test_a_missing_or_broken_file_is_reported_and_stops_nothing(write_run, name, phrase, damage):
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


def test_a_folder_that_is_not_a_run_is_refused_in_one_line(tmp_path):
    for path in (tmp_path, tmp_path / "absent"):
        with pytest.raises(ValueError, match="not the folder of a run") as error:
            read_run(path)
        assert str(path) in str(error.value)
        assert all(name in str(error.value) for name in FILES)
        assert "\n" not in str(error.value)
    with pytest.raises(ValueError, match="at least one run"):
        read_runs([])


def test_an_empty_name_between_commas_is_refused(write_run):
    with pytest.raises(ValueError, match="`workdir` has an empty name"):
        read_runs([str(write_run()), ""])


# What JSON can hold, among it what Python's reader takes beyond the standard.
SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5),
    st.sampled_from([10**400, -(10**400), 1e308, -1e308, 5e-324, "\ud800", "$\\x$", "a|b\nc", ""]),
)  # fmt: skip
KEYS = st.one_of(
    st.text(max_size=4),
    st.sampled_from(
        ["epoch", "epochs", "tasks", "weighting", "seed", "label_fraction", "image_size", "dataset",
         "train", "weights", "evaluation", "diagnostics", "images_per_second", "seconds", "metrics",
         "last", "floor", "class_iou", "class_names", "leaked", "split", "batch_size", "validation",
         "depth/loss", "depth/absolute_error", "segmentation/miou", "cosine/a-b", "depth_loss",
         "evaluations", "normals_loss", "model", "backbone", "fallback", "depth", "segmentation"]
    ),
)  # fmt: skip
JSON = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(KEYS, inner, max_size=4),
        st.sampled_from([["depth"], ["segmentation", "depth"], {"depth": 1.0}]),
    ),
    max_leaves=12,
)


def damaged(whole, part):
    """The content of a good file with any of its entries replaced, or another content."""
    replaced = st.dictionaries(st.sampled_from(sorted(whole)), part, max_size=4)
    return st.one_of(part, replaced.map(lambda new: whole | new), st.just(whole))


CONFIG = {
    "dataset": "rooms", "tasks": ["segmentation", "depth"], "weighting": "nash", "seed": 0,
    "image_size": [6, 8], "epochs": 2, "batch_size": 8, "class_names": ["a"], "model": "mtan",
    "label_fraction": 0.5, "pretrained": None, "validation": 0, "depth_loss": "l1",
}  # fmt: skip
LINE = {
    "epoch": 1, "step": 5, "seconds": 3.0, "images_per_second": 2.0, "skipped_steps": 0,
    "train": {"depth/loss": 1.0}, "weights": {"segmentation": 1.0, "depth": 2.0},
    "diagnostics": {"cosine/segmentation-depth": 0.5, "fallback": 0.0},
    "evaluation": {"depth/loss": 1.0, "depth/absolute_error": 0.5},
}  # fmt: skip
RESULT = {
    "split": "test", "epoch": 2, "metrics": METRICS | {"segmentation/miou": 0.5}, "leaked": 0,
    "floor": METRICS, "class_iou": {"a": 0.5, "b": None},
    "last": {"evaluations": 10, "epochs": [91, 100], "metrics": METRICS},
}  # fmt: skip


def as_bytes(content):
    return json.dumps(content).encode()


@settings(
    derandomize=True, deadline=None, max_examples=150,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)  # fmt: skip
@given(
    config=damaged(CONFIG, JSON),
    lines=st.lists(damaged(LINE, JSON), max_size=3),
    result=damaged(RESULT, JSON),
)
def test_any_json_is_read_as_far_as_it_makes_sense(tmp_path, config, lines, result):
    path = tmp_path / "run"
    path.mkdir(exist_ok=True)
    (path / "config.json").write_bytes(as_bytes(config))
    (path / "metrics.jsonl").write_bytes(b"\n".join(map(as_bytes, lines)))
    (path / "result.json").write_bytes(as_bytes(result))
    run = read_run(path)
    words = " ".join(run.missing)
    assert isinstance(config, dict) or "config.json" in words
    assert isinstance(result, dict) or "result.json" in words
    assert len(run.epochs) == len(lines) or "metrics.jsonl" in words or repeated(lines)
    # All that a report makes of it, but its pictures, which take seconds.
    rows = result_rows(group_runs(distinct(read_runs([path]))[0]))
    for table in (standard_table(rows), further_table(rows), class_table(rows)):
        to_markdown(table).encode()
        to_csv(rows, [table]).encode()
    table_notes(group_runs([run]), rows)
    assert left_out([run]) is not None
    assert collect([run]) is not None


def repeated(lines):
    epochs = [line["epoch"] for line in lines if isinstance(line, dict) and "epoch" in line]
    return any(epochs.count(epoch) > 1 for epoch in epochs)


@pytest.mark.parametrize("name", ["config.json", "metrics.jsonl", "result.json"])
@pytest.mark.parametrize(
    "content",
    [b"null", b"5", b"[1]", b'"text"', b"{", b"\xff\xfe{}", b"NaN", b"[" * 10**5, b"1" * 10**5,
     b'{"epochs": 1' + b"0" * 10**4 + b"}"],
)  # fmt: skip
def test_json_of_the_wrong_kind_is_named(write_run, name, content):
    path = write_run(metrics=METRICS, pictures=True)
    (path / name).write_bytes(content)
    run = read_run(path)
    assert len(run.missing) == 1
    assert name in run.missing[0]


def test_numbers_as_text_are_named(write_run):
    path = write_run(metrics={"depth/rmse": 0.5, "depth/absolute_error": "0.5"}, pictures=True)
    run = read_run(path)
    assert run.result.metrics == {"depth/rmse": 0.5}
    assert run.missing == ("result.json has no numbers as metrics/depth/absolute_error",)


@pytest.mark.parametrize(
    ("name", "replace"),
    [
        ("predicted_segmentation", lambda x: x.astype(np.float32)),
        ("predicted_segmentation", lambda x: np.full(x.shape, 10**9)),
        ("segmentation", lambda x: np.full(x.shape, -7)),
        ("depth", lambda x: x.astype(str)),
        ("depth", lambda x: x.astype(complex)),
        ("normals", lambda x: x.astype(bool)),
        ("normals", lambda x: x[..., :2]),
        ("image", lambda x: x.astype(np.float32)),
        ("image", lambda x: x[:0]),
        ("depth", lambda x: x.astype(object)),
    ],
)
def test_samples_of_another_type_or_range_are_named_and_left_out(
    write_run, make_samples, name, replace
):
    path = write_run(metrics=METRICS)
    arrays = make_samples()
    np.savez(path / "samples.npz", **arrays | {name: replace(arrays[name])})
    run = read_run(path)
    assert name not in run.samples
    assert len(run.missing) == 1
    assert "samples.npz" in run.missing[0]


@pytest.mark.parametrize("content", [b"", b"garbage", b"\x93NUMPY", "flat", "text", "nan", "plane"])
def test_a_broken_codebook_is_named(write_run, content):
    path = write_run(metrics=METRICS, pictures=True)
    assert read_run(path).missing == ()
    arrays = {
        "flat": np.ones(3), "text": np.full((9, 3), "x"), "nan": np.full((9, 3), np.nan),
        "plane": np.stack([np.cos(np.arange(9)), np.sin(np.arange(9)), np.zeros(9)], -1),
    }  # fmt: skip
    if isinstance(content, bytes):
        (path / "codebook.npy").write_bytes(content)
    else:
        np.save(path / "codebook.npy", arrays[content])
    run = read_run(path)
    assert run.codebook is None
    assert run.missing == ("codebook.npy can't be read (no picture of the codebook)",)


def test_a_folder_given_twice_is_read_once(write_run, tmp_path):
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


def test_values_that_are_not_numbers_are_left_out(write_run, make_epoch):
    odd = {"depth/loss": None, "normals/loss": "x", "segmentation/loss": math.nan}
    path = write_run(lines=[make_epoch(1, train=odd, weights=None, diagnostics=[1])])
    run = read_run(path)
    assert "metrics.jsonl has no numbers as train/normals/loss, diagnostics" in run.missing
    (epoch,) = run.epochs
    assert list(epoch.train) == ["segmentation/loss"]
    assert math.isnan(epoch.train["segmentation/loss"])
    assert epoch.weights == epoch.diagnostics == {}


def test_a_result_without_metrics_is_not_a_result(write_run):
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
