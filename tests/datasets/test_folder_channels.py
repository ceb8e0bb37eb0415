"""Folders of grey photos, and of photos with the depth of a sensor."""

import re
import shutil

import numpy as np
import pytest
from PIL import Image

import datasets
from mtl_jax import data
from tests import fakes
from tests.datasets import folder_files
from tests.datasets.folder_files import HEIGHT, WIDTH

EXAMPLES = folder_files.examples(3, 2)
RANGE = 8.0


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """A folder in which the depth of half the pixels is an input, in millimetres."""
    root = tmp_path_factory.mktemp("folder") / "mine"
    folder_files.write(root, EXAMPLES, fakes.CLASSES)
    for part, examples in EXAMPLES.items():
        (root / "sensor_depth" / part).mkdir(parents=True)
        for number, _ in enumerate(examples):
            Image.fromarray(sensed(number)).save(
                root / "sensor_depth" / part / f"{part}{number:04d}.png"
            )
    return root


def sensed(number):
    """Depth u16[H, W] in millimetres, 0 = missing in every other row."""
    depth = np.random.default_rng(number).integers(1000, 9000, (HEIGHT, WIDTH))
    depth[::2] = 0
    return depth.astype(np.uint16)


def builder(root, text, size=(HEIGHT, WIDTH)):
    return datasets.builder(text, image_size=size, data_dir=root.parent / "data", folder=root)


def prepared(made):
    datasets.prepare(made)
    return data.open_splits(made)


def test_grey_photos_have_one_channel(root, capsys):
    made = builder(root, "folder:channels=1")
    assert datasets.outline(made).channels == 1
    found = prepared(made)["train"].source[1]
    expected = Image.fromarray(EXAMPLES["train"][1]["image"]).convert("L")
    np.testing.assert_array_equal(found["image"][..., 0], expected)
    np.testing.assert_array_equal(found["depth"], EXAMPLES["train"][1]["depth"])
    assert "not used: sensor_depth/" in capsys.readouterr().out


def test_the_depth_of_a_sensor_is_the_fourth_channel(root, capsys):
    made = builder(root, f"folder:channels=4,sensor_range={RANGE:g}")
    assert datasets.outline(made).channels == 4
    found = prepared(made)["train"].source[2]["image"]
    np.testing.assert_array_equal(found[..., :3], EXAMPLES["train"][2]["image"])
    metres = sensed(2) / 1000
    assert np.all(found[::2, :, 3] == 0)
    steps = np.minimum(metres[1::2], RANGE) * 255 / RANGE
    np.testing.assert_allclose(found[1::2, :, 3], steps, atol=0.5 + 1e-4)
    printed = capsys.readouterr().out
    assert re.search("depth of the sensor: median [45].* m, missing at 50.0% and 8 m or", printed)


def test_a_sensor_that_saw_nothing_has_no_median(root, capsys):
    for path in (root / "sensor_depth").glob("*/*.png"):
        Image.fromarray(np.zeros((HEIGHT, WIDTH), np.uint16)).save(path)
    prepared(builder(root, "folder:channels=4"))
    assert "depth of the sensor: missing at every pixel\n" in capsys.readouterr().out


@pytest.mark.parametrize(("channels", "pictures"), [(1, 0), (4, 5)])
def test_the_page_shows_what_the_network_sees(root, channels, pictures):
    prepared(builder(root, f"folder:channels={channels}"))
    page = next((root.parent / "data").rglob("found.html")).read_text()
    assert page.count("<figcaption>depth of the sensor</figcaption>") == pictures
    assert page.count("<figcaption>train0001.png</figcaption>") == 1


def test_depth_of_another_size_is_that_of_the_nearest_pixel(root):
    """A mean of depth and nothing would be a depth that is not there."""
    made = builder(root, "folder:channels=4", size=(HEIGHT // 2, WIDTH // 2))
    found = prepared(made)["train"].source[0]["image"][..., 3]
    steps = np.rint(sensed(0)[1::2, 1::2] * 0.0255).astype(np.uint8)
    np.testing.assert_array_equal(found, steps)


def test_a_folder_with_no_depth_of_a_sensor_is_refused(root):
    shutil.rmtree(root / "sensor_depth")
    with pytest.raises(ValueError, match="channels=4 adds the depth in .*sensor_depth to the imag"):
        builder(root, "folder:channels=4")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("folder:channels=2", "channels must be 1, 3 or 4, got 2"),
        ("folder:channels=4,sensor_range=0", "sensor_range must be a positive number, got 0"),
        ("folder:sensor_range=5", "sensor_range=5 is for channels=4"),
    ],
)
def test_options_that_make_no_sense(root, text, message):
    with pytest.raises(ValueError, match=message):
        builder(root, text)


def test_every_problem_of_a_sensor_is_named(root, capsys):
    folder = root / "sensor_depth" / "train"
    (folder / "train0000.png").unlink()
    Image.fromarray(sensed(1)[1:]).save(folder / "train0001.png")
    (folder / "train0002.png").write_text("no picture")
    (root / "sensor_depth/val/val0001.png").unlink()
    np.save(root / "sensor_depth/val/val0001.npy", np.full((HEIGHT, WIDTH), 2431.0))
    with pytest.raises(ValueError, match="4 problems"):
        datasets.prepare(builder(root, "folder:channels=4"))
    printed = capsys.readouterr().out
    assert "train0000.png has no file in sensor_depth/" in printed
    assert "train0001.png is 15x24 (height x width), but its image is 16x24" in printed
    assert re.search("sensor_depth/train/train0002.png .*", printed)
    assert "val0001.npy has a median of 2431, where metres are expected" in printed


def test_right_views_do_not_go_with_a_sensor(root):
    made = builder(root, "folder:channels=4")
    assert "image_right" not in made.known_entries()
    assert made.advice()["image_right"].startswith("leave out channels=4")
