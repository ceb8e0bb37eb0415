"""The row of an epoch from the sums of its steps."""

import jax.numpy as jnp

from mtl_jax.tasks import TASKS, select
from mtl_jax.training import sums as sums_of_steps

DEPTH_AND_CLASSES = select(["depth", "segmentation"])


def test_epoch_row_averages_over_the_steps_that_were_not_skipped():
    sums = {
        "steps": 4.0, "skipped": 2.0,
        "loss/depth": 6.0, "loss/segmentation": 10.0,
        "labelled/depth": 4.0, "labelled/segmentation": 2.0,
        "weight/depth": 2.0, "weight/segmentation": 8.0,
        "diagnostic/residual": 1.0, "diagnostic/cosine/depth-segmentation": -2.0,
    }  # fmt: skip
    sums = {name: jnp.float32(value) for name, value in sums.items()}
    assert sums_of_steps.epoch_row(sums, DEPTH_AND_CLASSES, epoch=3, step=18) == {
        "epoch": 3,
        "step": 18,
        "skipped_steps": 2,
        "steps_without_labels": {"depth": 0, "segmentation": 2},
        "train": {"depth/loss": 1.5, "segmentation/loss": 5.0},
        "weights": {"depth": 0.5, "segmentation": 4.0},
        "diagnostics": {"residual": 0.25, "cosine/depth-segmentation": -0.5},
    }


def test_epoch_row_of_skipped_steps_only_is_finite():
    names = ["steps", "skipped", "loss/normals", "labelled/normals", "weight/normals"]
    sums = {name: jnp.float32(7.0 if name == "skipped" else 0.0) for name in names}
    found = sums_of_steps.epoch_row(sums, [TASKS["normals"]], epoch=1, step=7)
    assert found["train"] == {"normals/loss": 0.0}
    assert found["skipped_steps"] == 7
