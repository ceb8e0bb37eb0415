"""What a report shows of each task against naive NumPy in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtl_jax.tasks import DEPTH, NORMALS, SEGMENTATION, TASKS, charts, metrics
from tests.tasks import cases


@pytest.fixture
def rng():
    return np.random.default_rng(3)


def collected(task, *arrays):
    """The array of a task's only chart, of the sums of one batch."""
    (chart,) = task.charts
    array = np.asarray(chart.collect(metrics.add([jax.jit(task.tally)(*arrays)])))
    assert chart.fits(array)
    return array


def naive_angles(normals, target):
    """Degrees in float64, NaN without a true normal."""
    normals, target = (np.asarray(x, np.float64) for x in (normals, target))
    angle = np.full(target.shape[:-1], np.nan)
    for place in np.ndindex(angle.shape):
        lengths = np.linalg.norm(normals[place]) * np.linalg.norm(target[place])
        if lengths:
            angle[place] = np.degrees(np.arccos(normals[place] @ target[place] / lengths))
    return angle


def test_confusion_counts_pixels_by_true_and_predicted_class(rng):
    predicted, log_p, labels = cases.segmentation_case(rng)
    found = collected(SEGMENTATION, log_p, jnp.int32(labels))
    for true in range(cases.CLASSES):
        for guess in range(cases.CLASSES):
            assert found[true, guess] == np.sum((labels == true) & (predicted == guess))
    assert found.sum() == np.sum(labels >= 0)
    unknown = jnp.where(jnp.arange(cases.SHAPE[0])[:, None, None, None] == 0, jnp.nan, log_p)
    assert collected(SEGMENTATION, unknown, jnp.int32(labels)).sum() == 0


def test_iou_and_recall_of_a_confusion_by_hand():
    confusion = np.array([[6, 2, 0], [1, 3, 0], [0, 0, 0]])
    iou = charts.class_iou(confusion)
    np.testing.assert_allclose(iou, [6 / 9, 3 / 6, np.nan])
    np.testing.assert_allclose(
        charts.recall(confusion), [[0.75, 0.25, 0], [0.25, 0.75, 0], [np.nan] * 3]
    )


def test_depth_errors_are_summed_up_over_the_distance(rng):
    depth, target = cases.depth_case(rng)
    target = target.at[0, 0, :2].set(jnp.array([250.0, 1e6]))
    pixels, absolute, relative = collected(DEPTH, depth, target)
    d, t = (np.asarray(x, np.float64) for x in (depth, target))
    starts = [*np.arange(0, 5, 0.5), *range(5, 10), *range(10, 90, 10)]
    assert DEPTH.charts[0].starts == tuple(starts)
    edges = np.append(starts, np.inf)
    for index, (low, high) in enumerate(zip(edges[:-1], edges[1:], strict=True)):
        chosen = (t > 0) & (t >= low) & (t < high)
        error = np.abs(d - t)[chosen]
        assert pixels[index] == chosen.sum()
        assert absolute[index] == pytest.approx(error.sum(), rel=1e-5)
        assert relative[index] == pytest.approx((error / t[chosen]).sum(), rel=1e-5)
    assert pixels.sum() == np.sum(t > 0)
    assert pixels[-1] == 2


def test_angles_have_a_histogram(rng):
    normals, target = cases.normals_case(rng)
    found = collected(NORMALS, normals, target)
    expected, _ = np.histogram(naive_angles(normals, target), np.arange(0, 180.1, 0.25))
    assert found.sum() == expected.sum() == np.sum(np.any(np.asarray(target) != 0, axis=-1))
    # An angle at the end of a bin may fall into the next one.
    assert np.abs(np.cumsum(found) - np.cumsum(expected)).max() <= 1
    broken = normals.at[0, 0, 0].set(jnp.nan)
    assert collected(NORMALS, broken, target.at[0, 0, 0].set(1.0)).sum() == 0


def test_errors_of_each_pixel_agree_with_numpy(rng):
    predicted, log_p, labels = cases.segmentation_case(rng)
    found = SEGMENTATION.errors.of(SEGMENTATION.sample(log_p), jnp.int32(labels))
    np.testing.assert_array_equal(found, np.where(labels < 0, np.nan, predicted != labels))
    depth, target = (np.asarray(x, np.float64) for x in cases.depth_case(rng))
    expected = np.where(target > 0, np.abs(depth - target), np.nan)
    found = DEPTH.errors.of(jnp.float32(depth), jnp.float32(target))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)
    normals, target = cases.normals_case(rng)
    found = NORMALS.errors.of(normals, target)
    np.testing.assert_allclose(found, naive_angles(normals, target), rtol=1e-4, atol=1e-3)


def test_bins_are_merged_and_added_up():
    array = np.arange(10).reshape(2, 5)
    np.testing.assert_array_equal(charts.merge_bins(array, 2), [[1, 5, 4], [11, 15, 9]])
    np.testing.assert_array_equal(charts.merge_bins(array, 1), array)
    np.testing.assert_allclose(charts.cumulative(np.array([1, 0, 3])), [0.25, 0.25, 1.0])
    assert np.isnan(charts.cumulative(np.zeros(3))).all()


@pytest.mark.parametrize("name", TASKS)
def test_an_array_of_another_form_does_not_fit(name):
    odd = (np.zeros(0), np.full((3, 3, 3), 1), -np.ones((4, 4)), np.full((3, 3), np.nan))
    texts = np.full((3, 3), "x")
    for chart in TASKS[name].charts:
        assert not any(chart.fits(array) for array in (*odd, texts))
