"""The loop: what is left after kills, signals and broken gradients is what would have been."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import optax
import pytest

from mtl_jax import faults, parallel
from mtl_jax.runs import checkpoint, metrics_file, workdir
from mtl_jax.training import evaluation, loop, restore
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
    found, faults = metrics_file.read(folder)
    assert faults == []
    return found


def _empty_state():
    return tiny.fresh_state()


def wait_for(condition, process):
    deadline = time.monotonic() + 200
    while not condition() and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    tiny.run(folder, epochs=EPOCHS)
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
    with np.load(one / "evaluation.npz") as a, np.load(other / "evaluation.npz") as b:
        assert set(a) == set(b) > {"depth/over_distance", "normals/image"}
        for name in a:
            np.testing.assert_array_equal(a[name], b[name])


@pytest.mark.slow
def test_a_killed_run_goes_on_bit_for_bit(tmp_path):
    undisturbed, folder = tmp_path / "undisturbed", tmp_path / "run"
    run(undisturbed)
    path = folder / "metrics.jsonl"

    def count():
        return path.read_bytes().count(b"\n") if path.exists() else 0

    # Killed once as soon as there is an epoch, and once some steps after the next one.
    for delay in (0.0, 0.05):
        before = count()
        process = start(folder)
        wait_for(lambda before=before: count() > before, process)
        time.sleep(delay)
        process.kill()
        process.communicate()
        # It was killed amid its work, and had not ended by itself.
        assert process.returncode == -signal.SIGKILL
    assert not (folder / "result.json").exists()
    run(folder)
    assert_same_run(undisturbed, folder)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_and_the_run_goes_on_bit_for_bit(
    undisturbed, tmp_path, monkeypatch, capfd, number
):
    """In the middle of an epoch; tests/slow/test_kills.py sends signals to whole programs."""
    show = loop.show

    def show_and_signal(bar, tasks, shown, step):
        show(bar, tasks, shown, step)
        if step == 8:
            os.kill(os.getpid(), number)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "show", show_and_signal)
        patch.setattr(loop.Pace, "seconds", lambda pace: 100.0)
        # The host follows one step behind.
        with pytest.raises(faults.Stopped, match="saved at step 9 of 20"):
            tiny.run(tmp_path, epochs=EPOCHS)
    assert f"{number.name}: saving after this step" in capfd.readouterr().err
    with checkpoint.open_checkpoints(tmp_path) as manager:
        assert manager.latest_step() == 9
    monkeypatch.setattr(loop.Pace, "seconds", lambda pace: 1000.0)
    tiny.run(tmp_path, epochs=EPOCHS)
    assert "resumed from step 9" in capfd.readouterr().out
    assert_same_run(undisturbed, tmp_path)
    assert [row["seconds"] for row in rows(tmp_path)] == [100.0, 1100.0, 1000.0, 1000.0]


@pytest.mark.parametrize(("epoch", "step"), [(1, 5), (2, 10)])
def test_a_signal_between_two_epochs_loses_no_row(tmp_path, monkeypatch, epoch, step):
    add = loop.results.Log.add

    def add_and_signal(log, row):
        add(log, row)
        if row["epoch"] == epoch:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(loop.results.Log, "add", add_and_signal)
    with pytest.raises(faults.Stopped, match=f"saved at step {step} of 10"):
        tiny.run(tmp_path, epochs=2)
    tiny.run(tmp_path, epochs=2)
    assert [row["step"] for row in rows(tmp_path)] == [5, 10]


def test_a_second_signal_ends_at_once_and_others_are_as_before():
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with loop.stop_on_signals() as stopping:
        assert not stopping(1)
        os.kill(os.getpid(), signal.SIGTERM)
        assert stopping(2)
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(1)
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_output_that_fails_loses_no_epoch(tmp_path, monkeypatch):
    def fail(*_):
        raise UnicodeEncodeError("ascii", "°", 0, 1, "ordinal not in range(128)")

    monkeypatch.setattr(loop.tqdm, "write", fail)
    with pytest.raises(UnicodeEncodeError):
        tiny.run(tmp_path, epochs=2)
    assert final_state(tmp_path)[0] == 5
    assert [row["step"] for row in rows(tmp_path)] == [5]


def test_the_bar_says_what_it_waits_for_and_what_its_numbers_are(tmp_path, capsys):
    tiny.run(tmp_path, epochs=1)
    shown = capsys.readouterr().err
    assert "compiling" in shown.split("1/5")[0]
    assert "loss·weight:  seg " in shown.split("5/5")[1]
    assert "compiling" not in shown.split("5/5")[1]


def test_a_run_that_ends_amid_its_final_evaluation_makes_it_again(
    undisturbed, tmp_path, monkeypatch
):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(evaluation.Judge, "floor", interrupt)
        with pytest.raises(KeyboardInterrupt):
            tiny.run(tmp_path, epochs=1)
    assert final_state(tmp_path)[0] == 5
    assert not (tmp_path / "result.json").exists()
    result = tiny.run(tmp_path, epochs=1)
    assert result["step"] == 5
    assert result["metrics"]["depth/absolute_error"] == pytest.approx(
        rows(undisturbed)[0]["evaluation"]["depth/absolute_error"], rel=0.05
    )


def results_of(folder):
    return json.loads((folder / "result.json").read_text())


def lose_a_line(path, number):
    lines = path.read_text().splitlines()
    lines[number] = "{broken"
    path.write_text("".join(f"{line}\n" for line in lines))


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (lambda path: lose_a_line(path, 3), "line 4 can't be read"),
        (lambda path: path.unlink(), "the rows of epochs 1 to 4 are lost"),
        (lambda path: path.write_text("null\n5\n"), "line 2 can't be read (no JSON object)"),
    ],
)
def test_the_result_rests_on_the_checkpoint_alone(undisturbed, tmp_path, capsys, harm, words):
    folder = shutil.copytree(undisturbed, tmp_path / "run")
    before = results_of(folder)
    (folder / "result.json").unlink()
    harm(folder / "metrics.jsonl")
    result = tiny.run(folder, epochs=EPOCHS)
    assert words in capsys.readouterr().out
    assert (result["epoch"], result["step"]) == (EPOCHS, EPOCHS * 5)
    assert result["metrics"].keys() == before["metrics"].keys()
    for name, value in before["metrics"].items():
        assert result["metrics"][name] == pytest.approx(value, rel=1e-4, abs=1e-6)


def listing(folder):
    """Every file of a run with its content, but the owner's marks."""
    paths = [path for path in folder.rglob("*") if path.is_file() and path.name[0] != "."]
    return {path.relative_to(folder): path.read_bytes() for path in paths}


