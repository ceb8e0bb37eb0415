"""What the metrics of all tasks share, and Delta-m against published numbers."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtl_jax.tasks import depth as depths
from mtl_jax.tasks import metrics, segmentation, select
from mtl_jax.tasks import normals as directions
from tests.fakes import TASKS
from tests.tasks import cases

tally_segmentation = jax.jit(segmentation.tally)
tally_depth = jax.jit(depths.tally)
tally_normals = jax.jit(directions.tally)


@pytest.fixture
def rng():
    return np.random.default_rng(1)


def total(tally, *arrays):
    return metrics.add([tally(*arrays)])


def test_middle_bins_hold_the_lower_and_upper_median():
    assert metrics.middle_bins(np.array([0, 2, 0, 1])).tolist() == [1, 1]
    assert metrics.middle_bins(np.array([0, 2, 0, 2])).tolist() == [1, 3]
    assert metrics.middle_bins(np.array([0, 0])).tolist() == [0, 0]


def test_nothing_labelled_gives_nan_and_no_warning():
    summaries = [
        segmentation.summarize(
            total(tally_segmentation, jnp.zeros((*cases.SHAPE, 3)), jnp.full(cases.SHAPE, -1))
        ),
        depths.summarize(total(tally_depth, jnp.ones(cases.SHAPE), jnp.zeros(cases.SHAPE))),
        directions.summarize(
            total(tally_normals, jnp.ones((*cases.SHAPE, 3)), jnp.zeros((*cases.SHAPE, 3)))
        ),
    ]
    for summary in summaries:
        assert all(np.isnan(value) for value in summary.values()), summary


@pytest.mark.parametrize("sizes", [(1, 5), (2, 2, 2)])
def test_tallies_of_any_split_into_batches_add_up_to_the_same(rng, sizes):
    _, log_p, labels = cases.segmentation_case(rng)
    tallies = [
        (tally_segmentation, (log_p, jnp.int32(labels))),
        (tally_depth, cases.depth_case(rng)),
        (tally_normals, cases.normals_case(rng)),
    ]
    cuts = np.cumsum(sizes)[:-1]
    for tally, arrays in tallies:
        parts = zip(*(np.split(x, cuts) for x in arrays), strict=True)
        added = metrics.add([tally(*part) for part in parts])
        for name, value in tally(*arrays).items():
            rtol = 0 if np.issubdtype(value.dtype, np.integer) else 1e-6
            np.testing.assert_allclose(added[name], value, rtol=rtol)


def test_add_does_not_overflow_32_bits():
    batch = {"count": np.array(2**31 - 1, np.int32), "sum": np.array(1.0, np.float32)}
    added = metrics.add([batch] * 4)
    assert added["count"] == 4 * (2**31 - 1)
    assert added["sum"].dtype == np.float64


# NYU-Depth V2, 288x384, 13 classes, SegNet-MTAN, as published with Nash-MTL (Navon et al., 2022):
# mIoU, pixel accuracy, absolute and relative error, mean, median, within 11.25, 22.5, 30, and the
# Delta-m printed next to them.
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


# Cityscapes, 128x256, 7 classes, SegNet-MTAN: the baseline of CAGrad (Liu et al., 2021), and rows
# as published with FAMO (Liu et al., 2023). The last digit of an absolute error is worth 0.1.
CITYSCAPES = {
    "LS": ((75.18, 93.49, 0.0155, 46.77), 22.60),
    "UW": ((72.02, 92.85, 0.0140, 30.13), 5.89),
    "CAGrad": ((75.16, 93.48, 0.0141, 37.60), 11.64),
    "FAMO": ((74.54, 93.29, 0.0145, 32.59), 8.13),
}


@pytest.mark.parametrize("method", CITYSCAPES)
def test_delta_m_agrees_with_published_tables_of_cityscapes(method):
    chosen = select(["segmentation", "inverse_depth"])
    standard = [metric for task in chosen for metric in task.metrics if metric.standard]
    assert [metric.label for metric in standard] == [
        "mIoU", "PixAcc", "AbsErr (inverse depth)", "RelErr (inverse depth)"
    ]  # fmt: skip
    higher = {metric.name: metric.higher_is_better for metric in standard}
    row, expected = CITYSCAPES[method]
    results, single = (
        dict(zip(higher, values, strict=True)) for values in (row, (74.01, 93.16, 0.0125, 27.77))
    )
    assert metrics.delta_m(results, single, higher) == pytest.approx(expected, abs=0.1)


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


def test_predictions_that_are_not_numbers_have_no_metrics():
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
    assert all(math.isnan(x) for x in directions.summarize(sums).values())

    metres = jnp.full((1, 2, 2), 3.0)
    sums = jax.device_get(depths.tally(metres.at[0, 0, 0].set(jnp.nan), metres))
    assert all(math.isnan(x) for x in depths.summarize(sums).values())
    sums = jax.device_get(depths.tally(metres.at[0, 0, 0].set(jnp.nan), metres.at[0, 0, 0].set(0)))
    assert depths.summarize(sums)["depth/delta1"] == 1
