"""Runs on grey images, and on images with the depth of a sensor, from training to predictions."""

import json

import numpy as np
import pytest
from PIL import Image

import mtl_jax
from mtl_jax import models
from tests import fakes, tiny
from tests.command_line import SMALL, command_line, complaint
from tests.datasets import folder_files

pytestmark = pytest.mark.slow

EXAMPLES = {
    part: [fakes.example(first + i, height=32, width=48) for i in range(4)]
    for part, first in (("train", 0), ("val", 100))
}


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A folder whose depth is also an input; a run in it is one of a tiny network."""
    monkeypatch.setitem(models.MODELS, "tiny", tiny.model)
    folder_files.write(tmp_path / "mine", EXAMPLES, fakes.CLASSES)
    for part in EXAMPLES:
        (tmp_path / "mine/sensor_depth" / part).mkdir(parents=True)
        for path in (tmp_path / "mine/depth" / part).iterdir():
            np.save(tmp_path / "mine/sensor_depth" / part / path.name, np.load(path))
    return tmp_path / "mine"


@pytest.mark.parametrize("channels", [1, 4])
def test_a_run_from_training_to_predictions(root, channels, capsys):
    run = root.parent / "run"
    place = [f"--data_dir={root.parent / 'data'}", f"--workdir={run}"]
    dataset = f"--dataset=folder:channels={channels}"
    train = [dataset, f"--folder={root}", "--tasks=segmentation,depth", *place, *SMALL]
    command_line(*train, "--model=tiny", "--augment", "--colour_jitter=0.2")
    assert json.loads((run / "config.json").read_text())["channels"] == channels
    command_line("--mode=evaluate", *place)
    command_line("--mode=export", place[1])
    photo = root / "images/val/val0000.png"
    for folder in (run, run / "export"):
        predict = ["--mode=predict", f"--workdir={folder}", f"--input={photo}"]
        predict += [f"--out={folder}-predictions"]
        if channels == 4:
            assert "give the folder of the depth maps of the photos as --sensor_depth" in complaint(
                *predict
            )
            predict.append(f"--sensor_depth={root / 'sensor_depth/val'}")
        command_line(*predict)
    one, other = (
        np.asarray(Image.open(f"{folder}-predictions/val0000_depth.png"), np.float64)
        for folder in (run, run / "export")
    )
    np.testing.assert_allclose(one, other, atol=1)
    assert mtl_jax.load(run).channels == channels
    assert "supports only images of 3 channels" in complaint("--mode=benchmark", *train[:3], *SMALL)
    capsys.readouterr()
