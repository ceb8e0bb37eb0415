"""TorchJD agrees with us on the same gradients, and what can't be timed gets a reason."""

import functools
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtl_jax.tasks import select
from mtl_jax.weighting import METHODS, Signals

torch = pytest.importorskip("torch")

from mtl_jax.bench.torch_twin import rivals, training  # noqa: E402

TASKS = select(["segmentation", "depth", "normals"])
CHANNELS = {"segmentation": 5, "depth": 1, "normals": 3}
SIZE = (36, 44)


@functools.cache
def batch():
    rng = np.random.default_rng(0)
    return {
        "image": rng.uniform(size=(2, *SIZE, 3)).astype(np.float32),
        "segmentation": rng.integers(0, 5, (2, *SIZE)).astype(np.int32),
        "depth": rng.uniform(1, 5, (2, *SIZE)).astype(np.float32),
        "normals": rng.normal(size=(2, *SIZE, 3)).astype(np.float32),
    }


def torchjd():
    return pytest.importorskip("torchjd.aggregation", reason="torchjd is not installed")


def exact_upgrad():
    """TorchJD's UPGrad without its ridge of 1e-4 of the trace."""
    projector = pytest.importorskip("torchjd.linalg").QuadprogProjector(reg_eps=1e-9)
    return torchjd().UPGrad(projector=projector)


def our_gradient(name, gradients, **options):
    """The combined gradient of rows [K, n]."""
    weighting, count = METHODS[name](**options), len(gradients)
    signals = Signals(jnp.ones(count), gradients @ gradients.T, jnp.array(0), jax.random.key(0))
    weights, _, _ = jax.jit(weighting.update)(signals, weighting.init(count, None))
    return np.asarray(weights.shared) @ gradients


@pytest.mark.parametrize(("count", "seed"), [(2, 3), (3, 0), (4, 1)])
def test_torchjd_combines_the_same_gradients_alike(count, seed):
    theirs, rng = torchjd(), np.random.default_rng(seed)
    gradients = rng.normal(size=(count, 6)).astype(np.float32)
    gradients[0] -= 1.5 * gradients[1]
    assert (gradients @ gradients.T).min() < 0
    rows = torch.from_numpy(gradients)
    for name, aggregator, rule in (
        ("equal", theirs.Mean(), lambda g: g.mean(axis=0)),
        ("upgrad", exact_upgrad(), lambda g: our_gradient("upgrad", g) / count),
    ):
        expected = rule(gradients)
        error = np.linalg.norm(aggregator(rows).numpy() - expected)
        assert error < 1e-4 * np.linalg.norm(expected), name


@pytest.mark.slow  # It compiles a whole step.
def test_step_of_torchjd_moves_the_trunk_by_its_aggregate_and_heads_by_their_own_losses():
    aggregator = exact_upgrad()
    from mtl_jax.bench.torch_twin.descent import Descent

    tensors = training.to_torch(batch())
    torch.manual_seed(0)
    twin = training.build("resnet_unet", "resnet18", CHANNELS, SIZE)
    run = Descent(twin, TASKS, aggregator=aggregator, learning_rate=1e-3)
    run.optimizer = torch.optim.SGD(twin.parameters(), lr=0.0)
    run(tensors)
    _, per_task, heads = run.task_gradients(tensors)
    rows = np.stack([np.concatenate([x.numpy().ravel() for x in each]) for each in per_task])
    expected = our_gradient("upgrad", rows) / len(TASKS)
    found = torch.cat([p.grad.flatten() for p in twin.trunk.parameters()]).numpy()
    # PyTorch's Gram matrix of ten million numbers in float32 is off by up to 1e-4.
    assert np.linalg.norm(found - expected) < 1e-2 * np.linalg.norm(expected)
    for task in CHANNELS:
        for parameter, gradient in zip(twin.heads[task].parameters(), heads[task], strict=True):
            torch.testing.assert_close(parameter.grad, gradient, rtol=1e-3, atol=1e-5)


def test_what_is_not_installed_is_missing_with_a_reason(monkeypatch):
    def fail(function):
        def call(*arguments):
            raise RuntimeError("No C++ compiler found\nand a long explanation")

        return call

    pytest.importorskip("cvxpy")
    monkeypatch.setattr(torch, "compile", fail)
    monkeypatch.delitem(sys.modules, "mtl_jax.bench.torch_twin.descent", raising=False)
    monkeypatch.setitem(sys.modules, "torchjd.aggregation", None)
    monkeypatch.setitem(sys.modules, "torchjd", None)
    made = rivals.rivals(TASKS, "resnet_unet", "resnet18", CHANNELS, batch(), learning_rate=1e-3)
    assert list(made.steps) == [
        "PyTorch equal", "PyTorch equal, channels_last", "PyTorch nash, published",
        "PyTorch nash, tuned",
    ]  # fmt: skip
    assert made.missing[rivals.COMPILED].endswith("No C++ compiler found")
    for name in rivals.TORCHJD:
        assert "pip install" in made.missing[name] and "torchjd" in made.missing[name]
