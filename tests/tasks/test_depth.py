"""Depth: loss and metrics against naive NumPy over all pixels."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtl_jax.tasks import depth as task
from mtl_jax.tasks import metrics, select
from tests.tasks import cases

tally = jax.jit(task.tally)


@pytest.fixture
def rng():
    return np.random.default_rng(1)


def total(tally, *arrays):
    return metrics.add([tally(*arrays)])


def test_absolute_ignores_missing_depth(rng):
    depth, target = rng.uniform(0.5, 9.0, (2, *cases.SHAPE))
    target[rng.random(cases.SHAPE) < 0.3] = 0.0
    known = target != 0
    total, count = task.absolute(jnp.float32(depth), jnp.float32(target))
    np.testing.assert_allclose(total, np.abs(depth - target)[known].sum(), rtol=1e-6)
    assert 0 < float(count) == known.sum() < known.size


def loss_of(text, depth, target):
    """Sum and count of a loss given as text, and the gradient of the sum."""
    (chosen,) = select(["depth"], depth_loss=text)

    def loss(depth):
        return chosen.loss(depth, {"depth": jnp.float32(target)})

    (total, count), gradient = jax.value_and_grad(loss, has_aux=True)(jnp.float32(depth))
    return float(total), float(count), gradient


def incomplete_case(rng):
    """Depths f64 with missing pixels, and an image that has none at all."""
    depth, target = rng.uniform(0.5, 9.0, (2, *cases.SHAPE))
    target[rng.random(cases.SHAPE) < 0.3] = 0.0
    target[2] = 0.0
    return depth, target


@pytest.mark.parametrize("invariance", [0.0, 0.5, 1.0])
def test_scale_invariant_error_as_published(rng, invariance):
    depth, target = incomplete_case(rng)
    expected = 0.0
    for predicted, true in zip(depth, target, strict=True):
        if known := np.count_nonzero(true):
            d = np.log(predicted[true > 0]) - np.log(true[true > 0])
            expected += np.sum(d**2) / known - invariance * np.sum(d) ** 2 / known**2
    found, images, gradient = loss_of(f"scale_invariant:invariance={invariance}", depth, target)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert images == len(target) - 1
    assert not np.any(gradient[target == 0])


def test_a_wrong_scale_costs_nothing_with_full_invariance(rng):
    _, target = incomplete_case(rng)
    found, _, gradient = loss_of("scale_invariant:invariance=1", 3.0 * target, target)
    assert abs(found) < 1e-10
    np.testing.assert_allclose(gradient, 0.0, atol=1e-6)
    found, images, _ = loss_of("scale_invariant", 3.0 * target, target)
    np.testing.assert_allclose(found / images, 0.5 * np.log(3.0) ** 2, rtol=1e-5)


@pytest.mark.parametrize("threshold", [0.2, 1.0])
def test_berhu_as_published_with_the_threshold_of_each_image(rng, threshold):
    depth, target = incomplete_case(rng)
    expected = 0.0
    for predicted, true in zip(depth, target, strict=True):
        x = np.abs(predicted - true)[true > 0]
        c = threshold * np.max(x, initial=0.0)
        expected += sum(e if e <= c else (e**2 + c**2) / (2 * c) for e in x)
    found, pixels, gradient = loss_of(f"berhu:threshold={threshold}", depth, target)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert pixels == np.count_nonzero(target)
    assert not np.any(gradient[target == 0])


@pytest.mark.parametrize("text", ["scale_invariant", "berhu"])
def test_gradients_agree_with_pytorch(rng, text):
    torch = pytest.importorskip("torch")
    depth, target = incomplete_case(rng)
    predicted, true = torch.from_numpy(depth).requires_grad_(), torch.from_numpy(target)
    for image, label in zip(predicted, true, strict=True):
        if not torch.any(label > 0):
            continue
        y, t = image[label > 0], label[label > 0]
        if text == "berhu":
            x = (y - t).abs()
            c = 0.2 * x.max().item()
            torch.where(x <= c, x, (x**2 + c**2) / (2 * c)).sum().backward(retain_graph=True)
        else:
            d = y.log() - t.log()
            ((d**2).mean() - 0.5 * d.mean() ** 2).backward(retain_graph=True)
    _, _, gradient = loss_of(text, depth, target)
    np.testing.assert_allclose(gradient, predicted.grad.numpy(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("text", ["scale_invariant", "berhu"])
def test_losses_are_finite_at_the_ends(rng, text):
    _, target = incomplete_case(rng)
    for depth in (target, np.zeros_like(target), np.full_like(target, 1e6)):
        found, _, gradient = loss_of(text, depth, target)
        assert np.isfinite(found)
        assert np.all(np.isfinite(gradient))
    assert loss_of(text, target, target)[0] == 0


def test_depth_metrics_agree_with_numpy(rng):
    depth, target = cases.depth_case(rng)
    results = task.summarize(total(tally, depth, target))
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


def test_sums_of_a_large_batch_are_as_exact_as_those_of_small_ones():
    # A float32 sum that runs through a million pixels one by one loses three digits.
    rng = np.random.default_rng(2)
    target = jnp.float32(rng.uniform(0.5, 9.0, (8, 288, 384)))
    depth = jnp.float32(rng.uniform(0.5, 9.0, target.shape))
    error = np.abs(np.asarray(depth, np.float64) - np.asarray(target, np.float64))
    sums = tally(depth, target)
    assert float(sums["absolute"]) == pytest.approx(error.sum(), rel=2e-6)
    assert float(sums["squared"]) == pytest.approx((error**2).sum(), rel=2e-6)
