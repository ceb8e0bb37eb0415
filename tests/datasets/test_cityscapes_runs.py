"""Runs of launch.py on made-up files of Cityscapes, in its two layouts."""

import json
from pathlib import Path

import pytest

from datasets.cityscapes import cityscapes_dataset_builder as cityscapes
from tests.command_line import SMALL, command_line, complaint
from tests.datasets import cityscapes_files as made

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def few(monkeypatch):
    """Replaces the 3475 frames by a few."""
    monkeypatch.setattr(cityscapes, "COUNTS", made.COUNTS)


@pytest.fixture
def place(tmp_path):
    """Flags of folders, in which nothing is yet."""
    return [f"--data_dir={tmp_path / 'data'}", f"--workdir={tmp_path / 'run'}"]


def result(place):
    folder = Path(place[1].partition("=")[2])
    return json.loads((folder / "result.json").read_text())["metrics"]


SIZE = f"--image_size={made.HEIGHT}x{made.WIDTH}"


def test_the_layout_of_the_literature(tmp_path, place, capsys):
    files = f"--manual_dir={made.write_mtan(tmp_path / 'mtan')}"
    flags = ["--dataset=cityscapes:layout=mtan,classes=7", SIZE, files, *place, *SMALL]
    flags += ["--metric_protocol=mtan"]
    # Nothing that needs metres or a second view goes with inverse depth.
    for wrong, message in {
        "--tasks=segmentation,depth": "the data set has no depth: leave depth out of --tasks",
        "--tasks=normals --normals_source=depth": "the data set has no depth",
        "--tasks=depth --depth_loss=stereo": "no image_right: leave depth out of --tasks",
    }.items():
        assert message in complaint(*flags, *wrong.split())
    command_line(*flags, "--tasks=segmentation,inverse_depth")
    table = capsys.readouterr().out
    assert "mIoU % ↑  PixAcc % ↑  AbsErr (inverse depth) ↓  RelErr (inverse depth) ↓" in table
    assert set(result(place)) >= {"segmentation/miou", "inverse_depth/relative_error"}
    assert "no task of this run predicts distances" in complaint(
        "--mode=predict", place[1], "--input=docs/room.jpg", "--point_cloud"
    )
    command_line("--mode=predict", place[1], "--input=docs/room.jpg")
    assert (tmp_path / "run/predictions/room_inverse_depth.png").exists()


def test_the_official_layout_learns_depth_from_stereo_pairs(tmp_path, place, capsys):
    files = f"--manual_dir={made.write_official(tmp_path / 'official')}"
    flags = ["--dataset=cityscapes", SIZE, files, *place, *SMALL]
    command_line(*flags, "--tasks=segmentation,depth", "--depth_loss=stereo:nearest=2")
    assert "AbsErr m ↓" in capsys.readouterr().out
    assert result(place)["depth/absolute_error"] > 0
