"""The loop: what is left after kills, signals and broken gradients is what would have been."""

import json
import os
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from mtl_jax import checkpoint, optimizer, step, train, workdir
from mtl_jax.weighting import METHODS
from tests import fakes, tiny

EPOCHS = 4


def start(folder, method="nash"):
    """A run in a process of its own, on one device."""
    return subprocess.Popen(
        [sys.executable, "-m", "tests.tiny", str(folder), str(EPOCHS), method],
        env={**os.environ, "XLA_FLAGS": "", "JAX_PLATFORMS": "cpu"},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def run(folder, method="nash"):
    """The same, waited for; what it printed."""
    process = start(folder, method)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    return output


def final_state(folder):
    """All arrays of the last checkpoint, and its step."""
    with checkpoint.open_checkpoints(folder) as manager:
        state = manager.restore(
            manager.latest_step(), args=checkpoint.ocp.args.StandardRestore(_empty_state())
        )
        return int(state.step), jax.device_get(jax.tree.leaves(state))


def rows(folder):
    """The rows of metrics.jsonl, all of them good."""
    found, faults = workdir.read_metrics(folder)
    assert faults == []
    return found


def _empty_state():
    adam = optimizer.adam(lambda step: 0.0)
    return step.init_state(
        tiny.network(), tiny.TASKS, METHODS["nash"](), adam, seed=0, image_size=(32, 48)
    )


def wait_for(condition, process):
    deadline = time.monotonic() + 200
    while not condition() and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    run(folder)
    return folder


def assert_same_run(one, other):
    step_one, leaves_one = final_state(one)
    step_other, leaves_other = final_state(other)
    assert step_one == step_other == EPOCHS * 5
    for a, b in zip(leaves_one, leaves_other, strict=True):
        np.testing.assert_array_equal(a, b)
    for a, b in zip(rows(one), rows(other), strict=True):
        for key in ("epoch", "step", "train", "weights", "diagnostics", "evaluation"):
            assert a[key] == b[key]


def test_a_killed_run_goes_on_bit_for_bit(undisturbed, tmp_path):
    # Killed once as soon as there is a checkpoint, and once after some steps more.
    for delay in (0.0, 0.15):
        process = start(tmp_path)
        wait_for(
            lambda: (tmp_path / "metrics.jsonl").exists() and list(tmp_path.glob("checkpoints/*")),
            process,
        )
        time.sleep(delay)
        process.kill()
        process.communicate()
    run(tmp_path)
    assert_same_run(undisturbed, tmp_path)


def test_sigterm_saves_and_the_run_goes_on_bit_for_bit(undisturbed, tmp_path):
    process = start(tmp_path)
    wait_for(
        lambda: (
            "epoch" in (tmp_path / "metrics.jsonl").read_text()
            if (tmp_path / "metrics.jsonl").exists()
            else False
        ),
        process,
    )
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=200)
    assert process.returncode == 0, output
    assert "stopped and saved at step" in output
    saved = int(output.split("saved at step ")[1].split()[0])
    with checkpoint.open_checkpoints(tmp_path) as manager:
        assert manager.latest_step() == saved
    assert f"resumed from step {saved}" in run(tmp_path)
    assert_same_run(undisturbed, tmp_path)


def test_sigterm_between_two_epochs_loses_no_row(tmp_path, monkeypatch):
    add = train.results.Log.add

    def add_and_signal(log, row):
        add(log, row)
        if row["epoch"] == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(train.results.Log, "add", add_and_signal)
    with pytest.raises(train.Stopped, match="saved at step 10 of 15"):
        tiny.run(tmp_path, epochs=3)
    tiny.run(tmp_path, epochs=3)
    assert [row["step"] for row in rows(tmp_path)] == [5, 10, 15]


def test_a_finished_run_is_left_as_it_is(undisturbed):
    before = final_state(undisturbed)
    result = json.loads((undisturbed / "result.json").read_text())
    run(undisturbed)
    assert final_state(undisturbed)[0] == before[0]
    assert json.loads((undisturbed / "result.json").read_text()) == result


def test_a_finished_run_left_tables_and_samples(undisturbed):
    result = json.loads((undisturbed / "result.json").read_text())
    written = rows(undisturbed)
    assert [row["step"] for row in written] == [5, 10, 15, 20]
    assert result["metrics"]["segmentation/miou"] == written[-1]["evaluation"]["segmentation/miou"]
    assert result["last"] == {"evaluations": 1, "metrics": result["metrics"]}
    assert set(result["class_iou"]) == set(fakes.CLASSES)
    samples = np.load(undisturbed / "samples.npz")
    assert samples["predicted_depth"].shape == samples["depth"].shape
    assert list(undisturbed.glob("events.out.tfevents*"))
    assert written[0]["images_per_second"] > 0


def test_gradients_that_stay_broken_stop_the_run_and_keep_the_last_good_state(
    tmp_path, monkeypatch
):
    tiny.run(tmp_path, epochs=1)
    good = final_state(tmp_path)[1]
    clean = fakes.example

    def broken(index, **size):
        example = clean(index, **size)
        example["depth"][20, 20] = np.inf
        return example

    monkeypatch.setattr(fakes, "example", broken)
    with pytest.raises(FloatingPointError, match="10 steps in a row.*--learning_rate"):
        tiny.run(tmp_path, epochs=9)
    assert (tmp_path / "checkpoints").exists()
    step_now, leaves = final_state(tmp_path)
    state = jax.tree.unflatten(jax.tree.structure(_empty_state()), leaves)
    kept = jax.tree.unflatten(jax.tree.structure(_empty_state()), good)
    for a, b in zip(jax.tree.leaves(kept.variables), jax.tree.leaves(state.variables), strict=True):
        np.testing.assert_array_equal(a, b)
    skipped = [row["skipped_steps"] for row in rows(tmp_path)]
    assert skipped == [0, 5][: len(skipped)]


def test_the_best_checkpoint_on_validation_is_kept(tmp_path, monkeypatch):
    scores = iter([1.0, 3.0, 2.0, 2.5])
    monkeypatch.setattr(train.results, "score", lambda evaluation, tasks: next(scores))
    tiny.run(tmp_path, epochs=4, validation=4, weighting="equal")
    with checkpoint.open_checkpoints(tmp_path, best=True) as manager:
        assert manager.best_step() == 2 * 4
        # The one before the last goes when the next is safely written.
        assert {2 * 4, 4 * 4} <= set(manager.all_steps()) <= {2 * 4, 3 * 4, 4 * 4}
