"""Saving and restoring states, on other devices than those that saved them too."""

import errno
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtl_jax import parallel
from mtl_jax.runs import checkpoint
from mtl_jax.weighting import METHODS

STATE = {"step": np.int32(3), "weights": np.arange(6, dtype=np.float32).reshape(2, 3)}
RESTORE = """
import sys, jax, jax.numpy as jnp
from mtl_jax.runs import checkpoint
assert len(jax.devices()) == 1
like = {"step": jnp.zeros((), jnp.int32), "weights": jnp.zeros((2, 3))}
with checkpoint.open_checkpoints(sys.argv[1], read_only=True) as manager:
    state = checkpoint.restore(manager, like)
print(int(state["step"]), state["weights"].tolist())
"""


def save(folder, step=3, **options):
    state = parallel.replicate(STATE, jax.local_devices())
    with checkpoint.open_checkpoints(folder, **options) as manager:
        checkpoint.save(manager, step, state)


def test_saved_on_four_devices_restored_where_there_is_one(tmp_path):
    save(tmp_path)
    output = subprocess.run(
        [sys.executable, "-c", RESTORE, str(tmp_path)],
        env={**os.environ, "XLA_FLAGS": "", "JAX_PLATFORMS": "cpu"},
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert output.split(maxsplit=1) == ["3", "[[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]]\n"]


def test_reading_leaves_what_is_being_written_alone(tmp_path):
    save(tmp_path)
    unfinished = tmp_path / "checkpoints" / "7.orbax-checkpoint-tmp"
    unfinished.mkdir()
    with checkpoint.open_checkpoints(tmp_path, read_only=True) as manager:
        assert manager.latest_step() == 3
    assert unfinished.exists()


def test_a_part_of_the_checksums_is_not_part_of_the_checkpoint(tmp_path):
    save(tmp_path)
    folder = tmp_path / "checkpoints" / "3"
    (folder / f"{checkpoint.CHECKSUMS}").rename(folder / f"{checkpoint.CHECKSUMS}.tmp")
    with checkpoint.open_checkpoints(tmp_path):
        pass
    assert (folder / checkpoint.CHECKSUMS).exists()
    (folder / f"{checkpoint.CHECKSUMS}.tmp").unlink(missing_ok=True)
    assert checkpoint.damage(folder) is None


@pytest.mark.parametrize("which", ["4", "best", "first"])
def test_checkpoints_that_are_not_there(tmp_path, which):
    save(tmp_path)
    like = jax.tree.map(jnp.asarray, STATE)
    complaint = f"`checkpoint`={which}.*holds the steps \\[3\\]"
    with (
        checkpoint.open_checkpoints(tmp_path, best=True, read_only=True) as manager,
        pytest.raises(ValueError, match=complaint),
    ):
        checkpoint.restore(manager, like, which=which)


def test_at_least_the_last_checkpoint_is_kept(tmp_path):
    with pytest.raises(ValueError, match="`keep`=0"):
        save(tmp_path, keep=0)


def read(folder, like=STATE, **options):
    with checkpoint.open_checkpoints(folder, read_only=True) as manager:
        return checkpoint.restore(manager, jax.tree.map(jnp.asarray, like), **options)


def test_every_checkpoint_has_the_checksums_of_its_files(tmp_path):
    state = parallel.replicate(STATE, jax.local_devices())
    with checkpoint.open_checkpoints(tmp_path, keep=2) as manager:
        checkpoint.save(manager, 3, state)
        checkpoint.save(manager, 4, state)
    for step in ("3", "4"):
        folder = tmp_path / "checkpoints" / step
        listed = json.loads((folder / "sha256.json").read_text())
        files = {path for path in folder.rglob("*") if path.is_file()}
        assert {folder / name for name in listed} | {folder / "sha256.json"} == files
        for name, digest in listed.items():
            assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest


def parts(folder):
    """The files of a checkpoint that hold anything."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and path.stat().st_size)
    return [path for path in paths if path.name != "sha256.json"]


def flip(path):
    """Changes one bit in the middle of a file."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("harm", [flip, os.remove, lambda path: os.truncate(path, 1)])
def test_damage_to_any_file_is_noticed_and_nothing_is_to_be_deleted(tmp_path, harm):
    state = parallel.replicate(STATE, jax.local_devices())
    with checkpoint.open_checkpoints(tmp_path, best=True) as manager:
        checkpoint.save(manager, 3, state, score=1.0)
    whole = tmp_path / "whole"
    shutil.copytree(tmp_path / "checkpoints", whole)
    for path in parts(tmp_path / "checkpoints" / "3"):
        harm(path)
        with (
            pytest.raises(ValueError, match=f"{path} is (damaged|missing)") as caught,
            checkpoint.open_checkpoints(tmp_path, best=True, read_only=True) as manager,
        ):
            checkpoint.restore(manager, jax.tree.map(jnp.asarray, STATE))
        assert "move it away to train from the start" in str(caught.value)
        assert "delete" not in str(caught.value) and "\n" not in str(caught.value)
        shutil.rmtree(tmp_path / "checkpoints")
        shutil.copytree(whole, tmp_path / "checkpoints")
    np.testing.assert_array_equal(read(tmp_path)["weights"], STATE["weights"])


def test_the_way_out_of_a_damaged_checkpoint_is_another_one(tmp_path):
    save(tmp_path, step=3, keep=2)
    save(tmp_path, step=4, keep=2)
    flip(parts(tmp_path / "checkpoints" / "4")[0])
    with pytest.raises(ValueError, match="`checkpoint`=3 evaluates another one"):
        read(tmp_path)
    assert int(read(tmp_path, which="3")["step"]) == 3
    # As the message says: out of the way, and the one before is the last.
    (tmp_path / "checkpoints" / "4").rename(tmp_path / "aside")
    assert int(read(tmp_path)["step"]) == 3


def test_a_checkpoint_without_checksums_is_read_and_gets_them(tmp_path):
    save(tmp_path)
    checksums = tmp_path / "checkpoints" / "3" / "sha256.json"
    checksums.unlink()
    np.testing.assert_array_equal(read(tmp_path)["weights"], STATE["weights"])
    # Reading writes nothing.
    assert not checksums.exists()
    with checkpoint.open_checkpoints(tmp_path):
        pass
    assert checksums.exists()


def test_a_broken_checkpoint_without_checksums_cannot_be_read(tmp_path):
    save(tmp_path)
    folder = tmp_path / "checkpoints" / "3"
    (folder / "sha256.json").unlink()
    for path in parts(folder):
        path.write_bytes(b"broken")
    with pytest.raises(ValueError, match="3 can't be read .*move it away") as caught:
        read(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize(
    "like",
    [
        STATE | {"weights": np.zeros((2, 4), np.float32)},
        {"step": STATE["step"]},
        STATE | {"more": np.zeros(3, np.float32)},
    ],
)
def test_a_state_of_another_program_is_not_called_damaged(tmp_path, like):
    save(tmp_path)
    with pytest.raises(ValueError, match="of another version of this program") as caught:
        read(tmp_path, like)
    assert not re.search("damaged|delete|move|\n", str(caught.value))


def test_some_entries_can_be_restored_alone(tmp_path):
    save(tmp_path)
    wanted = {"weights": STATE["weights"]}
    found = read(tmp_path, wanted, part=True)
    assert list(found) == ["weights"]
    np.testing.assert_array_equal(found["weights"], STATE["weights"])
    for wrong in ({"weights": np.zeros((3, 2), np.float32)}, {"more": np.zeros(2, np.float32)}):
        with pytest.raises(ValueError, match="it has no (weights|more) of the shape"):
            read(tmp_path, wrong, part=True)


def test_a_file_that_cannot_be_opened_is_not_called_damaged(tmp_path, monkeypatch):
    save(tmp_path)

    def refuse(file, name):
        raise PermissionError(errno.EACCES, "Permission denied", file.name)

    monkeypatch.setattr("hashlib.file_digest", refuse)
    with pytest.raises(OSError, match="Permission denied.*checkpoints/3"):
        read(tmp_path)


def test_an_error_of_the_system_amid_reading_is_not_called_damage(tmp_path, monkeypatch):
    save(tmp_path)

    def fail(*_, **__):
        raise ValueError("DATA_LOSS: Error reading\n[os_error_code='5']")

    monkeypatch.setattr("orbax.checkpoint.CheckpointManager.restore", fail)
    with pytest.raises(OSError, match="checkpoints/3 can't be read: Input/output error$"):
        read(tmp_path)


def test_a_checkpoint_that_a_run_replaces_meanwhile_is_not_called_damaged(tmp_path, monkeypatch):
    save(tmp_path)
    folder = tmp_path / "checkpoints" / "3"
    found = checkpoint.checksums

    def remove_first(path):
        shutil.rmtree(folder)
        return found(path)

    monkeypatch.setattr(checkpoint, "checksums", remove_first)
    with pytest.raises(OSError, match="was removed while it was read.*repeat the command"):
        read(tmp_path)


def test_what_killed_saves_left_is_removed_by_the_owner(tmp_path):
    save(tmp_path)
    unfinished = tmp_path / "checkpoints" / "7.orbax-checkpoint-tmp"
    unfinished.mkdir()
    # It is removed in the background, before the next save at the latest.
    save(tmp_path, step=4)
    assert not unfinished.exists()


@pytest.mark.parametrize("where", ["at the next save", "on leaving"])
def test_a_checkpoint_that_cannot_be_written_is_one_line(tmp_path, monkeypatch, capfd, where):
    state = parallel.replicate(STATE, jax.local_devices())

    def fail(*_, **__):
        raise ValueError("Writing\nfailed: [os_error_code='28']\nmore")

    with (
        pytest.raises(OSError, match="No space left on device; earlier ones are kept") as caught,
        checkpoint.open_checkpoints(tmp_path) as manager,
    ):
        checkpoint.save(manager, 1, state)
        checkpoint.wait(manager)
        monkeypatch.setattr("orbax.checkpoint.CheckpointManager.wait_until_finished", fail)
        if where == "at the next save":
            checkpoint.save(manager, 2, state)
    assert str(tmp_path / "checkpoints") in str(caught.value)
    assert "\n" not in str(caught.value)
    assert capfd.readouterr().err == ""


def test_what_tensorstore_prints_of_writes_that_were_given_up_is_dropped(capsys):
    before = sys.excepthook
    with checkpoint.quiet():
        sys.excepthook(RuntimeError, RuntimeError("Event loop is closed"), None)
        sys.excepthook(RuntimeError, RuntimeError("out of memory"), None)
    assert sys.excepthook is before
    assert capsys.readouterr().err == "RuntimeError: out of memory\n"


def test_a_state_without_a_score_is_never_the_best(tmp_path):
    state = parallel.replicate(STATE, jax.local_devices())
    with checkpoint.open_checkpoints(tmp_path, best=True) as manager:
        for step, score in ((1, None), (2, 0.5), (3, None), (4, 0.25), (5, None)):
            checkpoint.save(manager, step, state, score=score)
    with checkpoint.open_checkpoints(tmp_path, best=True, read_only=True) as manager:
        assert manager.best_step() == 2
        assert manager.latest_step() == 5


def test_the_state_of_every_weighting_is_kept_bit_for_bit(tmp_path):
    trunk = {"kernel": jax.ShapeDtypeStruct((2, 5), jnp.float32)}
    fresh = {name: make().init(3, trunk) for name, make in METHODS.items()}
    rng = np.random.default_rng(0)
    # States that no method starts from.
    states = jax.tree.map(
        lambda leaf: jnp.asarray(rng.uniform(2, 9, leaf.shape).astype(leaf.dtype)), fresh
    )
    with checkpoint.open_checkpoints(tmp_path) as manager:
        checkpoint.save(manager, 1, states)
    with checkpoint.open_checkpoints(tmp_path, read_only=True) as manager:
        restored = checkpoint.restore(manager, fresh)
    assert jax.tree.structure(restored) == jax.tree.structure(states)
    jax.tree.map(np.testing.assert_array_equal, restored, states)


def test_empty_checksums_are_damage(tmp_path):
    save(tmp_path)
    folder = tmp_path / "checkpoints" / "3"
    (folder / checkpoint.CHECKSUMS).write_text("{}")
    assert "is empty" in checkpoint.damage(folder)
