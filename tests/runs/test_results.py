"""What a run writes down of its measurements."""

import json
import math
import struct

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tensorboardX.proto.event_pb2 import Event

from mtl_jax.runs import metrics_file, results, terminal
from tests.runs.evaluations import DEPTH_AND_CLASSES, evaluation

NAMES = ("bed", "tv")
LABELS = {
    "trained": {"images": 9, "segmentation": 2, "depth": 8},
    "present": {"images": 9, "segmentation": 4, "depth": 8},
    "judged": {"images": 3, "segmentation": 3, "depth": 3},
}


def row(epoch, **values):
    return {"epoch": epoch, "step": 10 * epoch, "skipped_steps": 1, "train": {}, **values}


def test_score_rises_by_the_same_when_any_tasks_error_is_halved():
    base = results.score(evaluation(0.2, 0.6), DEPTH_AND_CLASSES)
    by_depth = results.score(evaluation(0.2, 0.3), DEPTH_AND_CLASSES)
    by_classes = results.score(evaluation(0.6, 0.6), DEPTH_AND_CLASSES)
    assert by_depth - base == pytest.approx(math.log(2) / 2)
    assert by_classes - base == pytest.approx(math.log(2) / 2)


@pytest.mark.parametrize("broken", [math.nan, math.inf])
def test_a_result_that_is_not_finite_has_no_score(broken):
    assert results.score(evaluation(0.2, broken), DEPTH_AND_CLASSES) is None
    assert results.score(evaluation(math.nan, 0.2), DEPTH_AND_CLASSES) is None


def test_score_of_a_perfect_result_is_finite():
    assert math.isfinite(results.score(evaluation(1.0, 0.0), DEPTH_AND_CLASSES))


def test_mean_is_of_each_value():
    assert results.mean([{"a": 1.0, "b": 2.0}, {"a": 3.0, "b": 5.0}]) == {"a": 2.0, "b": 3.5}
    unknown = results.mean([{"a": 1.0, "b": None}, {"a": 3.0, "b": 5.0, "c": 1.0}])
    assert unknown["a"] == 2.0
    assert math.isnan(unknown["b"])
    assert math.isnan(unknown["c"])


def test_classes_are_distinguished_from_metrics():
    found = evaluation(0.5, 0.5)
    assert not any(name.startswith("class_iou") for name in results.without_classes(found))
    assert results.by_class(found, ("bed", "tv")) == {"bed": 0.25, "tv": None}


def test_log_writes_rows_and_drops_those_of_later_steps_on_resuming(tmp_path, capsys):
    log = results.Log(tmp_path, DEPTH_AND_CLASSES, start=0)
    for epoch in (1, 2):
        log.add(row(epoch, evaluation=evaluation(0.1 * epoch, 0.5)))
    assert [line["epoch"] for line in metrics_file.read(tmp_path)[0]] == [1, 2]
    # Nothing was wrong, so that nothing is said.
    assert capsys.readouterr().out == ""
    resumed = results.Log(tmp_path, DEPTH_AND_CLASSES, start=10, epoch=1, class_names=NAMES)
    assert "rows beyond step 10 of the checkpoint will be made again" in capsys.readouterr().out
    assert not (tmp_path / "metrics.jsonl.damaged").exists()
    assert [line["epoch"] for line in metrics_file.read(tmp_path)[0]] == [1]
    resumed.add(row(2))
    assert [line["epoch"] for line in metrics_file.read(tmp_path)[0]] == [1, 2]


