"""The script that fits depth maps to single stereo pairs."""

import jax
import jax.numpy as jnp
import numpy as np

from mtl_jax import tasks
from tests.docs import scripts


def plane():
    """A noisy texture on a wall at 2 m, at a disparity of 3 pixels."""
    wall = np.random.default_rng(0).random((1, 32, 67, 3))
    return {
        "image": jnp.float32(wall[:, :, :64]),
        "image_right": jnp.float32(wall[:, :, 3:]),
        "depth": jnp.full((1, 32, 64), 2.0),
        "intrinsics": jnp.array([[60.0, 60.0, 31.5, 15.5]]),
        "baseline": jnp.array([0.1]),
    }


def test_the_truth_is_the_best_multiple_of_itself():
    script, batch = scripts.load("stereo_fit"), plane()
    shares = script.groups(batch)
    np.testing.assert_array_equal(sum(x.astype(int) for x in shares.values()), 1)
    np.testing.assert_array_equal(shares["unseen"][0, :, :3], True)
    assert np.sum(shares["unseen"]) == 3 * 32
    for name, (less, true, more) in script.dissimilarities(batch, (0.8, 1.0, 1.25)).items():
        if name != "unseen":
            assert true < 0.1 * min(less, more)


def test_a_wall_is_fitted():
    script, batch = scripts.load("stereo_fit"), plane()
    (task,) = tasks.select(["depth"], depth_loss="stereo:smoothness=0.1,order=2,fill=true")
    with jax.numpy_dtype_promotion("standard"):  # which Adam of optax needs
        fitted = script.fit(task, batch, steps=60)
    share, *_ = script.accuracies(fitted, batch)
    assert share > 95
    assert script.accuracies(2 * fitted, batch)[0] < 5


def test_errors_are_those_of_each_group():
    script, batch = scripts.load("stereo_fit"), plane()
    # The right view does not show the first three columns.
    depth = batch["depth"].at[:, :, :3].multiply(2.0)
    everywhere, *seen, unseen = script.relative_errors(depth, batch)
    np.testing.assert_allclose(everywhere, 3 / 64, rtol=1e-5)
    assert seen == [0, 0, 0, 0] and unseen == 1
    assert script.accuracies(depth, batch)[-1] == 0
