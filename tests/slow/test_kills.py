"""Programs that are killed at random moments: the same command ends as if nothing had happened."""

import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds

from tests.slow import programs

pytestmark = pytest.mark.slow

# Each kill comes in an epoch later than the one before, so that some are left for the last start.
EPOCHS = 16
TRAINING = f"--epochs={EPOCHS} --evaluate_every=3 --keep=2 --workdir=run"
SWEEP = "--mode=sweep --tasks=depth,normals --weightings=equal --seeds=0 --workdir=sweep"


@pytest.fixture(scope="module")
def undisturbed(made) -> Path:
    """The folder of a run of `TRAINING`."""
    flags = f"{TRAINING} --workdir=undisturbed"
    finished = programs.launch(flags, made)
    assert finished.status == 0, finished.text
    return made / "undisturbed"


def kill(
    flags: str,
    folder: Path,
    number: signal.Signals,
    moment: Callable[[], bool],
    delay: float,
) -> programs.Finished:
    """Starts a program and sends a signal to its group, `delay` seconds after the moment."""
    process = programs.start(flags, folder)
    deadline = time.monotonic() + programs.PATIENCE
    while not moment():
        assert process.poll() is None, programs.finish(process).text
        assert time.monotonic() < deadline
        time.sleep(0.01)
    time.sleep(delay)
    assert process.poll() is None, "it had ended already"
    os.killpg(process.pid, number)
    return programs.finish(process)


def last_step(run: Path) -> int:
    """The last step of which a checkpoint is complete."""
    names = [path.name for path in (run / "checkpoints").glob("*")]
    return max((int(name) for name in names if name.isdecimal()), default=0)


def has_saved_more(run: Path) -> Callable[[], bool]:
    before = last_step(run)
    return lambda: last_step(run) > before


def is_saving(run: Path) -> Callable[[], bool]:
    """A checkpoint later than those of the start is being written."""
    leftovers = set((run / "checkpoints").glob("*-tmp*"))
    more = has_saved_more(run)
    return lambda: more() and bool(set((run / "checkpoints").glob("*-tmp*")) - leftovers)


@pytest.mark.parametrize(
    ("moment", "kills", "longest"),
    [(has_saved_more, 5, 0.4), (is_saving, 4, 0.1)],
    ids=["training", "saving"],
)
def test_a_killed_run_ends_bit_for_bit_as_an_undisturbed_one(
    undisturbed, sandbox, moment, kills, longest
):
    rng = random.Random(f"killed {moment.__name__}")
    for _ in range(kills):
        delay = rng.uniform(0, longest)
        killed = kill(TRAINING, sandbox, signal.SIGKILL, moment(sandbox / "run"), delay)
        assert killed.status == -signal.SIGKILL
    finished = programs.launch(TRAINING, sandbox)
    assert finished.status == 0, finished.text
    programs.assert_same_run(sandbox / "run", undisturbed)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_run_that_is_asked_to_stop_saves_and_says_so(undisturbed, sandbox, number):
    rng = random.Random(f"stopped {number}")
    for _ in range(3):
        moment = has_saved_more(sandbox / "run")
        stopped = kill(TRAINING, sandbox, number, moment, rng.uniform(0, 0.4))
        assert stopped.status in (0, 1), stopped.text
        assert not stopped.has_traceback, stopped.text
        assert "saved" in stopped.lines[-1], stopped.text
        others = [line for line in stopped.lines if not line.startswith(("epoch", "resumed"))]
        assert len(others) <= programs.MOST_LINES, stopped.text
    finished = programs.launch(TRAINING, sandbox)
    assert finished.status == 0, finished.text
    programs.assert_same_run(sandbox / "run", undisturbed)


