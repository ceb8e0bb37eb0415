"""Situations in which a run is resumed, two programs meet, or a disk is full."""

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.slow import programs

pytestmark = pytest.mark.slow


class Case(NamedTuple):
    """A row of the table.

    Attributes:
      flags: after those of `programs.SMALL`.
      word: what the output must contain.
      change: of the sandbox, in which `run` is a finished run.
      environment: variables of the program.
      run: the folder whose result must be that of the finished run.
    """

    flags: str
    word: str = ""
    change: Callable[[Path], object] = lambda sandbox: None
    environment: Mapping[str, str] = {}
    run: str = "run"


def appends(name: str, text: str) -> Callable[[Path], object]:
    def change(sandbox: Path) -> None:
        with (sandbox / name).open("a") as file:
            file.write(text)

    return change


GOES_ON = {
    "output is ASCII": Case(
        "--workdir=new", "trivial predictor", environment={"PYTHONIOENCODING": "ascii"}, run="new"
    ),
    "the C locale": Case(
        "--workdir=run", "report", environment={"PYTHONIOENCODING": "", "LC_ALL": "C"}
    ),
    "it has finished": Case("--workdir=run", "report"),
    "no result.json": Case(
        "--workdir=run", "report", lambda sandbox: (sandbox / "run/result.json").unlink()
    ),
    "no report": Case(
        "--workdir=run", "report", lambda sandbox: shutil.rmtree(sandbox / "run/report")
    ),
    "a temporary file of a killed run": Case(
        "--workdir=run", "report", appends("run/config.json.tmp", "{")
    ),
    "an empty event file of a killed run": Case(
        "--workdir=run", "report", appends("run/events.out.tfevents.1.host", "")
    ),
    "an unfinished last row": Case(
        "--workdir=run", "report", appends("run/metrics.jsonl", '{"epoch": 3, "st')
    ),
    "a name of spaces, quotes and umlauts": Case(
        "--workdir=\"möv'e \\\"1\\\"\"", "trivial predictor", run="möv'e \"1\""
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", GOES_ON)
def test_a_run_goes_on_with_the_right_result(name, with_run, made):
    case = GOES_ON[name]
    case.change(with_run)
    finished = programs.launch(case.flags, with_run, case.environment)
    assert finished.status == 0, finished.text
    assert not finished.has_traceback
    assert case.word in finished.text
    programs.assert_same_run(with_run / case.run, made / "run")


def test_a_second_process_in_a_folder_is_refused_and_disturbs_nothing(sandbox, made):
    first = programs.start("--workdir=run", sandbox)
    wait(lambda: (sandbox / "run" / "config.json").exists(), first)
    second = programs.launch("--workdir=run", sandbox)
    assert first.poll() is None or second.status == 1, second.text
    line, others = programs.refusal(second)
    assert second.status == 1, second.text
    assert "run" in line and others <= programs.MOST_LINES, second.text
    finished = programs.finish(first)
    assert finished.status == 0, finished.text
    programs.assert_same_run(sandbox / "run", made / "run")


def test_a_sweep_leaves_the_runs_of_another_process_alone(sandbox):
    flags = "--mode=sweep --tasks=depth,normals --weightings=equal --seeds=0 --workdir=sweep"
    alone = f"{flags} --mode=train --weighting=equal --epochs=500"
    grid = programs.launch(flags, sandbox)
    assert grid.status == 0, grid.text
    run = next(path.parent for path in (sandbox / "sweep").glob("*equal*/result.json"))
    shutil.rmtree(run)
    first = programs.start(f"{alone} --workdir={run.relative_to(sandbox)}", sandbox)
    try:
        wait(lambda: (run / "config.json").exists(), first)
        second = programs.launch(flags, sandbox)
        assert not second.has_traceback, second.text
        assert run.name in second.text
        assert first.poll() is None
    finally:
        os.killpg(first.pid, signal.SIGKILL)
        first.communicate()


def wait(condition: Callable[[], bool], process: subprocess.Popen) -> None:
    """Waits for something that a program is to do."""
    deadline = time.monotonic() + programs.PATIENCE
    while not condition():
        assert process.poll() is None, programs.finish(process).text
        assert time.monotonic() < deadline
        time.sleep(0.01)


@contextlib.contextmanager
def small_disk(folder: Path, size: str) -> Iterator[None]:
    """Mounts a disk of a size, which only root can."""
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], capture_output=True
    )
    if mounted.returncode:
        pytest.skip(f"no disk can be mounted here: {mounted.stderr.decode().strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", folder], check=True)


@pytest.mark.parametrize("size", ["16k", "20m"], ids=["no_room_for_anything", "at_a_checkpoint"])
def test_a_full_disk_stops_a_run_in_one_line(sandbox, size):
    with small_disk(sandbox / "full", size):
        finished = programs.launch("--workdir=full/run", sandbox)
        assert finished.status == 1, finished.text
        assert not finished.has_traceback, finished.text[:2000]
        line, others = programs.refusal(finished)
        assert "full/run" in line, finished.text[-2000:]
        assert others <= programs.MOST_LINES + 2, finished.text  # an epoch's row each


def test_a_full_disk_keeps_the_report_before(with_run):
    with small_disk(with_run / "full", "16m"):
        flags = "--workdir=run --mode=report --out=full/report"
        assert programs.launch(flags, with_run).status == 0
        report = with_run / "full" / "report"
        before = {path.name: path.read_bytes() for path in report.iterdir()}
        fill(with_run / "full" / "filling")
        finished = programs.launch(flags, with_run)
        assert finished.status == 1, finished.text
        assert not finished.has_traceback, finished.text
        assert "full/report" in programs.refusal(finished)[0], finished.text
        assert {path.name: path.read_bytes() for path in report.iterdir()} == before


def fill(path: Path) -> None:
    """Leaves no room on a disk."""
    with contextlib.suppress(OSError), path.open("wb", buffering=0) as file:
        while True:
            file.write(b"x" * 4096)


def test_a_full_disk_stops_a_preparation_in_one_line_and_leaves_nothing(sandbox):
    with small_disk(sandbox / "full", "300k"):
        finished = programs.launch("--mode=prepare --data_dir=full", sandbox)
        assert finished.status == 1, finished.text
        assert not finished.has_traceback, finished.text
        assert "data_dir" in programs.refusal(finished)[0], finished.text
        assert not [path for path in (sandbox / "full").rglob("*") if path.is_file()]
