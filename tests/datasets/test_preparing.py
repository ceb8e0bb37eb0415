"""Preparing a set on disk, the same way for rooms and for NYU-Depth V2 (both with made-up data)."""

import contextlib
import fcntl
import shutil
import signal
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds

from datasets import preparing, streaming
from datasets.nyu_depth_v2 import classes
from datasets.nyu_depth_v2 import nyu_depth_v2_dataset_builder as nyu
from datasets.rooms import rooms_dataset_builder as rooms
from tests.datasets.nyu_files import everything_in, one_line, write_mtan

HEIGHT, WIDTH = 16, 20
SIZES = {"rooms": {"train": 3, "test": 2}, "nyu_depth_v2": {"train": 9, "test": 7}}


def render(seed, indices, *, height, width, **look):
    """Replaces the renderer, which takes long to compile."""
    count, shape = len(indices), (len(indices), height, width)
    return {
        "image": np.full((*shape, 3), seed, np.uint8),
        "image_right": np.full((*shape, 3), seed + 1, np.uint8),
        "segmentation": np.zeros(shape, np.int8),
        "depth": np.ones(shape, np.float32),
        "normals": np.full((*shape, 3), (0, 0, -1), np.float32),
        "intrinsics": np.ones((count, 4), np.float32),
        "baseline": np.ones(count, np.float32),
    }


class Case:
    """A data set that can be prepared, again and again."""

    def __init__(self, name, manual_dir=None):
        self.name, self.manual_dir = name, manual_dir
        self.module = rooms if name == "rooms" else nyu

    def builder(self, data_dir):
        if self.name == "rooms":
            config = rooms.config(HEIGHT, WIDTH, train=3, test=2)
        else:
            config = nyu.config("mtan", height=6, width=8)
        return self.module.Builder(config=config, data_dir=data_dir)

    def prepare(self, data_dir):
        made = self.builder(data_dir)
        self.module.prepare(made, self.manual_dir)
        return made


@pytest.fixture(params=list(SIZES))
def case(request, tmp_path_factory, monkeypatch):
    monkeypatch.setattr(rooms, "render_batch", render)
    if request.param == "rooms":
        return Case("rooms")
    # tests/datasets/test_nyu_depth_v2.py prepares the folders in full.
    counts = SIZES["nyu_depth_v2"]
    indices = {split: np.arange(count) for split, count in counts.items()}
    monkeypatch.setattr(classes, "split_indices", lambda: indices)
    files = {"train": counts["train"], "val": counts["test"]}
    return Case(request.param, write_mtan(tmp_path_factory.mktemp("mtan"), counts=files))


@pytest.fixture
def rooms_case(monkeypatch):
    monkeypatch.setattr(rooms, "render_batch", render)
    return Case("rooms")


def sizes(builder):
    return {split: len(builder.as_data_source(split)) for split in ("train", "test")}


def test_prepares_once(case, tmp_path, monkeypatch):
    early = case.builder(tmp_path)
    made = case.prepare(tmp_path)
    assert sizes(made) == made.split_sizes() == SIZES[case.name]
    assert [path.name for path in Path(made.data_dir).parent.iterdir()] == ["1.0.0"]

    def again(*_, **__):
        raise AssertionError("prepared a second time")

    monkeypatch.setattr(tfds.core.DatasetBuilder, "download_and_prepare", again)
    assert sizes(case.prepare(tmp_path)) == SIZES[case.name]
    # One that was made before the data was there learns of it, too.
    case.module.prepare(early)
    assert sizes(early) == SIZES[case.name]


def test_prints_one_bar_and_nothing_else(case, tmp_path, capfd):
    case.prepare(tmp_path)
    printed = capfd.readouterr()
    assert printed.out == ""
    total = sum(SIZES[case.name].values())
    shown = [line for line in printed.err.replace("\r", "\n").split("\n") if line]
    assert all(line.startswith(f"preparing {case.name}: ") for line in shown)
    assert f"{total}/{total}" in shown[-1]


def test_another_version_is_refused(case, tmp_path):
    other = Path(case.builder(tmp_path).data_dir).with_name("0.9.0")
    other.mkdir(parents=True)
    with one_line(
        ValueError, other.parent, "version 0.9.0", "1.0.0", "`data_dir`", folder=tmp_path
    ):
        case.prepare(tmp_path)


def test_a_folder_without_a_set_is_refused(case, tmp_path):
    folder = Path(case.builder(tmp_path).data_dir)
    folder.mkdir(parents=True)
    with one_line(ValueError, folder, "`data_dir`", folder=tmp_path):
        case.prepare(tmp_path)


def test_the_rest_of_a_killed_preparation_is_removed(case, tmp_path):
    folder = Path(case.builder(tmp_path).data_dir).parent
    killed = folder / "incomplete.AB12CD_1.0.0"
    other = folder.with_name("other") / "incomplete.AB12CD_1.0.0"
    for path in (killed, other):
        path.mkdir(parents=True)
        (path / "records").write_bytes(b"half")
    (folder / "lock").touch()
    case.prepare(tmp_path)
    assert [path.name for path in folder.iterdir()] == ["1.0.0"]
    assert other.exists()


