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


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "`out`: a name is empty"),
        ("gs://bucket/x", "`out`=gs://bucket/x: addresses are not supported"),
        ("file:/x", "addresses are not supported"),
        ("~nobody_is_called_so/x", "there is no such user"),
    ],
)
def test_texts_that_name_no_path(text, message):
    with pytest.raises(ValueError, match=message):
        files.check_name("`out`", text)


def test_a_path_has_its_home_filled_in(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    assert files.check_name("`out`", "~/a b:c").as_posix() == "/home/me/a b:c"


def test_a_folder_that_can_be_written_is_left_as_it_is(tmp_path):
    files.check_writable("`out`", tmp_path / "new" / "folder")
    assert not list(tmp_path.iterdir())
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "folder"):
        with pytest.raises(ValueError, match="`out`=.*file"):
            files.check_writable("`out`", path)
