"""Segmentation: loss and metrics against naive NumPy over all pixels, and PyTorch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtl_jax import models
from mtl_jax.tasks import metrics, segmentation, select
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


def loss_of(text, log_p, labels, counts=None):
    """Sum and count of a loss given as text, and the gradient of the sum."""
    (task,) = select(["segmentation"], segmentation_loss=text)
    if counts is not None:
        task, _ = task.fit(counts, [f"class {i}" for i in range(len(counts))])

    def loss(log_p):
        return task.loss(log_p, {"segmentation": jnp.int32(labels)})

    (total, count), gradient = jax.value_and_grad(loss, has_aux=True)(jnp.float32(log_p))
    return float(total), float(count), gradient


def labelled_pixels(labels):
    return [(place, labels[place]) for place in np.ndindex(labels.shape) if labels[place] >= 0]


def test_label_smoothing_spreads_a_part_of_the_true_class(rng):
    log_p, labels = log_probabilities(rng), rng.integers(-1, cases.CLASSES, cases.SHAPE)
    expected = 0.0
    for place, label in labelled_pixels(labels):
        target = np.full(cases.CLASSES, 0.2 / cases.CLASSES)
        target[label] += 0.8
        expected -= target @ log_p[place]
    total, count, _ = loss_of("ce:label_smoothing=0.2", log_p, labels)
    np.testing.assert_allclose(total, expected, rtol=1e-6)
    assert count == np.sum(labels >= 0)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0, 5.0])
def test_focal_loss_makes_little_of_easy_pixels(rng, gamma):
    log_p, labels = log_probabilities(rng), rng.integers(-1, cases.CLASSES, cases.SHAPE)
    expected = 0.0
    for place, label in labelled_pixels(labels):
        p = np.exp(log_p[place][label])
        expected -= (1 - p) ** gamma * np.log(p)
    total, count, _ = loss_of(f"focal:gamma={gamma}", log_p, labels)
    np.testing.assert_allclose(total, expected, rtol=1e-5)
    assert count == np.sum(labels >= 0)


@pytest.mark.parametrize("text", ["focal:gamma=0", "focal:gamma=0.5", "focal", "dice"])
def test_losses_and_gradients_are_finite_for_certain_pixels(text):
    log_p = np.zeros((1, 2, 2, 3)) + [0.0, -200.0, -200.0]
    for label, certain in ((0, True), (1, False)):
        total, count, gradient = loss_of(text, log_p, np.full((1, 2, 2), label))
        assert np.isfinite(total)
        assert np.all(np.isfinite(gradient))
        assert (total < 1e-6 * count) == certain


def test_dice_loss_compares_the_classes_of_each_image(rng):
    log_p, labels = log_probabilities(rng), rng.integers(-1, 3, cases.SHAPE)
    labels[0] = -1
    labels[1][labels[1] == 2] = 0
    expected, pairs = 0.0, 0
    for image, classes in zip(np.exp(log_p), labels, strict=True):
        p, known = image[classes >= 0], classes[classes >= 0]
        for c in set(known):
            overlap = p[known == c][:, c].sum()
            expected += 1 - 2 * overlap / (p[:, c].sum() + np.sum(known == c))
            pairs += 1
    total, count, gradient = loss_of("dice", log_p, labels)
    np.testing.assert_allclose(total, expected, rtol=1e-5)
    assert count == pairs == 3 * len(labels) - 4
    assert not np.any(gradient[labels < 0])


def test_balanced_weights_are_inverse_frequencies_with_mean_one():
    counts = np.array([600, 300, 0, 100])
    weights = segmentation.balanced(counts)
    np.testing.assert_allclose(weights, [1000 / 1800, 1000 / 900, 0.0, 1000 / 300], rtol=1e-6)
    np.testing.assert_allclose(weights @ counts / counts.sum(), 1.0, rtol=1e-6)
    assert not np.any(segmentation.balanced(np.zeros(3, int)))


@pytest.mark.parametrize("text", ["ce:weights=frequency", "focal:gamma=1.5,weights=frequency"])
def test_rare_classes_weigh_more(rng, text):
    log_p, labels = log_probabilities(rng), rng.integers(-1, cases.CLASSES, cases.SHAPE)
    counts = np.array([4, 3, 2, 1, 10])
    expected = 0.0
    for place, label in labelled_pixels(labels):
        p = np.exp(log_p[place][label])
        hard = (1 - p) ** 1.5 if "focal" in text else 1.0
        expected -= 20 / (5 * counts[label]) * hard * np.log(p)
    total, count, _ = loss_of(text, log_p, labels, counts)
    np.testing.assert_allclose(total, expected, rtol=1e-5)
    assert count == np.sum(labels >= 0)


@pytest.mark.parametrize(
    "text", ["ce:label_smoothing=0.1", "ce:label_smoothing=0.1,weights=frequency"]
)
def test_smoothing_and_weights_agree_with_pytorch(rng, text):
    torch = pytest.importorskip("torch")
    log_p, labels = log_probabilities(rng), rng.integers(-1, cases.CLASSES, cases.SHAPE)
    counts = np.array([4, 3, 2, 1, 10]) if "weights" in text else None
    weights = None if counts is None else torch.from_numpy(20 / (5 * counts))
    expected = torch.nn.functional.cross_entropy(
        torch.from_numpy(log_p).permute(0, 3, 1, 2),
        torch.from_numpy(labels),
        weight=weights,
        ignore_index=-1,
        label_smoothing=0.1,
        reduction="sum",
    )
    total, _, _ = loss_of(text, log_p, labels, counts)
    np.testing.assert_allclose(total, expected.numpy(), rtol=1e-5)


@pytest.mark.parametrize(
    "text", ["ce:label_smoothing=0.1", "focal", "focal:weights=frequency", "dice"]
)
def test_images_without_labels_count_nowhere(rng, text):
    log_p, labels = log_probabilities(rng), rng.integers(-1, cases.CLASSES, cases.SHAPE)
    labels[1:3] = -1
    counts = np.arange(1, cases.CLASSES + 1) if "weights" in text else None
    total, count, gradient = loss_of(text, log_p, labels, counts)
    assert not np.any(gradient[labels < 0])
    kept = [i for i in range(len(labels)) if i not in (1, 2)]
    again, number, _ = loss_of(text, log_p[kept], labels[kept], counts)
    np.testing.assert_allclose((total, count), (again, number), rtol=1e-6)
    assert loss_of(text, log_p[1:3], labels[1:3], counts)[:2] == (0.0, 0.0)


@pytest.mark.parametrize("text", ["ce", "focal:gamma=0"])
def test_given_weights_multiply_the_loss_of_their_class(rng, text):
    log_p, labels = log_probabilities(rng), rng.integers(-1, cases.CLASSES, cases.SHAPE)
    given = rng.uniform(0, 2, cases.CLASSES).round(3)
    comma = "," if ":" in text else ":"
    weighted = f"{text}{comma}weights={'+'.join(map(str, given))}"
    total, count, _ = loss_of(weighted, log_p, labels, None)
    expected = -sum(given[label] * log_p[place][label] for place, label in labelled_pixels(labels))
    np.testing.assert_allclose(total, expected, rtol=1e-5)
    assert count == np.sum(labels >= 0)
    (task,) = select(["segmentation"], segmentation_loss=weighted)
    assert task.fit is None
    models.build([task], num_classes=cases.CLASSES)
    with pytest.raises(ValueError, match="`segmentation_loss`: it has 5 class weights, and there"):
        models.build([task], num_classes=cases.CLASSES + 1)


@pytest.mark.parametrize("weights", ["1+-1", "0+0", "inf+1", "1+nan"])
def test_weights_that_weigh_nothing_are_refused(weights):
    with pytest.raises(ValueError, match="must be finite, 0 or more, and not all 0"):
        select(["segmentation"], segmentation_loss=f"ce:weights={weights}")


def test_a_task_with_class_weights_is_fitted_before_it_learns():
    (task,) = select(["segmentation"], segmentation_loss="ce:weights=frequency")
    with pytest.raises(ValueError, match="the class weights are not known"):
        task.loss(jnp.zeros((1, 2, 2, 3)), {"segmentation": jnp.zeros((1, 2, 2), jnp.int32)})
    fitted, text = task.fit(np.array([30, 10]), ["wall", "lamp"])
    assert text == "class weights: wall 0.667, lamp 2"
    assert fitted.fit is None


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
