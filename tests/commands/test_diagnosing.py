"""Which weights of a run are diagnosed."""

import json

import jax
import numpy as np

from mtl_jax import models
from mtl_jax.commands import diagnosing, one_run
from mtl_jax.data.outline import Outline
from mtl_jax.runs.settings import Settings
from tests import fakes, tiny
from tests.command_line import parsed


def test_gradients_are_those_at_the_last_weights_and_not_at_their_average(tmp_path, monkeypatch):
    monkeypatch.setitem(models.MODELS, "tiny", tiny.model)
    outline = Outline(20, 7, tiny.IMAGE_SIZE, fakes.CLASSES, 3, tuple(fakes.example(0)))
    found = {}
    for average in (0.0, 0.9):
        folder = tmp_path / str(average)
        # The average does not change the training.
        tiny.run(folder, epochs=1, weighting="equal", average=average or None)
        (folder / "config.json").write_text(json.dumps({"class_names": fakes.CLASSES}))
        flags = ["--model=tiny", "--batch_size=4", "--devices=1", f"--average={average}"]
        settings = parsed(*flags, f"--workdir={folder}")
        settings = Settings(**vars(settings) | {"image_size": tiny.IMAGE_SIZE})
        settings = diagnosing.check(settings, outline)
        devices = jax.local_devices()[:1]
        found[average] = one_run.restore(settings, codebook=None, devices=devices)[1]
    jax.tree.map(np.testing.assert_array_equal, found[0.0], found[0.9])