def take_up(folder, lines, *, epoch=3):
    """A log over such lines of metrics.jsonl, of a run whose checkpoint is that of `epoch`."""
    content = "".join(
        (line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines
    )
    (folder / "metrics.jsonl").write_text(content)
    return results.Log(folder, DEPTH_AND_CLASSES, start=10 * epoch, epoch=epoch, class_names=NAMES)


GOOD = [row(epoch, evaluation=evaluation(epoch / 10, 0.5)) for epoch in (1, 2, 3)]


@pytest.mark.parametrize(
    ("lines", "kept", "words"),
    [
        ([GOOD[0], "{broken", GOOD[2]], [1, 3], "line 2 can't be read"),
        ([GOOD[0], "null", GOOD[2]], [1, 3], "line 2 can't be read (no JSON object)"),
        ([GOOD[0], {"epoch": 2}, GOOD[2]], [1, 3], "1 of its lines can't be rows of this run"),
        ([GOOD[0], GOOD[1] | {"step": "20"}, GOOD[2]], [1, 3], "1 of its lines can't"),
        ([GOOD[0], GOOD[1] | {"step": True}, GOOD[2]], [1, 3], "1 of its lines can't"),
        ([GOOD[0], GOOD[1] | {"evaluation": 5}, GOOD[2]], [1, 3], "1 of its lines can't"),
        ([GOOD[0], GOOD[1] | {"train": {"a": "b"}}, GOOD[2]], [1, 3], "1 of its lines can't"),
        ([GOOD[0], GOOD[1] | {"evaluation": {}}, GOOD[2]], [1, 3], "1 of its lines can't"),
        ([GOOD[1], GOOD[0], GOOD[2]], [2, 3], "1 of its lines can't"),
        ([*GOOD, GOOD[2]], [1, 2, 3], "1 of its lines can't"),
        ([GOOD[0], GOOD[2]], [1, 3], "the rows of epoch 2 are lost"),
        ([GOOD[0]], [1], "the rows of epochs 2 to 3 are lost"),
        ([], [], "the rows of epochs 1 to 3 are lost"),
        ([*GOOD, row(4)], [1, 2, 3], "rows beyond step 30 of the checkpoint will be made again"),
    ],
)
def test_rows_that_cannot_be_used_are_reported_and_the_others_kept(
    tmp_path, capsys, lines, kept, words
):
    log = take_up(tmp_path, lines)
    assert [line["epoch"] for line in log.rows] == kept
    assert [line["epoch"] for line in metrics_file.read(tmp_path)[0]] == kept
    printed = capsys.readouterr().out
    assert words in printed
    assert printed.count("\n") == 1


def test_a_damaged_file_of_rows_is_kept_for_a_repair(tmp_path, capsys):
    take_up(tmp_path, [GOOD[0], "{broken", GOOD[2]])
    assert "it is kept as metrics.jsonl.damaged" in capsys.readouterr().out
    assert "{broken" in (tmp_path / "metrics.jsonl.damaged").read_text()
    take_up(tmp_path, [GOOD[0], "{another", GOOD[2]])
    assert "{broken" in (tmp_path / "metrics.jsonl.damaged").read_text()
    assert "{another" in (tmp_path / "metrics.jsonl.damaged-2").read_text()


def test_the_result_is_of_the_checkpoint_and_not_of_the_rows_that_are_left(tmp_path):
    many = [row(epoch, evaluation=evaluation(epoch / 100, 0.5)) for epoch in range(1, 13)]
    log = take_up(tmp_path, many[:11], epoch=12)
    final = evaluation(0.5, 0.4)
    result = log.finish(final, evaluation(0.02, 0.9), watched="test", leaked=0, labels=LABELS)
    assert (result["epoch"], result["step"]) == (12, 120)
    # Ten rows are left, but of evaluations that are not the last ones.
    assert result["last"] == {"evaluations": 1, "epochs": [12, 12], "metrics": result["metrics"]}
    assert result["skipped_steps"] is None


def test_spans_of_epochs():
    assert results.spans([4]) == "epoch 4"
    assert results.spans([1, 2, 3, 7, 9, 10]) == "epochs 1 to 3, 7, 9 to 10"


VALUES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3)


@settings(
    max_examples=150, derandomize=True, deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)  # fmt: skip
@given(
    st.lists(
        st.fixed_dictionaries(
            {"epoch": VALUES | st.integers(0, 4), "step": VALUES | st.integers(0, 40)},
            optional={
                "skipped_steps": VALUES,
                "train": VALUES | st.dictionaries(st.text(), VALUES),
                "evaluation": VALUES | st.just(evaluation(0.1, 0.2)),
            },
        )
        | st.sampled_from(GOOD),
        max_size=6,
    )
)
def test_a_result_can_be_made_of_the_good_rows(tmp_path, lines):
    log = take_up(tmp_path, lines)
    steps = [line["step"] for line in log.rows]
    assert steps == sorted(set(steps)) and all(step <= 30 for step in steps)
    final = evaluation(0.5, 0.4)
    result = log.finish(final, final, watched="test", leaked=0, labels=LABELS)
    assert result["step"] == 30


