"""The row of an epoch from the sums of its steps."""

import jax
import jax.numpy as jnp
import numpy as np

from mtl_jax.tasks import TASKS, select, stereo
from mtl_jax.training import sums as sums_of_steps
from mtl_jax.training.passes import Backward
from mtl_jax.weighting import Signals, make

DEPTH_AND_CLASSES = select(["depth", "segmentation"])


def test_epoch_row_averages_over_the_steps_that_were_not_skipped():
    sums = {
        "steps": 4.0, "skipped": 2.0, "seconds": 9.0,
        "loss/depth": 6.0, "loss/segmentation": 10.0,
        "labelled/depth": 4.0, "labelled/segmentation": 2.0,
        "weight/depth": 2.0, "weight/segmentation": 8.0,
        "diagnostic/residual": 1.0, "diagnostic/cosine/depth-segmentation": -1.0,
        "took_part/depth-segmentation": 2.0,
    }  # fmt: skip
    sums = {name: jnp.float32(value) for name, value in sums.items()}
    assert sums_of_steps.epoch_row(sums, DEPTH_AND_CLASSES, epoch=3, step=18) == {
        "epoch": 3,
        "step": 18,
        "skipped_steps": 2,
        "seconds": 9.0,
        "steps_without_labels": {"depth": 0, "segmentation": 2},
        "train": {"depth/loss": 1.5, "segmentation/loss": 5.0},
        "weights": {"depth": 0.5, "segmentation": 4.0},
        "diagnostics": {"residual": 0.25, "cosine/depth-segmentation": -0.5},
    }


def test_a_loss_without_a_pixel_that_counts_is_in_no_mean():
    """Depth from a pair, filled, whose second step compares no pixel of the two views."""
    weighting = make("equal")
    state = weighting.init(2)
    sums = sums_of_steps.zero_sums(DEPTH_AND_CLASSES, weighting, state)
    depth = jnp.full((1, 16, 24), 2.0) + jnp.arange(24.0) / 24
    views = {name: jnp.zeros((1, 16, 24, 3)) for name in ("image", "image_right")}
    views |= {"intrinsics": jnp.array([[20.0, 20.0, 12.0, 8.0]])}
    expected = {}
    for baseline in (0.1, 20.0):  # disparities of at most a pixel, and of more than the width
        batch = views | {"baseline": jnp.array([baseline])}
        total, count = stereo.photometric_loss(depth, batch, smoothness=0.5, fill=True)
        expected[baseline] = float(total) / max(float(count), 1.0)
        losses, counts = jnp.array([expected[baseline], 2.0]), jnp.array([count, 3.0])
        given = Signals(losses, None, jnp.array(0), labelled=counts > 0)
        weights, state, diagnostics = weighting.update(given, state)
        backward = Backward(losses, counts, None, {}, {})
        sums = sums_of_steps.add_to_sums(
            sums, DEPTH_AND_CLASSES, backward, weights.shared, diagnostics
        )
    assert expected[20.0] > 0
    row = sums_of_steps.epoch_row(sums, DEPTH_AND_CLASSES, epoch=1, step=2)
    assert row["steps_without_labels"] == {"depth": 1, "segmentation": 0}
    np.testing.assert_allclose(row["train"]["depth/loss"], expected[0.1], rtol=1e-6)
    assert row["train"]["segmentation/loss"] == 2.0


def test_diagnostics_of_tasks_are_means_over_the_steps_in_which_they_took_part():
    """Segmentation, with a gradient of length 2 and a cosine of -0.5, has no labels in step 1."""
    weighting = make("imtl")
    state = weighting.init(2)
    zeros = sums = sums_of_steps.zero_sums(DEPTH_AND_CLASSES, weighting, state)
    gram, losses = jnp.array([[1.0, -1.0], [-1.0, 4.0]]), jnp.array([1.0, 2.0])
    for labelled in (jnp.array([True, True]), jnp.array([True, False])):
        given = Signals(losses, gram, jnp.array(0), labelled=labelled)
        weights, state, diagnostics = weighting.update(given, state)
        backward = Backward(losses, labelled.astype(jnp.float32), None, {}, {})
        sums = sums_of_steps.add_to_sums(
            sums, DEPTH_AND_CLASSES, backward, weights.shared, diagnostics
        )
    jax.tree.map(lambda a, b: np.testing.assert_equal(a.dtype, b.dtype), sums, zeros)
    found = sums_of_steps.epoch_row(sums, DEPTH_AND_CLASSES, epoch=1, step=2)["diagnostics"]
    assert found["cosine/depth-segmentation"] == -0.5
    assert found["gradient_norm/depth"] == 1.0 and found["gradient_norm/segmentation"] == 2.0
    assert found["participation/depth"] == 1.0 and found["participation/segmentation"] == 0.5
    assert found["negative_loss/depth"] == found["fallback"] == 0.0
    none = sums_of_steps.epoch_row(zeros, DEPTH_AND_CLASSES, epoch=1, step=2)["diagnostics"]
    assert found.keys() - none.keys() == {
        "cosine/depth-segmentation", "gradient_norm/depth", "gradient_norm/segmentation",
        "log_scale/depth", "log_scale/segmentation",
    }  # fmt: skip


def test_an_epoch_of_skipped_steps_only_has_no_loss():
    names = ["steps", "skipped", "seconds", "loss/normals", "labelled/normals", "weight/normals"]
    sums = {name: jnp.float32(7.0 if name == "skipped" else 0.0) for name in names}
    found = sums_of_steps.epoch_row(sums, [TASKS["normals"]], epoch=1, step=7)
    # A mean of no loss: zero would be that of a perfect prediction.
    assert found["train"] == {}
    assert found["weights"] == {"normals": 0.0}
    assert found["skipped_steps"] == 7
