"""Segmentation: loss and metrics against naive NumPy over all pixels, and PyTorch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtl_jax.tasks import metrics, segmentation
from tests.tasks import cases

tally = jax.jit(segmentation.tally)


@pytest.fixture
def rng():
    return np.random.default_rng(1)


def total(tally, *arrays):
    return metrics.add([tally(*arrays)])


def log_probabilities(rng):
    logits = rng.normal(size=(*cases.SHAPE, cases.CLASSES))
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


def test_cross_entropy_sums_the_true_class_and_ignores_void(rng):
    log_p = log_probabilities(rng)
    labels = rng.integers(-1, cases.CLASSES, cases.SHAPE)
    expected = -sum(
        log_p[place][labels[place]] for place in np.ndindex(cases.SHAPE) if labels[place] >= 0
    )
    total, count = segmentation.cross_entropy(jnp.float32(log_p), jnp.int32(labels))
    np.testing.assert_allclose(total, expected, rtol=1e-6)
    assert 0 < float(count) == np.sum(labels != -1) < labels.size


def test_cross_entropy_agrees_with_pytorch(rng):
    torch = pytest.importorskip("torch")
    log_p = log_probabilities(rng).astype(np.float32)
    labels = rng.integers(-1, cases.CLASSES, cases.SHAPE)
    expected = torch.nn.functional.nll_loss(
        torch.from_numpy(log_p).permute(0, 3, 1, 2), torch.from_numpy(labels), ignore_index=-1
    )
    total, count = segmentation.cross_entropy(jnp.array(log_p), jnp.int32(labels))
    np.testing.assert_allclose(total / count, expected.numpy(), rtol=1e-6)


def test_confusion_counts_pairs_and_leaves_void_out(rng):
    predicted, log_p, labels = cases.segmentation_case(rng)
    expected = np.zeros((cases.CLASSES, cases.CLASSES), int)
    for place in np.ndindex(cases.SHAPE):
        if labels[place] >= 0:
            expected[labels[place], predicted[place]] += 1
    confusion = tally(log_p, jnp.int32(labels))["confusion"]
    np.testing.assert_array_equal(confusion, expected)


def test_miou_is_the_mean_over_classes_that_occur(rng):
    predicted, log_p, labels = cases.segmentation_case(rng)
    pixels = list(np.ndindex(cases.SHAPE))
    ious = []
    for c in range(cases.CLASSES):
        true = {p for p in pixels if labels[p] == c}
        found = {p for p in pixels if predicted[p] == c and labels[p] >= 0}
        ious.append(len(true & found) / len(true | found))
    assert ious[3] == ious[4] == 0.0  # one never predicted, one never true: both count
    results = segmentation.summarize(total(tally, log_p, jnp.int32(labels)))
    assert results["segmentation/miou"] == pytest.approx(np.mean(ious), abs=1e-12)
    assert results["segmentation/pixel_accuracy"] == pytest.approx(
        np.mean((predicted == labels)[labels >= 0]), abs=1e-12
    )


def test_classes_that_never_occur_count_nowhere():
    confusion = np.array([[3, 1, 0], [2, 4, 0], [0, 0, 0]])
    np.testing.assert_allclose(segmentation.class_iou(confusion), [3 / 6, 4 / 7, np.nan])
    results = segmentation.summarize({"confusion": confusion})
    assert results["segmentation/miou"] == pytest.approx((3 / 6 + 4 / 7) / 2)
