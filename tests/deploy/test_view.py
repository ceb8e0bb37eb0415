"""A view shows the photo and its predictions in their colours."""

import io

import numpy as np
import pytest
from PIL import Image

from mtl_jax.deploy import view
from mtl_jax.tasks import DEPTH, class_colours
from tests import fakes
from tests.deploy import stubs
from tests.fakes import TASKS


@pytest.mark.parametrize(
    ("size", "shown"),
    [
        ((96, 128), (120, 160)),
        ((3000, 4000), (360, 480)),
        ((1, 1), (120, 120)),
        ((2, 9000), (120, 480)),
        ((300, 400), (300, 400)),
    ],
)
def test_views_are_neither_tiny_nor_huge(size, shown):
    assert view.size_of(size) == shown
    assert view.size_of(size[::-1]) == shown[::-1]


def test_a_view_has_the_colours_of_the_classes_that_occur():
    pixels = stubs.colours(18, 24)
    results = stubs.predict(pixels)
    with Image.open(io.BytesIO(view.png(pixels, results, fakes.CLASSES))) as image:
        shown = np.asarray(image.convert("RGB"))
    assert shown.shape[1] == pytest.approx(4 * 480, abs=2)
    colours = {tuple(x) for x in shown.reshape(-1, 3)[::7]}
    for index in np.unique(results["segmentation"]):
        assert tuple(class_colours(3)[index].tolist()) in colours


def test_frames_of_a_video():
    pixels = stubs.colours(120, 160)
    results = stubs.predict(pixels)
    tasks = tuple(TASKS.values())
    first = {name: x[None] for name, x in results.items()}
    frame = view.make_frame(tasks, first, (120, 160), fakes.CLASSES)
    drawn = frame.draw(pixels, results)
    assert drawn.dtype == np.uint8
    assert drawn.shape == frame.canvas.shape
    assert drawn.shape[0] % 2 == drawn.shape[1] % 2 == 0
    assert frame.limits["depth"] == (results["depth"].min(), results["depth"].max())
    panels = [np.asarray(Image.fromarray(drawn[box]).resize((160, 120))) for box in frame.boxes]
    assert np.abs(panels[0].astype(int) - pixels).mean() < 3
    classes = class_colours(3)[results["segmentation"]]
    assert (panels[1] == classes).all(-1).mean() > 0.8
    assert (
        np.abs(panels[3].astype(int) - TASKS["normals"].picture.paint(results["normals"])).mean()
        < 3
    )
    # A depth beyond the first frames' range takes the end of the scale.
    deeper = frame.draw(pixels, results | {"depth": results["depth"] + 50})
    assert len({tuple(x) for x in deeper[frame.boxes[2]].reshape(-1, 3)}) == 1


def test_the_frames_of_one_task():
    first = {"depth": np.full((2, 30, 40), 2.0, np.float32)}
    frame = view.make_frame((DEPTH,), first, (120, 160), ())
    assert frame.limits["depth"] == (0.0, 2.0)
    assert len(frame.boxes) == 2
