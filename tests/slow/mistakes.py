"""A mistake of a user: the flags, what is wrong with the files, and what must be said of it."""

import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from safetensors.numpy import save_file

from tests.datasets import nyu_files
from tests.slow import programs

RECORDS = "data/rooms/96x128-8+4/1.0.0"
TRAIN, TEST = (f"rooms-{split}.array_record" for split in ("train", "test"))


class Case(NamedTuple):
    """A row of the table.

    Attributes:
      flags: after those of `programs.SMALL`.
      word: what the last line must contain: the name of the flag, variable or file that is to be
        put right, never a whole sentence.
      damage: changes the sandbox first, in which `run` is a finished run if `flags` name it.
      environment: variables of the program.
      never: what the last line must not contain: an advice that would destroy a good run.
      may_work: whether the program may also do what it was asked to, if it can.
    """

    flags: str
    word: str
    damage: Callable[[Path], None] | None = None
    environment: Mapping[str, str] = {}
    never: str = "\0"
    may_work: bool = False


def writes(name: str, content: bytes | str | Any) -> Callable[[Path], None]:
    """Writes a file: bytes, text, or what JSON can hold."""

    def damage(sandbox: Path) -> None:
        path = sandbox / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            path.write_text(content if isinstance(content, str) else json.dumps(content))

    return damage


def changes_config(**values: Any) -> Callable[[Path], None]:
    """Makes the finished run one with other settings."""

    def damage(sandbox: Path) -> None:
        path = sandbox / "run" / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | values))

    return damage


def removes(name: str) -> Callable[[Path], None]:
    return lambda sandbox: (sandbox / name).unlink()


def is_a_folder(name: str) -> Callable[[Path], None]:
    def damage(sandbox: Path) -> None:
        (sandbox / name).unlink()
        (sandbox / name).mkdir()

    return damage


def is_a_pipe(name: str) -> Callable[[Path], None]:
    def damage(sandbox: Path) -> None:
        (sandbox / name).unlink()
        os.mkfifo(sandbox / name)

    return damage


def empties_checksums(sandbox: Path) -> None:
    for path in sandbox.glob("run/checkpoints/*/sha256.json"):
        path.write_text("{}")


def cuts(name: str, part: float = 0.5) -> Callable[[Path], None]:
    """Leaves only the first part of a file."""

    def damage(sandbox: Path) -> None:
        content = (sandbox / name).read_bytes()
        (sandbox / name).write_bytes(content[: int(part * len(content))])

    return damage


def flips_a_byte_of_the_checkpoint(sandbox: Path) -> None:
    files = [path for path in (sandbox / "run/checkpoints").rglob("*") if path.is_file()]
    path = max(files, key=lambda path: path.stat().st_size)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def renames_the_version(sandbox: Path) -> None:
    (sandbox / RECORDS).rename(sandbox / RECORDS.replace("1.0.0", "0.9.0"))


def empties_the_version(sandbox: Path) -> None:
    shutil.rmtree(sandbox / RECORDS)
    (sandbox / RECORDS).mkdir()


def folder(name: str) -> Callable[[Path], None]:
    return lambda sandbox: (sandbox / name).mkdir(parents=True)


def weights(change: Callable[[dict], dict], blocks=(2, 2, 2, 2)) -> Callable[[Path], None]:
    """Writes `weights.safetensors`, those of a ResNet, changed."""

    def damage(sandbox: Path) -> None:
        save_file(change(programs.resnet(blocks)), sandbox / "weights.safetensors")

    return damage


def one_value(value: float) -> Callable[[Path], None]:
    """Weights that hold one value which no training leaves."""

    def change(tensors: dict) -> dict:
        tensors["layer1.0.conv1.weight"][0, 0, 0, 0] = value
        return tensors

    return weights(change)


def pth(wrap: Callable[[dict], Any]) -> Callable[[Path], None]:
    """Writes `weights.pth` with PyTorch."""

    def damage(sandbox: Path) -> None:
        torch = pytest.importorskip("torch")
        tensors = {name: torch.from_numpy(x) for name, x in programs.resnet().items()}
        torch.save(wrap(tensors), sandbox / "weights.pth")

    return damage


def mtan(kind: str, change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Path], None]:
    """Files in the mtan layout, of which the first one of a kind is changed."""

    def damage(sandbox: Path) -> None:
        nyu_files.write_mtan(sandbox / "mtan", height=96, width=128)
        path = sandbox / "mtan" / "train" / kind / "0.npy"
        np.save(path, change(np.load(path)))

    return damage
