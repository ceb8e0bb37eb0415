"""The scripts of docs/experiments/, with a Python that only notes what it was to do."""

import os
import re
import shutil
import subprocess

import pytest
from absl import flags
from absl.testing import flagsaver

from tests.docs.scripts import DOCS

# Makes the folder of a run, unless --workdir is a list of them.
NOTE = """#!/bin/sh
echo "$*" >>"$NOTES"
case "$*" in *"$FAILING"*) exit 1 ;; esac
for word in "$@"; do
  case $word in *,*) ;; --workdir=*) mkdir -p "${word#--workdir=}" ;; esac
done
"""
SPEED = "speed_gpu.sh"
SCRIPTS = sorted(set((DOCS / "experiments").glob("*.sh")) - {DOCS / "experiments" / SPEED})


@pytest.fixture
def perform(tmp_path, monkeypatch):
    """Runs a script in a copy of docs/; returns its process and the arguments of each Python."""
    import launch  # noqa: F401  (defines the flags)

    shutil.copytree(DOCS / "experiments", tmp_path / "docs" / "experiments")
    program = tmp_path / "bin" / "python"
    program.parent.mkdir()
    program.write_text(NOTE)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("NOTES", str(tmp_path / "notes"))

    def perform(name, *words, failing="nothing"):
        monkeypatch.setenv("FAILING", failing)
        command = ["bash", f"docs/experiments/{name}", *words]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        return done, [line.split() for line in (tmp_path / "notes").read_text().splitlines()]

    with flagsaver.flagsaver():
        monkeypatch.chdir(tmp_path)
        yield perform


@pytest.mark.parametrize("name", [path.name for path in SCRIPTS])
def test_the_commands_of_a_script_parse_and_end_in_a_report(name, perform):
    done, commands = perform(name, "3", "--manual_dir=FILES")
    assert done.returncode == 0, done.stderr
    for words in commands:
        flags.FLAGS.unparse_flags()
        flags.FLAGS(words)
    assert "--mode=report" in commands[-1]
    runs = {word for words in commands[:-1] for word in words if word.startswith("--workdir=")}
    reported = re.search(r"--workdir=(\S+)", " ".join(commands[-1]))[1].split(",")
    assert len(reported) >= 4 and {f"--workdir={folder}" for folder in reported} <= runs


@pytest.mark.parametrize("name", [path.name for path in SCRIPTS])
def test_a_failed_run_ends_a_script_without_a_report(name, perform):
    done, commands = perform(name, "3", failing="segmentation-3" if name == "nyu.sh" else "scratch")
    assert done.returncode == 1 and "a run failed, see runs/" in done.stderr
    assert not any("--mode=report" in words for words in commands)


def test_every_start_is_exported_before_a_run_begins_with_it(perform):
    _, commands = perform("nyu_rooms_first.sh", "3")
    lines = [" ".join(words) for words in commands]
    starts = re.findall(r"--pretrained=(\S+)/export/", " ".join(lines))
    assert len(starts) == 4 and len(set(starts)) == 3
    for start in set(starts):
        folder = start.replace("{seed}", "3")
        using = [at for at, line in enumerate(lines) if f"--pretrained={start}/" in line]
        about = [at for at, line in enumerate(lines) if line.endswith(f"--workdir={folder}")]
        trained, exported = about
        assert "--mode=export" in lines[exported]
        assert trained < exported < min(using)


def parsed(words):
    """Returns the flags of launch.py that a command sets."""
    flags.FLAGS.unparse_flags()
    flags.FLAGS(words)
    return dict(re.findall(r"--(\w+)=(\S+)", " ".join(words)))


def test_all_that_a_gpu_lacks_is_measured_once(perform):
    done, commands = perform(SPEED, "--data_dir=SETS")
    assert done.returncode == 0, done.stderr
    assert commands[-1] == ["docs/growth.py"]
    given = [parsed(words) for words in commands[:-1]]
    assert all(one["data_dir"] == "SETS" for one in given)
    trained = [(one["precision"], one["seed"]) for one in given if "workdir" in one]
    assert sorted(trained) == [(p, s) for p in ("bfloat16", "float32") for s in "012"]
    # The same network and images in all benchmarks, so that they can be compared.
    timed = [one for one in given if one.get("mode") == "benchmark"]
    assert len(timed) == 4
    for name in ("model", "image_size", "batch_size"):
        assert len({one[name] for one in timed}) == 1
    _, again = perform(SPEED, "--data_dir=SETS")
    assert again == commands


def test_what_failed_is_named_and_measured_again(perform):
    done, commands = perform(SPEED, failing="--precision=bfloat16 --seed=1")
    assert done.returncode == 1
    assert done.stderr.count("failed or took more than") == 1
    assert (
        "nash-bfloat16-1 failed" in done.stderr and "speed-gpu/nash-bfloat16-1.log" in done.stderr
    )
    assert commands[-1] == ["docs/growth.py"]
    done, again = perform(SPEED)
    assert done.returncode == 0, done.stderr
    assert again[len(commands) :] == [
        words for words in commands if "--precision=bfloat16" in words and "--seed=1" in words
    ]


def test_the_limits_of_the_measurements_add_up_to_what_the_script_says():
    text = (DOCS / "experiments" / SPEED).read_text()
    later, first = map(int, re.search(r"seed \? (\d+) : (\d+)", text).groups())
    alone = [int(limit) for limit in re.findall(r"^(?:launch|measure) \S+ (\d+)", text, re.M)]
    # Both sets are prepared at once, and so are both precisions trained.
    prepared = alone.pop(0)
    assert alone[0] == prepared
    assert sum(alone) + first + 2 * later == 12 * 60
    assert "add up to twelve" in text