def test_no_such_manual_dir(tmp_path):
    with one_line(ValueError, f"`manual_dir`={tmp_path / 'nowhere'}", folder=tmp_path):
        nyu.prepare(Case("nyu_depth_v2").builder(tmp_path / "data"), tmp_path / "nowhere")


# Full disks and others that can't be written


def test_too_little_space(case, tmp_path, monkeypatch):
    free = sum(SIZES[case.name].values()) * (HEIGHT * WIDTH if case.name == "rooms" else 6 * 8)
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(preparing.shutil, "disk_usage", lambda _: usage._replace(free=free))
    with one_line(OSError, tmp_path / "data", "MB free", "`data_dir`", folder=tmp_path):
        case.prepare(tmp_path / "data")


def test_space_is_stated_in_megabytes(tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(preparing.shutil, "disk_usage", lambda _: usage._replace(free=10**8))
    made = nyu.Builder(config=nyu.config(), data_dir=tmp_path)
    with one_line(OSError, "has 100 MB free", "needs about 1,442 MB", folder=tmp_path):
        nyu.prepare(made)


def test_disk_fills_up_while_writing(case, tmp_path, monkeypatch):
    def write(*_):
        raise RuntimeError("write() failed: No space left on device; many\nmore words")

    monkeypatch.setattr(streaming.Writer, "add_packed", write)
    with one_line(OSError, "no space left", tmp_path / "data", "`data_dir`", folder=tmp_path):
        case.prepare(tmp_path / "data")


def test_failure_leaves_what_was_there(rooms_case, tmp_path, monkeypatch):
    rooms_case.prepare(tmp_path)
    (tmp_path / "downloads" / "manual").mkdir(parents=True)
    monkeypatch.setattr(rooms, "render_batch", lambda *_, **__: 1 / 0)
    other = rooms.Builder(config=rooms.config(HEIGHT, WIDTH, seed=1), data_dir=tmp_path)
    before = everything_in(tmp_path)
    with pytest.raises(ZeroDivisionError):
        rooms.prepare(other)
    assert everything_in(tmp_path) == before


def test_data_dir_that_cannot_be_written(case, tmp_path):
    file = tmp_path / "file"
    file.touch()
    for data_dir in (file, file / "below"):
        with one_line(OSError, f"can't write to {data_dir}", "`data_dir`", folder=tmp_path):
            case.prepare(data_dir)


def test_interruption_leaves_nothing(rooms_case, tmp_path, monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(rooms, "render_batch", interrupt)
    with pytest.raises(KeyboardInterrupt):
        rooms_case.prepare(tmp_path / "deep" / "data")
    assert everything_in(tmp_path) == []


class Interrupting:
    """Interrupted where Python can't raise, as in JAX's callback of the garbage collector."""

    def __init__(self, error):
        self.error = error

    def __del__(self):
        raise self.error


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_an_interruption_that_python_drops_is_not_lost(rooms_case, tmp_path, monkeypatch, error):
    rendered = []

    def render_slowly(*args, **kwargs):
        # Not in the first call, in which JAX looks for the compiled program: an interruption that
        # comes while it reads a file counts as a damaged file there.
        if len(rendered) == 1:
            Interrupting(error)
        rendered.append(1)
        time.sleep(0.02)
        return render(*args, **kwargs)

    def terminate(*_):
        raise SystemExit

    monkeypatch.setattr(rooms, "render_batch", render_slowly)
    many = rooms.Builder(config=rooms.config(16, 20, train=8000), data_dir=tmp_path)
    # A process that a shell started in the background ignores SIGINT.
    handlers = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: terminate}
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        with pytest.raises(error):
            rooms.prepare(many)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    assert len(rendered) < 1000
    assert everything_in(tmp_path) == []


# Several processes


def test_a_lock_that_is_removed_lets_one_process_in(tmp_path):
    """Six threads enter at a time; every second one fails and removes the lock or the folder."""
    inside, most = [], []

    def enter(fails):
        alone = preparing._alone_in(tmp_path / "set", tmp_path)
        with contextlib.suppress(ZeroDivisionError), alone:
            inside.append(1)
            most.append(len(inside))
            time.sleep(0.02)
            inside.pop()
            if fails:
                raise ZeroDivisionError

    for _ in range(5):
        threads = [threading.Thread(target=enter, args=(n % 2 == 0,)) for n in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert most == [1] * 30
    assert everything_in(tmp_path) == []


def test_waits_for_another_that_prepares_the_same(rooms_case, tmp_path, monkeypatch, capfd):
    elsewhere = rooms_case.prepare(tmp_path / "elsewhere")
    made = rooms_case.builder(tmp_path / "data")
    here = Path(made.data_dir)
    here.parent.mkdir(parents=True)
    # The other one takes the last of the space; nothing is to be made then.
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(preparing.shutil, "disk_usage", lambda _: usage._replace(free=0))
    waiting = threading.Thread(target=rooms.prepare, args=(made,))
    with (here.parent / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        waiting.start()
        waiting.join(timeout=0.5)
        assert waiting.is_alive()
        shutil.copytree(elsewhere.data_dir, here)
    waiting.join()
    assert sizes(made) == SIZES["rooms"]
    assert "waiting for another process" in capfd.readouterr().out
