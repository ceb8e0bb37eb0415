"""Metrics against naive NumPy over all pixels, and against published numbers."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtl_jax.tasks import TASKS, metrics, segmentation
from mtl_jax.tasks import depth as depths
from mtl_jax.tasks import normals as directions

CLASSES = 5
SHAPE = (6, 7, 9)
tally_segmentation = jax.jit(segmentation.tally)
tally_depth = jax.jit(depths.tally)
tally_normals = jax.jit(directions.tally)


@pytest.fixture
def rng():
    return np.random.default_rng(1)


def segmentation_case(rng):
    """Classes 0-3 occur in the labels, 0-2 and 4 in the predictions."""
    labels = rng.integers(-1, 4, SHAPE)
    predicted = rng.choice([0, 1, 2, 4], SHAPE)
    # The prediction is right often enough to give every metric something to measure.
    predicted = np.where(
        (rng.random(SHAPE) < 0.5) & (labels >= 0) & (labels < 3), labels, predicted
    )
    log_p = np.log(np.where(np.arange(CLASSES) == predicted[..., None], 0.6, 0.1))
    return predicted, jnp.float32(log_p), labels


def depth_case(rng):
    target = rng.uniform(0.5, 9.0, SHAPE)
    depth = target * np.exp(0.4 * rng.normal(size=SHAPE))
    target[rng.random(SHAPE) < 0.2] = 0.0
    return jnp.float32(depth), jnp.float32(target)


def normals_case(rng):
    def unit(x):
        return x / np.linalg.norm(x, axis=-1, keepdims=True)

    target = unit(rng.normal(size=(*SHAPE, 3)))
    normals = unit(target + 0.3 * rng.normal(size=(*SHAPE, 3)))
    target[rng.random(SHAPE) < 0.2] = 0.0
    return jnp.float32(normals), jnp.float32(target)


def total(tally, *arrays):
    return metrics.add([tally(*arrays)])


def angles(normals, target):
    """Degrees in float64, of the pixels that have a normal."""
    normals, target = np.asarray(normals, np.float64), np.asarray(target, np.float64)
    normals, target = (x[np.any(target != 0, axis=-1)] for x in (normals, target))
    cosine = (normals * target).sum(-1)
    cosine /= np.linalg.norm(normals, axis=-1) * np.linalg.norm(target, axis=-1)
    return np.degrees(np.arccos(np.clip(cosine, -1.0, 1.0)))


def test_confusion_counts_pairs_and_leaves_void_out(rng):
    predicted, log_p, labels = segmentation_case(rng)
    expected = np.zeros((CLASSES, CLASSES), int)
    for place in np.ndindex(SHAPE):
        if labels[place] >= 0:
            expected[labels[place], predicted[place]] += 1
    confusion = tally_segmentation(log_p, jnp.int32(labels))["confusion"]
    np.testing.assert_array_equal(confusion, expected)


def test_miou_is_the_mean_over_classes_that_occur(rng):
    predicted, log_p, labels = segmentation_case(rng)
    pixels = list(np.ndindex(SHAPE))
    ious = []
    for c in range(CLASSES):
        true = {p for p in pixels if labels[p] == c}
        found = {p for p in pixels if predicted[p] == c and labels[p] >= 0}
        ious.append(len(true & found) / len(true | found))
    assert ious[3] == ious[4] == 0.0  # one never predicted, one never true: both count
    results = segmentation.summarize(total(tally_segmentation, log_p, jnp.int32(labels)))
    assert results["segmentation/miou"] == pytest.approx(np.mean(ious), abs=1e-12)
    assert results["segmentation/pixel_accuracy"] == pytest.approx(
        np.mean((predicted == labels)[labels >= 0]), abs=1e-12
    )


def test_classes_that_never_occur_count_nowhere():
    confusion = np.array([[3, 1, 0], [2, 4, 0], [0, 0, 0]])
    np.testing.assert_allclose(segmentation.class_iou(confusion), [3 / 6, 4 / 7, np.nan])
    results = segmentation.summarize({"confusion": confusion})
    assert results["segmentation/miou"] == pytest.approx((3 / 6 + 4 / 7) / 2)


def test_depth_metrics_agree_with_numpy(rng):
    depth, target = depth_case(rng)
    results = depths.summarize(total(tally_depth, depth, target))
    depth, target = np.asarray(depth, np.float64), np.asarray(target, np.float64)
    d, t = depth[target > 0], target[target > 0]
    ratio = np.maximum(d / t, t / d)
    expected = {
        "depth/absolute_error": np.mean(np.abs(d - t)),
        "depth/relative_error": np.mean(np.abs(d - t) / t),
        "depth/rmse": np.sqrt(np.mean((d - t) ** 2)),
        "depth/delta1": np.mean(ratio < 1.25),
        "depth/delta2": np.mean(ratio < 1.25**2),
        "depth/delta3": np.mean(ratio < 1.25**3),
    }
    assert results == pytest.approx(expected, rel=1e-6)
    assert 0 < results["depth/delta1"] < results["depth/delta2"] < results["depth/delta3"] < 1


def test_normals_metrics_agree_with_numpy(rng):
    normals, target = normals_case(rng)
    results = directions.summarize(total(tally_normals, normals, target))
    expected = angles(normals, target)
    assert results["normals/mean"] == pytest.approx(expected.mean(), rel=1e-5)
    assert results["normals/median"] == pytest.approx(np.median(expected), abs=0.01)
    for limit in (11.25, 22.5, 30):
        assert results[f"normals/within_{limit:g}"] == np.mean(expected < limit)


def test_median_lies_between_the_two_middle_pixels():
    # Four angles far apart: the median of an even number is the mean of the two in the middle.
    degrees = np.array([[[3.0, 10.0, 50.0, 170.0]]])
    radians = np.radians(degrees)
    normals = np.stack([np.sin(radians), 0 * radians, -np.cos(radians)], -1)
    target = np.broadcast_to([0.0, 0.0, -1.0], normals.shape)
    sums = total(tally_normals, jnp.float32(normals), jnp.float32(target))
    assert directions.summarize(sums)["normals/median"] == pytest.approx(30.0, abs=0.01)


def test_middle_bins_hold_the_lower_and_upper_median():
    assert metrics.middle_bins(np.array([0, 2, 0, 1])).tolist() == [1, 1]
    assert metrics.middle_bins(np.array([0, 2, 0, 2])).tolist() == [1, 3]
    assert metrics.middle_bins(np.array([0, 0])).tolist() == [0, 0]


def test_tiny_and_opposite_angles_keep_their_precision():
    tiny = np.radians(0.02)
    normals = jnp.float32([[[[np.sin(tiny), 0.0, -np.cos(tiny)], [0.0, 0.0, 1.0]]]])
    target = jnp.float32([[[[0.0, 0.0, -1.0], [0.0, 0.0, -1.0]]]])
    sums = tally_normals(normals, target)
    assert float(sums["angle"]) == pytest.approx(180.02, abs=1e-4)


def test_a_normal_that_predicts_no_direction_is_a_right_angle_off():
    sums = tally_normals(jnp.zeros((1, 1, 1, 3)), jnp.float32([[[[0.6, 0.0, -0.8]]]]))
    assert float(sums["angle"]) == pytest.approx(90.0)
    assert not np.any(sums["within"])


def test_nothing_labelled_gives_nan_and_no_warning():
    summaries = [
        segmentation.summarize(
            total(tally_segmentation, jnp.zeros((*SHAPE, 3)), jnp.full(SHAPE, -1))
        ),
        depths.summarize(total(tally_depth, jnp.ones(SHAPE), jnp.zeros(SHAPE))),
        directions.summarize(total(tally_normals, jnp.ones((*SHAPE, 3)), jnp.zeros((*SHAPE, 3)))),
    ]
    for summary in summaries:
        assert all(np.isnan(value) for value in summary.values()), summary


@pytest.mark.parametrize("sizes", [(1, 5), (2, 2, 2)])
def test_tallies_of_any_split_into_batches_add_up_to_the_same(rng, sizes):
    _, log_p, labels = segmentation_case(rng)
    cases = [
        (tally_segmentation, (log_p, jnp.int32(labels))),
        (tally_depth, depth_case(rng)),
        (tally_normals, normals_case(rng)),
    ]
    cuts = np.cumsum(sizes)[:-1]
    for tally, arrays in cases:
        parts = zip(*(np.split(x, cuts) for x in arrays), strict=True)
        added = metrics.add([tally(*part) for part in parts])
        for name, value in tally(*arrays).items():
            rtol = 0 if np.issubdtype(value.dtype, np.integer) else 1e-6
            np.testing.assert_allclose(added[name], value, rtol=rtol)


def test_sums_of_a_large_batch_are_as_exact_as_those_of_small_ones():
    # A float32 sum that runs through a million pixels one by one loses three digits.
    rng = np.random.default_rng(2)
    target = jnp.float32(rng.uniform(0.5, 9.0, (8, 288, 384)))
    depth = jnp.float32(rng.uniform(0.5, 9.0, target.shape))
    error = np.abs(np.asarray(depth, np.float64) - np.asarray(target, np.float64))
    sums = tally_depth(depth, target)
    assert float(sums["absolute"]) == pytest.approx(error.sum(), rel=2e-6)
    assert float(sums["squared"]) == pytest.approx((error**2).sum(), rel=2e-6)


def test_add_does_not_overflow_32_bits():
    batch = {"count": np.array(2**31 - 1, np.int32), "sum": np.array(1.0, np.float32)}
    added = metrics.add([batch] * 4)
    assert added["count"] == 4 * (2**31 - 1)
    assert added["sum"].dtype == np.float64


# NYU-Depth V2, 288x384, 13 classes, SegNet-MTAN, as published with Nash-MTL (Navon et al., 2022):
# mIoU, pixel accuracy, absolute and relative error, mean, median, within 11.25, 22.5, 30, and the
# Delta-m printed beside them.
SINGLE_TASK = (38.30, 63.76, 0.6754, 0.2780, 25.01, 19.21, 30.14, 57.20, 69.15)
PUBLISHED = {
    "LS": ((39.29, 65.33, 0.5493, 0.2263, 28.15, 23.96, 22.09, 47.50, 61.08), 5.59),
    "RLW": ((37.17, 63.77, 0.5759, 0.2410, 28.27, 24.18, 22.26, 47.05, 60.62), 7.78),
    "DWA": ((39.11, 65.31, 0.5510, 0.2285, 27.61, 23.18, 24.17, 50.18, 62.39), 3.57),
    "UW": ((36.87, 63.17, 0.5446, 0.2260, 27.04, 22.61, 23.54, 49.05, 63.65), 4.06),
    "MGDA": ((30.47, 59.90, 0.6070, 0.2555, 24.88, 19.45, 29.18, 56.88, 69.36), 1.38),
    "PCGrad": ((38.06, 64.64, 0.5550, 0.2325, 27.41, 22.80, 23.86, 49.83, 63.14), 3.97),
    "Nash-MTL": ((40.13, 65.93, 0.5261, 0.2171, 25.26, 20.08, 28.40, 55.47, 68.15), -4.05),
    "single task": (SINGLE_TASK, 0.0),
}  # fmt: skip
STANDARD = [metric for task in TASKS.values() for metric in task.metrics if metric.standard]
HIGHER = {metric.name: metric.higher_is_better for metric in STANDARD}


def named(row):
    return {metric.name: value for metric, value in zip(STANDARD, row, strict=True)}


@pytest.mark.parametrize("method", PUBLISHED)
def test_delta_m_agrees_with_published_tables(method):
    row, expected = PUBLISHED[method]
    delta = metrics.delta_m(named(row), named(SINGLE_TASK), HIGHER)
    assert delta == pytest.approx(expected, abs=0.0101)


def test_delta_m_by_tasks_weighs_tasks_equally():
    baseline = {"a/x": 2.0, "b/y": 4.0, "b/z": 10.0}
    results = {"a/x": 3.0, "b/y": 5.0, "b/z": 9.0}
    higher = {"a/x": False, "b/y": True, "b/z": True}
    # Drops: a/x +50 %, b/y -25 %, b/z +10 %; task b on average -7.5 %.
    assert metrics.delta_m(results, baseline, higher) == pytest.approx((50 - 25 + 10) / 3)
    by_tasks = metrics.delta_m(results, baseline, higher, by="tasks")
    assert by_tasks == pytest.approx((50 - 7.5) / 2)


@pytest.mark.parametrize(
    ("results", "baseline", "words"),
    [
        ({"a/x": 1.0}, {"a/x": 0.0}, "baseline.*a/x = 0.0"),
        ({"a/x": 1.0}, {"a/x": np.nan}, "baseline.*a/x = nan"),
        ({"a/x": 1.0}, {"a/x": np.inf}, "baseline.*a/x = inf"),
        ({"a/x": 1.0}, {}, "baseline.*has no a/x"),
        ({}, {"a/x": 1.0}, "results.*has no a/x"),
    ],
)
def test_delta_m_refuses_what_has_no_relative_drop(results, baseline, words):
    with pytest.raises(ValueError, match=words):
        metrics.delta_m(results, baseline, {"a/x": True})
    with pytest.raises(ValueError, match="higher_is_better"):
        metrics.delta_m({}, {}, {})


def test_delta_m_refuses_another_average():
    with pytest.raises(ValueError, match="metrics.*tasks.*'classes'"):
        metrics.delta_m({}, {}, {}, by="classes")


def test_predictions_that_are_no_numbers_have_no_metrics():
    labels = jnp.array([[[0, 0], [1, -1]]])
    scores = jnp.log(jnp.full((1, 2, 2, 2), 0.5)).at[0, 0, 0].set(jnp.nan)
    sums = jax.device_get(segmentation.tally(scores, labels))
    assert sums["unknown"] == 1
    assert all(math.isnan(x) for x in segmentation.summarize(sums).values())
    # What is predicted where there is no label does not matter.
    sums = segmentation.tally(scores.at[0, 0, 0].set(0.0).at[0, 1, 1].set(jnp.nan), labels)
    assert segmentation.summarize(jax.device_get(sums))["segmentation/miou"] > 0

    truth = jnp.broadcast_to(jnp.array([0.0, 0.0, -1.0]), (1, 2, 2, 3))
    sums = jax.device_get(directions.tally(truth.at[0, 0, 0].set(jnp.nan), truth))
    results = directions.summarize(sums)
    assert math.isnan(results["normals/median"]) and math.isnan(results["normals/mean"])