def test_a_run_that_is_refused_changes_nothing(undisturbed, tmp_path):
    folder = shutil.copytree(undisturbed, tmp_path / "run")
    before = listing(folder)
    with pytest.raises(ValueError, match="`epochs`: the run has taken 20 steps already"):
        tiny.run(folder, epochs=EPOCHS - 1)
    assert listing(folder) == before
    part = next(path for path in (folder / "checkpoints").rglob("_METADATA"))
    part.write_bytes(part.read_bytes() + b" ")
    before = listing(folder)
    with pytest.raises(ValueError, match="is damaged"):
        tiny.run(folder, epochs=EPOCHS + 1)
    assert listing(folder) == before


def test_a_run_that_goes_on_has_no_result_until_its_new_end(undisturbed, tmp_path, monkeypatch):
    folder = shutil.copytree(undisturbed, tmp_path / "run")
    with monkeypatch.context() as patch:
        patch.setattr(loop, "run_epoch", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            tiny.run(folder, epochs=EPOCHS + 1)
    assert workdir.finished_epoch(folder) == 0
    assert not (folder / "samples.npz").exists()
    assert tiny.run(folder, epochs=EPOCHS)["epoch"] == EPOCHS


def test_a_finished_run_is_left_as_it_is(undisturbed):
    before = final_state(undisturbed)
    result = json.loads((undisturbed / "result.json").read_text())
    tiny.run(undisturbed, epochs=EPOCHS)
    assert final_state(undisturbed)[0] == before[0]
    assert json.loads((undisturbed / "result.json").read_text()) == result


def test_a_finished_run_left_tables_and_samples(undisturbed):
    result = json.loads((undisturbed / "result.json").read_text())
    written = rows(undisturbed)
    assert [row["step"] for row in written] == [5, 10, 15, 20]
    assert result["metrics"]["segmentation/miou"] == written[-1]["evaluation"]["segmentation/miou"]
    assert result["last"] == {
        "evaluations": 1, "epochs": [EPOCHS, EPOCHS], "metrics": result["metrics"]
    }  # fmt: skip
    assert set(result["class_iou"]) == set(fakes.CLASSES)
    samples = np.load(undisturbed / "samples.npz")
    assert samples["predicted_depth"].shape == samples["depth"].shape
    assert list(undisturbed.glob("events.out.tfevents*"))
    assert written[0]["images_per_second"] > 0


def break_depth(monkeypatch):
    """Gives every image a depth whose loss is infinite."""
    clean = fakes.example

    def broken(index, **size):
        example = clean(index, **size)
        example["depth"][20, 20] = np.inf
        return example

    monkeypatch.setattr(fakes, "example", broken)


def test_gradients_that_stay_broken_stop_the_run_and_keep_the_last_good_state(
    tmp_path, monkeypatch
):
    tiny.run(tmp_path, epochs=1)
    good = final_state(tmp_path)[1]
    break_depth(monkeypatch)
    with pytest.raises(FloatingPointError, match="10 steps in a row.*`learning_rate`"):
        tiny.run(tmp_path, epochs=9)
    assert (tmp_path / "checkpoints").exists()
    step_now, leaves = final_state(tmp_path)
    state = jax.tree.unflatten(jax.tree.structure(_empty_state()), leaves)
    kept = jax.tree.unflatten(jax.tree.structure(_empty_state()), good)
    for a, b in zip(jax.tree.leaves(kept.variables), jax.tree.leaves(state.variables), strict=True):
        np.testing.assert_array_equal(a, b)
    # The second epoch was all skipped; the tenth step in a row falls into the third, which is lost.
    assert [row["skipped_steps"] for row in rows(tmp_path)] == [0, 5]


def test_the_logged_rate_is_that_of_the_last_step_that_was_not_skipped(tmp_path, monkeypatch):
    monkeypatch.setattr(tiny, "SCHEDULE", lambda count: 0.5**count)
    sgd = optax.sgd(0.01)
    tiny.run(tmp_path, epochs=1, update=sgd)
    break_depth(monkeypatch)
    with pytest.raises(FloatingPointError):
        tiny.run(tmp_path, epochs=9, update=sgd)
    good, skipped = rows(tmp_path)
    assert skipped["step"] - skipped["skipped_steps"] == good["step"]
    assert good["learning_rate"] == skipped["learning_rate"] == 0.5 ** (good["step"] - 1)


def test_the_best_checkpoint_on_validation_is_kept(tmp_path, monkeypatch, capsys):
    # The third has no score: one of its errors is not finite.
    scores = iter([1.0, 3.0, None, 2.5])
    monkeypatch.setattr(loop.results, "score", lambda evaluation, tasks: next(scores))
    tiny.run(tmp_path, epochs=4, validation=4, weighting="equal")
    with checkpoint.open_checkpoints(tmp_path, best=True) as manager:
        assert manager.best_step() == 2 * 4
        # The one before the last goes when the next is safely written.
        assert {2 * 4, 4 * 4} <= set(manager.all_steps()) <= {2 * 4, 3 * 4, 4 * 4}
    assert "epoch 3: a task's validation error is not finite" in capsys.readouterr().out


def test_a_state_that_summed_up_other_diagnostics_is_taken_up(tmp_path):
    state = _empty_state()
    known = {"steps": state.sums["steps"] + 3.0, "diagnostic/older": state.sums["steps"]}
    with checkpoint.open_checkpoints(tmp_path) as manager:
        checkpoint.save(manager, 0, state._replace(sums=known))
    like = parallel.replicate(_empty_state(), jax.local_devices()[:1])
    with checkpoint.open_checkpoints(tmp_path, read_only=True) as manager:
        restored = restore.restore_state(manager, like)
    assert restored.sums.keys() == state.sums.keys()
    assert float(restored.sums["steps"]) == 3.0
    assert float(restored.sums["skipped"]) == 0.0
    for a, b in zip(
        jax.tree.leaves(restored.variables), jax.tree.leaves(state.variables), strict=True
    ):
        np.testing.assert_array_equal(a, b)


def test_a_run_without_a_good_step_has_no_result(tmp_path, monkeypatch):
    break_depth(monkeypatch)
    with pytest.raises(FloatingPointError, match="no step of the last epoch.*`learning_rate`"):
        tiny.run(tmp_path, epochs=1)
    assert not (tmp_path / "result.json").exists()


def test_a_checkpoint_under_another_name_is_refused(tmp_path):
    with checkpoint.open_checkpoints(tmp_path) as manager:
        checkpoint.save(manager, 7, _empty_state())
    like = parallel.replicate(_empty_state(), jax.local_devices()[:1])
    with (
        checkpoint.open_checkpoints(tmp_path, read_only=True) as manager,
        pytest.raises(ValueError, match="checkpoints/7 holds the state of step 0"),
    ):
        restore.restore_state(manager, like)
