"""One process at a time owns the folder of a run."""

import errno
import os
import socket
import subprocess
import sys

import pytest

from mtl_jax.runs import lock


def test_a_file_in_the_way_is_an_os_error_that_names_it(tmp_path):
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "run"):
        with (
            pytest.raises(OSError, match=f"`workdir`={path}: it can't be made"),
            lock.own(path),
        ):
            pass


OWN = """
import os, sys, time
from mtl_jax.runs import lock
with lock.own(sys.argv[1]):
    print("owned", flush=True)
    time.sleep(60)
"""


def test_one_process_at_a_time_owns_a_folder_and_a_killed_one_does_not_block(tmp_path):
    with subprocess.Popen(
        [sys.executable, "-c", OWN, str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "owned\n"
        with pytest.raises(lock.InUse) as caught, lock.own(tmp_path):
            pass
        process.kill()
    line = f"`workdir`={tmp_path}: process {process.pid} on {socket.gethostname()} is training"
    assert str(caught.value).startswith(line)
    assert "delete" not in str(caught.value)
    with lock.own(tmp_path):
        pass


def test_a_folder_is_free_again_after_an_error(tmp_path):
    for _ in range(2):
        with pytest.raises(RuntimeError), lock.own(tmp_path):
            # The second one of the same process is refused, too.
            with pytest.raises(lock.InUse, match=f"process {os.getpid()} on"):
                lock.own(tmp_path).__enter__()
            raise RuntimeError


@pytest.mark.parametrize("code", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_stands_for_a_lock_where_the_file_system_has_none(tmp_path, monkeypatch, code):
    def flock(descriptor, operation):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr("fcntl.flock", flock)
    with lock.own(tmp_path), pytest.raises(lock.InUse) as caught:
        lock.own(tmp_path).__enter__()
    assert f"delete {tmp_path / '.lock'}" in str(caught.value)
    with lock.own(tmp_path):
        pass
