"""A file is the old one or the new one, never a part of either."""

import errno
import os

import pytest

from mtl_jax import files


def test_text_and_bytes_are_written_and_replaced(tmp_path):
    path = tmp_path / "a.txt"
    files.write(path, "Δm\n")
    assert path.read_bytes() == "Δm\n".encode()
    files.write(path, b"\x00\x01")
    assert path.read_bytes() == b"\x00\x01"
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_leaves_the_old_file_and_names_it(tmp_path, monkeypatch):
    path = tmp_path / "a.txt"
    files.write(path, "old")

    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left on device.*a.txt"):
        files.write(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_is_missing_is_reported_with_the_name_of_the_file(tmp_path):
    with pytest.raises(OSError, match="No such file or directory.*missing/a.txt"):
        files.write(tmp_path / "missing" / "a.txt", "new")
