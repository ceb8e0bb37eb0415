"""Where compiled programs are kept."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from mtl_jax.commands import compilation
from mtl_jax.commands.compilation import keep_programs, prune

SETTINGS = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")


@pytest.fixture(autouse=True)
def caches(tmp_path, monkeypatch):
    """A user with no caches yet, in whose environment nothing is set."""
    before = {name: getattr(jax.config, name) for name in SETTINGS}
    jax.config.update("jax_compilation_cache_dir", None)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    yield tmp_path / "caches"
    for name, value in before.items():
        jax.config.update(name, value)


def kept_in() -> str | None:
    return jax.config.jax_compilation_cache_dir


def test_default_is_a_folder_of_the_user_alone_and_is_named(caches):
    line = keep_programs(None, mode="train")
    place = caches / "mtl_jax" / "programs"
    assert kept_in() == str(place / compilation.processor()) and str(place) in line
    assert stat.S_IMODE(place.stat().st_mode) == 0o700


@pytest.mark.parametrize("value", [None, "", "relative"])
def test_default_without_a_folder_for_caches_is_below_the_home(value, tmp_path, monkeypatch):
    monkeypatch.delenv("XDG_CACHE_HOME") if value is None else monkeypatch.setenv(
        "XDG_CACHE_HOME", value
    )
    keep_programs(None, mode="train")
    place = tmp_path / "home/.cache/mtl_jax/programs"
    assert kept_in() == str(place / compilation.processor())


def test_each_kind_of_processor_has_a_part_of_the_folder(monkeypatch):
    def name(text: str) -> str:
        monkeypatch.setattr(Path, "read_text", lambda *args, **how: text)
        return compilation.processor()

    clock = "cpu MHz : 2400.1\nflags : fpu avx2\nflags : fpu avx2"
    assert name("flags : fpu avx2") == name(clock) != name("flags : fpu avx2 avx512f")
    monkeypatch.undo()
    assert compilation.processor() == compilation.processor()


def test_programs_are_found_there_by_the_next_process(caches):
    code = """
import jax
from mtl_jax.commands.compilation import keep_programs
found = []
jax.monitoring.register_event_listener(lambda name, **facts: found.append(name.split("/")[-1]))
keep_programs(None, mode="train")
jax.jit(lambda x: x + 1.0)(2.0)
print(found.count("cache_hits"), found.count("cache_misses"))
"""
    unset = ("JAX_COMPILATION_CACHE_DIR", "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS")
    environment = {name: value for name, value in os.environ.items() if name not in unset}
    command = [sys.executable, "-c", code]
    for expected in ("0 1", "1 0"):
        ended = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert ended.stdout.strip() == expected, ended.stderr


def test_setting_of_jax_comes_before_the_default(tmp_path, caches):
    jax.config.update("jax_compilation_cache_dir", str(tmp_path / "own"))
    assert keep_programs(None, mode="train") is None
    assert kept_in() == str(tmp_path / "own") and not caches.exists()


@pytest.mark.parametrize("mode", ["report", "benchmark"])
def test_modes_that_compile_nothing_or_time_it_make_no_folder(mode, caches):
    assert keep_programs(None, mode=mode) is None
    assert kept_in() is None and not caches.exists()


def test_named_folder_and_none(tmp_path, caches):
    assert keep_programs(str(tmp_path / "named"), mode="train") is None
    assert kept_in() == str(tmp_path / "named")
    assert keep_programs(compilation.OFF, mode="train") is None
    assert kept_in() is None and not caches.exists()


def test_folder_that_cannot_be_made_is_reported_and_done_without(caches):
    caches.write_text("a file")
    line = keep_programs(None, mode="train")
    assert kept_in() is None
    assert str(caches) in line and "not kept" in line and "`compilation_cache`" in line


def test_folder_that_others_may_write_to_is_reported_and_done_without(caches):
    place = caches / "mtl_jax" / "programs"
    place.mkdir(parents=True)
    place.chmod(0o777)
    line = keep_programs(None, mode="train")
    assert kept_in() is None
    assert f"others may write to {place}" in line and "`compilation_cache`" in line


def test_user_without_a_home_goes_without(monkeypatch):
    def fail() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "home", fail)
    assert "no home folder" in keep_programs(None, mode="train")
    assert kept_in() is None


def test_programs_that_were_used_longest_ago_go_first(tmp_path):
    used = {"old": (1, 1), "read": (5, 2), "new": (3, 3), "sub/older": (0, 0)}
    (tmp_path / "sub").mkdir()
    for name, times in used.items():
        (tmp_path / name).write_bytes(bytes(100))
        os.utime(tmp_path / name, times)
    prune(tmp_path, 250)
    assert {path.name for path in tmp_path.rglob("*") if path.is_file()} == {"read", "new"}
    prune(tmp_path, 200)
    assert (tmp_path / "new").exists()
