"""Photos with the depth maps of a sensor, for networks that see both."""

import json
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from PIL import Image

from mtl_jax import models
from mtl_jax.commands import sensors
from mtl_jax.deploy.photos import Unreadable
from mtl_jax.deploy.predictor import Predictor
from tests import fakes, tiny

DATASET = "folder:channels=4,depth_scale=100,sensor_range=5"
SIZE = (32, 48)


def predictor(channels):
    network = tiny.network()._replace(channels=channels)
    variables = models.init(network, jax.random.key(0), SIZE)
    return Predictor(network, variables, class_names=fakes.CLASSES, image_size=SIZE)


@pytest.fixture
def settings(tmp_path):
    """Of a run in a folder that says only what its data set is, and a folder of depth maps."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").write_text(json.dumps({"dataset": DATASET, "format": 1}))
    (tmp_path / "maps").mkdir()
    made = {"workdir": [str(tmp_path / "run")], "sensor_depth": str(tmp_path / "maps")}
    return SimpleNamespace(**made, mode="predict")


@pytest.fixture
def photo(tmp_path):
    path = tmp_path / "a.jpg.png"
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    Image.fromarray(pixels).save(path)
    return path, pixels


def test_a_photo_with_its_depth_map(settings, photo, tmp_path):
    path, pixels = photo
    depth = np.full((20, 30), 250, np.uint16)
    Image.fromarray(depth).save(tmp_path / "maps" / "a.jpg.png")
    read = sensors.reader_of(settings, predictor(4))
    found = read(path).pixels
    np.testing.assert_array_equal(found[..., :3], pixels)
    assert np.all(found[..., 3] == 128)  # 2.5 of 5 m
    results = predictor(4)(found)
    assert results["segmentation"].shape == (20, 30)


@pytest.mark.parametrize(
    ("shape", "reason"),
    [(None, "no file of its name in"), ((20, 31), "is 20x31, and the photo")],
)
def test_photos_without_a_depth_map_that_fits(settings, photo, tmp_path, shape, reason):
    if shape:
        Image.fromarray(np.ones(shape, np.uint16)).save(tmp_path / "maps" / "a.jpg.png")
    with pytest.raises(Unreadable, match=reason):
        sensors.reader_of(settings, predictor(4))(photo[0])


@pytest.mark.parametrize(
    ("channels", "given", "dataset", "message"),
    [
        (3, "maps", DATASET, "`sensor_depth`=maps: the network of this run sees no depth"),
        (4, None, DATASET, "give the folder of the depth maps of the photos as `sensor_depth`"),
        (4, "nothing", DATASET, "`sensor_depth`=nothing is not a folder"),
        (4, "maps", "mine.py:make", "only mine.py:make knows the fourth channel of the images"),
    ],
)
def test_what_does_not_fit_the_network(settings, channels, given, dataset, message, tmp_path):
    (tmp_path / "run" / "config.json").write_text(json.dumps({"dataset": dataset, "format": 1}))
    settings.sensor_depth = given
    with pytest.raises(ValueError, match=message):
        sensors.reader_of(settings, predictor(channels))


def test_what_has_no_depth_is_refused():
    sensors.check_without(predictor(3), "a video")
    with pytest.raises(ValueError, match="a video has no depth, which the network"):
        sensors.check_without(predictor(4), "a video")
