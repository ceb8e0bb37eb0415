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
SCRIPTS = sorted((DOCS / "experiments").glob("*.sh"))


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
