"""Runs launch.py as a user does, in a sandbox, and judges what it said and what it left."""

import hashlib
import json
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp

ROOT = Path(__file__).parents[2]
# Paths are relative: a program starts in its sandbox.
SMALL = (
    "--dataset=rooms:train=8,test=4 --data_dir=data --model=resnet_unet:backbone=resnet18 "
    "--noaugment --batch_size=4 --eval_batch_size=4 --devices=1 --epochs=2 --workdir=new"
)
# More than the slowest program needs on a busy machine: one that is still running hangs.
PATIENCE = 300
# A resumed run prints its devices, its step, a table of three lines and its labels.
MOST_LINES = 6
HIDDEN = "waiting", "preparing "


class Finished(NamedTuple):
    """A program that came to its end.

    Attributes:
      status: exit status, minus the signal for one that was killed, None for one that hung.
      lines: of stdout and stderr together, without progress bars.
    """

    status: int | None
    lines: list[str]

    @property
    def text(self) -> str:
        return "\n".join(self.lines)

    @property
    def has_traceback(self) -> bool:
        return "Traceback" in self.text or "Fatal Python error" in self.text


def start(flags: str, folder: Path, environment: Mapping[str, str] | None = None):
    """Starts launch.py in a folder with these flags after those of `SMALL`; its Popen."""
    return _start([*shlex.split(SMALL), *shlex.split(flags)], folder, environment)


def launch_alone(flags: str, folder: Path) -> Finished:
    """Runs launch.py to its end with these flags and no others."""
    return finish(_start(shlex.split(flags), folder, None))


def _start(words: Sequence[str], folder: Path, environment: Mapping[str, str] | None):
    variables = {"JAX_PLATFORMS": "cpu", "PYTHONIOENCODING": "utf-8"}
    inherited = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    return subprocess.Popen(
        [sys.executable, ROOT / "launch.py", *words],
        cwd=folder, env=inherited | variables | dict(environment or {}),
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
    )  # fmt: skip


def finish(process: subprocess.Popen, *, patience: float = PATIENCE) -> Finished:
    """Waits for a program; one that hangs is killed with its children."""
    try:
        output, status = process.communicate(timeout=patience)[0], process.returncode
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        output, status = process.communicate()[0], None
    return Finished(status, visible_lines(output.decode(errors="replace")))


def launch(flags: str, folder: Path, environment: Mapping[str, str] | None = None) -> Finished:
    """Runs launch.py to its end."""
    return finish(start(flags, folder, environment))


def visible_lines(output: str) -> list[str]:
    """The lines that stay on a terminal, without progress bars and the preparation's notices."""
    lines = [part.strip() for line in output.split("\n") for part in line.split("\r")]
    return [
        line
        for line in lines
        if line and not re.search(r"\d+%\||\d+it \[", line) and not line.startswith(HIDDEN)
    ]


def refusal(finished: Finished) -> tuple[str, int]:
    """The line with which the program refused, "" if there is none, and how many came before it.

    It begins with `launch.py:`, or it is absl's about a flag or XLA's about its variable.
    """
    lines = list(finished.lines)
    if lines and lines[-1].startswith("Pass --help"):
        lines.pop()
    known = r"launch\.py: |FATAL Flags parsing error|F\d+ .*XLA_FLAGS"
    if not lines or not re.match(known, lines[-1]):
        return "", len(lines)
    return lines[-1], len(lines) - 1


def snapshot(folder: Path) -> dict[str, tuple]:
    """What lies in a folder: kind, size, SHA-256 and time of change of every file; every folder.

    The times of folders are left out, because what a program makes and removes again changes them.
    Of a file whose name ends in `lock` only the name counts: a program has to lock the folder of a
    run to find out whether another one uses it, but may leave no lock where there was none.
    """
    found = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_symlink():
            found[name] = ("link", os.readlink(path))
        elif path.is_dir():
            found[name] = ("folder",)
        elif path.is_file() and not path.name.endswith("lock"):
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            found[name] = ("file", path.stat().st_size, digest, path.stat().st_mtime_ns)
        else:
            found[name] = ("other",)
    return found


def changes(before: Mapping[str, tuple], after: Mapping[str, tuple]) -> list[str]:
    """What was made, removed or changed, such as `+new/config.json`."""
    made = [f"+{name}" for name in after if name not in before]
    removed = [f"-{name}" for name in before if name not in after]
    changed = [f"~{name}" for name in before if name in after and after[name] != before[name]]
    return made + removed + changed


def resnet(blocks: Sequence[int] = (2, 2, 2, 2)) -> dict[str, np.ndarray]:
    """Tensors named and shaped as those of torchvision's ResNets of basic blocks."""
    found = {}

    def convolution(name: str, outputs: int, inputs: int, size: int) -> None:
        found[f"{name}.weight"] = np.full((outputs, inputs, size, size), 0.01, np.float32)

    def norm(name: str, channels: int) -> None:
        for leaf, value in {"weight": 1, "bias": 0, "running_mean": 0, "running_var": 1}.items():
            found[f"{name}.{leaf}"] = np.full(channels, value, np.float32)

    convolution("conv1", 64, 3, 7)
    norm("bn1", 64)
    inputs = 64
    for stage, count in enumerate(blocks, start=1):
        width = 32 * 2**stage
        for block in range(count):
            name = f"layer{stage}.{block}"
            convolution(f"{name}.conv1", width, inputs, 3)
            convolution(f"{name}.conv2", width, width, 3)
            norm(f"{name}.bn1", width)
            norm(f"{name}.bn2", width)
            if inputs != width:
                convolution(f"{name}.downsample.0", width, inputs, 1)
                norm(f"{name}.downsample.1", width)
            inputs = width
    return found


def assert_same_run(run: Path, other: Path) -> None:
    """Checks that all but times is equal, bit for bit: checkpoints, rows and result."""
    assert rows(run) == rows(other)
    assert read_json(run / "result.json") == read_json(other / "result.json")
    steps = sorted(path.name for path in (other / "checkpoints").iterdir())
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == steps
    for step in steps:
        ours, theirs = (checkpoint(folder / "checkpoints" / step) for folder in (run, other))
        assert ours.keys() == theirs.keys()
        different = [name for name in ours if ours[name] != theirs[name]]
        assert not different


def rows(run: Path) -> list[dict]:
    """The rows of metrics.jsonl without the times that they took."""
    found = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    timed = "seconds", "images_per_second"
    return [{name: x for name, x in row.items() if name not in timed} for row in found]


def read_json(path: Path) -> Any:
    return json.loads(path.read_text())


def checkpoint(folder: Path) -> dict[str, tuple]:
    """Type, shape and bytes of every array of a checkpoint, the optimizer's among them."""
    tree = ocp.StandardCheckpointer().restore(folder / "default")
    return {
        jax.tree_util.keystr(path): (str(leaf.dtype), leaf.shape, np.asarray(leaf).tobytes())
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
        if hasattr(leaf, "dtype")
    }
