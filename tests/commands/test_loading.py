"""What is known of a trained network besides its weights."""

import numpy as np

from mtl_jax.commands import loading


def test_images_of_unknown_cameras_have_no_say_in_the_focal_length():
    intrinsics = np.zeros((4, 4), np.float32)
    samples = {"image": np.zeros((4, 6, 8, 3), np.uint8), "intrinsics": intrinsics}
    assert loading.focal_length(samples) is None
    intrinsics[1:3] = 10, 11, 3.5, 2.5
    assert loading.focal_length(samples) == 10 / 8