def events_of(folder):
    """Scalars of all event files, tag -> [(step, value), ...], and steps at which sessions begin.

    Read from the bytes: a record is its length, a checksum of that, the event and its checksum.
    """
    found, begins = {}, []
    for path in sorted(folder.glob("events.out.tfevents.*")):
        content, at = path.read_bytes(), 0
        while at < len(content):
            (length,) = struct.unpack_from("<Q", content, at)
            event = Event.FromString(content[at + 12 : at + 12 + length])
            at += length + 16
            if event.HasField("session_log"):
                begins.append(event.step)
            for value in event.summary.value:
                found.setdefault(value.tag, []).append((event.step, value.simple_value))
    return found, begins


def test_tensorboard_has_classes_by_name_and_the_run_of_the_training(tmp_path):
    log = results.Log(tmp_path, DEPTH_AND_CLASSES, start=20, class_names=NAMES)
    # A run that is killed before its first epoch leaves no empty file.
    assert not list(tmp_path.glob("events*"))
    more = {"learning_rate": 0.5, "images_per_second": None, "steps_without_labels": {"depth": 2}}
    log.add(row(3, evaluation=evaluation(0.25, 0.5), **more))
    written, begins = events_of(tmp_path)
    assert begins == [21]
    assert written["class_iou/bed"] == [(30, 0.25)]
    # Not finite: a class that does not occur, a pace that is not known yet.
    assert "class_iou/tv" not in written and "train/images_per_second" not in written
    assert written["train/learning_rate"] == [(30, 0.5)]
    assert written["train/skipped_steps"] == [(30, 1.0)]
    assert written["steps_without_labels/depth"] == [(30, 2.0)]
    assert written["evaluation/segmentation/miou"] == [(30, 0.25)]


def test_an_event_file_that_cannot_be_written_is_an_error_that_names_it(tmp_path):
    log = results.Log(tmp_path, DEPTH_AND_CLASSES, start=0)
    # Always full.
    log.events.path.symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left on device.*events.out.tfevents"):
        log.events.add({"a": 1.0}, 1)


def test_finish_writes_the_result_with_the_mean_of_the_last_evaluations(tmp_path):
    log = results.Log(tmp_path, DEPTH_AND_CLASSES, start=1000, epoch=100, class_names=NAMES)
    for epoch in range(1, 101):
        log.rows.append(row(epoch, evaluation=evaluation(epoch / 1000, 0.5)))
    result = log.finish(
        evaluation(0.5, 0.4), evaluation(0.02, 0.9), watched="test", leaked=3, labels=LABELS
    )
    assert result == json.loads((tmp_path / "result.json").read_text())
    assert (result["epoch"], result["step"], result["skipped_steps"]) == (100, 1000, 100)
    assert result["leaked"] == 3 and result["labels"] == LABELS
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
    log = results.Log(
        tmp_path, DEPTH_AND_CLASSES, start=10 * epochs, epoch=epochs, class_names=NAMES
    )
    for epoch in range(1, epochs + 1):
        seen = {"evaluation": evaluation(epoch / 1000, 0.5)} if epoch % every == 0 else {}
        log.rows.append(row(epoch, **seen))
    final = evaluation(0.5, 0.4)
    result = log.finish(final, evaluation(0.02, 0.9), watched=watched, leaked=0, labels=LABELS)
    assert result["last"] == {
        "evaluations": 1, "epochs": [epochs, epochs], "metrics": result["metrics"]
    }  # fmt: skip


@pytest.mark.parametrize("unknown", [math.nan, None])
def test_result_json_is_json_where_a_metric_is_unknown(tmp_path, unknown):
    log = results.Log(tmp_path, DEPTH_AND_CLASSES, start=1000, epoch=100, class_names=NAMES)
    final = evaluation(unknown, 0.4) | {"class_iou/1": unknown}
    for epoch in range(1, 101):
        log.rows.append(row(epoch, evaluation=final))
    result = log.finish(final, evaluation(math.nan, 0.9), watched="test", leaked=0, labels=LABELS)
    text = (tmp_path / "result.json").read_text()

    def refuse(name):
        raise AssertionError(f"{name} is no JSON")

    assert json.loads(text, parse_constant=refuse) == result
    for values in (result["metrics"], result["last"]["metrics"], result["floor"]):
        assert values["segmentation/miou"] is None
        assert values["depth/rmse"] == pytest.approx(0.1)
    assert "nan" not in terminal.text_table(result, DEPTH_AND_CLASSES, "nash").lower()
