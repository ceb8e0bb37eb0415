"""What an evaluation keeps for a report: the best and worst images, found by NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtl_jax import data
from mtl_jax.tasks import TASKS
from mtl_jax.training import details, evaluation
from tests import fakes

SPLITS = data.open_splits(fakes.builder(train=2, test=13))


def predict(shift, batch):
    """Depth by the place of a pixel in its image, so that images differ in their errors."""
    image = batch["image"]
    return {"depth": 1.0 + shift * image[..., 0] + jnp.linspace(0.0, 0.5, image.shape[2])}


def judge(splits=SPLITS, tasks=(TASKS["depth"],)):
    return evaluation.judge_predictions(
        predict, tasks, splits, eval_batch_size=4, devices=jax.local_devices()[:1]
    )


@pytest.fixture(scope="module")
def kept():
    made, shift = judge(), np.float32(0.5)
    return details.collect(made, shift, "test", made.evaluate(shift, "test"))


def test_the_best_and_worst_images_are_kept_with_their_errors(kept):
    views = [SPLITS["test"].source[int(i)] for i in SPLITS["test"].indices]
    image = np.stack([view["image"] for view in views]).astype(np.float64) / 255
    true = np.stack([view["depth"] for view in views]).astype(np.float64)
    predicted = 1 + 0.5 * image[..., 0] + np.linspace(0, 0.5, image.shape[2])
    errors = [np.abs(p - t)[t > 0].mean() for p, t in zip(predicted, true, strict=True)]
    np.testing.assert_allclose(kept["depth/errors"], errors, rtol=1e-5)
    order = np.argsort(errors)
    assert kept["depth/best"].tolist() == order[:5].tolist()
    assert kept["depth/worst"].tolist() == order[:-6:-1].tolist()
    shown = [*order[:5], *order[:-6:-1]]
    for key, name in (("image", "image"), ("true", "depth")):
        expected = np.stack([views[i][name] for i in shown])
        assert kept[f"depth/{key}"].dtype == expected.dtype
        np.testing.assert_array_equal(kept[f"depth/{key}"], expected)
    np.testing.assert_allclose(kept["depth/predicted"], predicted[shown], rtol=1e-3)
    assert kept["depth/over_distance"][0].sum() == np.sum(true > 0)


@pytest.mark.parametrize(
    ("errors", "best", "worst"),
    [
        ([], [], []),
        ([3.0], [0], []),
        ([3.0, 1.0], [1], [0]),
        ([3.0, np.nan, 1.0, 2.0], [2, 3], [0]),
        ([np.nan, np.inf], [], []),
        (np.arange(12.0)[::-1], [11, 10, 9, 8, 7], [0, 1, 2, 3, 4]),
        ([1.0, 1.0, 1.0], [0, 1], [2]),
    ],
)
def test_no_image_is_both_and_one_without_an_error_neither(errors, best, worst):
    assert details.extremes(np.float32(errors)) == (best, worst)


def test_without_labels_there_is_no_best_image():
    blank = [view | {"depth": np.zeros_like(view["depth"])} for view in SPLITS["test"].source]
    splits = {"test": data.Dataset(blank, np.arange(3), SPLITS["test"].class_names)}
    made = judge(splits)
    kept = details.collect(made, np.float32(1), "test", made.evaluate(np.float32(1), "test"))
    assert np.isnan(kept["depth/errors"]).all()
    assert kept["depth/best"].size == kept["depth/worst"].size == 0
    assert "depth/image" not in kept


def test_a_task_without_errors_or_charts_keeps_nothing():
    made = judge(tasks=(TASKS["depth"]._replace(errors=None, charts=()),))
    assert details.collect(made, np.float32(1), "test", made.evaluate(np.float32(1), "test")) == {}


def test_large_pictures_are_thinned_out():
    picture = np.arange(288 * 384).reshape(288, 384)
    np.testing.assert_array_equal(details.thin_out(picture), picture[::3, ::3])
    assert details.thin_out(np.zeros((96, 128, 3))).shape == (96, 128, 3)