def test_a_killed_preparation_is_made_again(made, sandbox):
    flags = "--mode=prepare --data_dir=fresh"
    rng = random.Random("preparing")
    for _ in range(2):
        killed = kill(flags, sandbox, signal.SIGKILL, is_preparing(sandbox), rng.uniform(0, 2))
        assert killed.status == -signal.SIGKILL
    finished = programs.launch(flags, sandbox)
    assert finished.status == 0, finished.text
    assert examples(sandbox / "fresh") == examples(made / "data")
    assert [path.name for path in (sandbox / "fresh" / "rooms").glob("96*/*")] == ["1.0.0"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_preparation_that_is_asked_to_stop_leaves_no_half_of_a_set(made, sandbox, number):
    flags = "--mode=prepare --data_dir=fresh"
    delay = random.Random(f"preparing {number}").uniform(0, 2)
    stopped = kill(flags, sandbox, number, is_preparing(sandbox), delay)
    assert stopped.status != 0, stopped.text
    assert not stopped.has_traceback, stopped.text
    assert len(stopped.lines) <= programs.MOST_LINES, stopped.text
    assert not examples(sandbox / "fresh")
    finished = programs.launch(flags, sandbox)
    assert finished.status == 0, finished.text
    assert examples(sandbox / "fresh") == examples(made / "data")


def is_preparing(folder: Path) -> Callable[[], bool]:
    """A part of the records has been written since now."""
    before = set((folder / "fresh").glob("rooms/96*/incomplete*"))
    return lambda: bool(set((folder / "fresh").glob("rooms/96*/incomplete*")) - before)


def examples(data_dir: Path) -> list[dict[str, bytes]]:
    """All examples of a complete data set, none if there is none.

    The files themselves differ, because the order of the entries in a record is left open.
    """
    folders = list(data_dir.glob("rooms/96*/1.0.0"))
    if not folders:
        return []
    source = tfds.builder_from_directory(folders[0]).as_data_source()
    return [
        {name: np.asarray(value).tobytes() for name, value in example.items()}
        for split in ("train", "test")
        for example in source[split]
    ]


def test_a_killed_report_leaves_whole_files_and_is_drawn_again(with_run):
    flags = "--mode=report --workdir=run"
    finished = programs.launch(flags, with_run)
    assert finished.status == 0, finished.text
    before = contents(with_run / "run" / "report")
    rng = random.Random("reporting")
    for _ in range(3):
        earlier = times(with_run / "run" / "report")
        drawing = lambda earlier=earlier: times(with_run / "run" / "report") != earlier  # noqa: E731
        killed = kill(flags, with_run, signal.SIGKILL, drawing, rng.uniform(0, 0.2))
        assert killed.status == -signal.SIGKILL
        after = contents(with_run / "run" / "report")
        assert {name: after.get(name) for name in before} == before
    finished = programs.launch(flags, with_run)
    assert finished.status == 0, finished.text
    assert contents(with_run / "run" / "report") == before
    assert not list((with_run / "run" / "report").glob(".report-*"))


def contents(folder: Path) -> dict[str, bytes]:
    # A killed report may leave the hidden folder that the next one removes.
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def times(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}


def test_a_killed_sweep_ends_bit_for_bit_as_an_undisturbed_one(sandbox):
    finished = programs.launch(f"{SWEEP} --workdir=undisturbed", sandbox)
    assert finished.status == 0, finished.text
    runs = [path.parent.name for path in (sandbox / "undisturbed").glob("*/result.json")]
    assert len(runs) == 3
    rng = random.Random("sweep")
    for count in range(3):
        moment = lambda count=count: len(list((sandbox / "sweep").glob("*/config.json"))) > count  # noqa: E731
        killed = kill(SWEEP, sandbox, signal.SIGKILL, moment, rng.uniform(0, 2))
        assert killed.status == -signal.SIGKILL
    finished = programs.launch(SWEEP, sandbox)
    assert finished.status == 0, finished.text
    for run in runs:
        programs.assert_same_run(sandbox / "sweep" / run, sandbox / "undisturbed" / run)
