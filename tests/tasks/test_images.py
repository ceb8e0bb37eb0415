"""Images of other channels than red, green and blue."""

import numpy as np
import pytest
from PIL import Image

from mtl_jax.tasks.images import divided, in_colour, in_grey, with_depth

PIXELS = np.random.default_rng(0).integers(0, 256, (2, 50, 40, 3), np.uint8)


def test_grey_is_pillows():
    expected = [np.asarray(Image.fromarray(image).convert("L")) for image in PIXELS]
    np.testing.assert_array_equal(in_grey(PIXELS)[..., 0], expected)


def test_grey_images_in_colour_are_grey_again():
    grey = in_grey(PIXELS)
    assert in_colour(grey).shape == PIXELS.shape
    np.testing.assert_array_equal(in_grey(in_colour(grey)), grey)


@pytest.mark.parametrize(
    ("metres", "coded"),
    [(0.0, 0), (1e-6, 1), (0.02, 1), (5.0, 128), (9.99, 255), (10.0, 255), (70.0, 255)],
)
def test_depth_is_coded_in_steps_and_zero_stays_missing(metres, coded):
    depth = np.full(PIXELS.shape[:-1], metres, np.float32)
    made = with_depth(PIXELS, depth, 10.0)
    colours, channel = divided(made)
    np.testing.assert_array_equal(colours, PIXELS)
    np.testing.assert_array_equal(channel, np.full((*depth.shape, 1), coded, np.uint8))
    np.testing.assert_array_equal(in_colour(made), PIXELS)
