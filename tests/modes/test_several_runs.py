"""Modes that train or time several networks, each from end to end."""

import importlib.util
import json

import pytest

from mtl_jax import models
from tests import tiny
from tests.command_line import ROOMS, command_line, complaint

pytestmark = pytest.mark.slow

OWN = """
import jax.numpy as jnp
from mtl_jax.weighting import from_gram

def same_length(*, power: float = 1.0):
    return from_gram(lambda gram: jnp.diagonal(gram) ** (-power / 2))

def nothing():
    return 5
"""


def test_sweep_compares_options_of_methods_and_a_method_of_your_own(prepared, tmp_path, capsys):
    (tmp_path / "mine.py").write_text(OWN)
    mine = f"{tmp_path / 'mine.py'}:same_length:power=0.5"
    weightings = f"--weightings=fairgrad:alpha=1,{mine}"
    place = [f"--data_dir={prepared}", f"--workdir={tmp_path / 'sweep'}"]
    flags = ["--mode=sweep", *ROOMS, *place, "--tasks=depth,normals", weightings, "--seeds=0"]
    command_line(*flags)
    table = (tmp_path / "sweep" / "report" / "table.md").read_text()
    for label in ("FairGrad (alpha=1)", "same_length (power=0.5)", "Single task"):
        assert f"\n| {label} |" in table
    names = [path.name for path in (tmp_path / "sweep").iterdir() if path.name != "report"]
    assert len(names) == 4 and "fairgrad-alpha=1-0" in names
    assert not any(set(name) & set(":/, ") for name in names)
    capsys.readouterr()
    command_line(*flags)
    assert capsys.readouterr().out.count("done already") == 4
    message = complaint("--mode=sweep", *ROOMS, f"--weightings={tmp_path / 'mine.py'}:nothing")
    assert "must return a Weighting" in message


def test_study_draws_the_curve_of_few_labels(prepared, tmp_path, capsys):
    command_line(
        "--mode=study",
        *ROOMS,
        f"--data_dir={prepared}",
        f"--workdir={tmp_path}",
        "--arms=segmentation,segmentation+depth",
        "--weightings=igb",
        "--label_fractions=1/2,1",
        "--seeds=0",
    )
    assert "| Segmentation alone |" in (tmp_path / "report" / "labels.md").read_text()
    printed = capsys.readouterr().out
    line = "WARNING: igb only measures losses in its first 4 steps, and this run has 2"
    assert printed.count(line) == 2
    assert printed.count("devices: 1 x cpu\n") == 4


def test_benchmark_times_steps(tmp_path, capsys):
    flags = ["--mode=benchmark", *ROOMS, f"--workdir={tmp_path}", "--benchmark_steps=1"]
    # The images are synthetic: more than the data set has.
    flags += ["--batch_size=12"]
    command_line(*flags, "--weightings=equal,nash:max_norm=2", "--tasks=depth,normals")
    text = (tmp_path / "benchmark.md").read_text()
    assert "| nash:max_norm=2 |" in text
    assert "resnet_unet:backbone=resnet18, 12 images of 40x56" in text
    assert "written to" in capsys.readouterr().out


def test_benchmark_times_the_steps_of_training(tmp_path, monkeypatch, capsys):
    """An average of the weights is one more copy of all parameters in memory."""
    monkeypatch.setitem(models.MODELS, "tiny", tiny.model)
    found = []
    for average in ("0", "0.9"):
        flags = ["--mode=benchmark", *ROOMS, f"--workdir={tmp_path}", "--benchmark_steps=1"]
        flags += ["--model=tiny", f"--average={average}", "--weightings=nash", "--weigh_every=2"]
        command_line(*flags)
        found.append(json.loads((tmp_path / "benchmark.json").read_text()))
    without, averaged = (facts["rows"][0]["megabytes"] for facts in found)
    assert averaged - without >= found[0]["trunk_megabytes"]
    assert "note: --weigh_every has no effect with --mode=benchmark" in capsys.readouterr().out


def test_benchmark_times_predictions(tmp_path, capsys):
    flags = ["--mode=benchmark", "--benchmark=inference", *ROOMS, f"--workdir={tmp_path}"]
    flags += ["--models=resnet_unet:backbone=resnet18", "--benchmark_steps=1", "--batch_size=3"]
    has_torch = importlib.util.find_spec("torch") is not None
    command_line(*flags, *["--compare_torch"] * has_torch)
    assert "note: --batch_size has no effect with --benchmark=inference" in capsys.readouterr().out
    text = (tmp_path / "inference.md").read_text()
    assert "images of 40x56" in text
    assert "| resnet_unet:backbone=resnet18 | 32 |" in text
    assert ("| PyTorch, float32, channels_last |" in text) == has_torch


def test_benchmark_times_what_feeds_a_step(prepared, tmp_path, capsys):
    place = [f"--data_dir={prepared}", f"--workdir={tmp_path}"]
    flags = ["--mode=benchmark", "--benchmark=input", *ROOMS, *place, "--benchmark_steps=1"]
    command_line(*flags, "--weighting=equal", "--batch_size=3")
    text = (tmp_path / "input.md").read_text()
    assert "3 images of 40x56" in text
    assert "| step of equal alone |" in text
    assert "MB in files" in text
    assert "note:" not in capsys.readouterr().out


def test_compare_trains_next_to_pytorch(prepared, tmp_path):
    pytest.importorskip("torch")
    pytest.importorskip("cvxpy")
    place = [f"--data_dir={prepared}", f"--workdir={tmp_path}"]
    command_line("--mode=compare", *ROOMS, *place, "--benchmark_steps=1")
    found = json.loads((tmp_path / "compare.json").read_text())
    assert found["ours"][0] == pytest.approx(found["theirs"][0], rel=1e-3)
    assert (tmp_path / "compare.png").exists()
