"""The network, losses, gradients and steps agree with PyTorch's at the same weights."""

import functools

import jax
import numpy as np
import pytest

from mtl_jax import data, models, parallel, passes
from mtl_jax.tasks import select
from tests import fakes

torch = pytest.importorskip("torch")

from mtl_jax.torch_twin import convert, training  # noqa: E402
from mtl_jax.torch_twin.network import Twin  # noqa: E402

SIZE = (50, 70)
TASKS = select(["segmentation", "depth", "normals"])
CHANNELS = {"segmentation": len(fakes.CLASSES), "depth": 1, "normals": 3}


@functools.cache
def batch():
    examples = [fakes.example(i, height=SIZE[0], width=SIZE[1]) for i in range(3)]
    return data.batch_of(examples, data.training_entries(TASKS))


@functools.cache
def ours(backbone, dtype=np.float32):
    """Variables, predictions, losses and per-task gradients of trunk and heads, in Flax."""
    network = models.build(
        TASKS, num_classes=len(fakes.CLASSES), backbone=backbone, dtype=dtype,
        axis_name=parallel.AXIS,
    )  # fmt: skip
    with jax.numpy_dtype_promotion("standard"):
        variables = models.init(network, jax.random.key(1), SIZE)

    def pass_through(variables, stored):
        decoded = jax.tree.map(
            lambda x: x.astype(dtype) if x.dtype == np.float32 else x, data.decode(stored)
        )
        variables = jax.tree.map(lambda x: x.astype(dtype), variables)
        pullback, backward = passes.differentiate(network, TASKS, variables, decoded)
        each = passes.trunk_gradients(pullback, backward)
        predicted = models.predict(network, TASKS, variables, decoded)
        return predicted, backward.losses, each, backward.gradients

    devices = jax.local_devices()[:1]
    mapped = parallel.data_parallel(pass_through, devices)
    with jax.numpy_dtype_promotion("standard"):
        return variables, jax.device_get(mapped(variables, parallel.shard(batch(), devices)))


@pytest.fixture
def float64():
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", False)


def twin(backbone):
    module = Twin(backbone, CHANNELS, SIZE)
    convert.load(module, ours(backbone)[0])
    return module


def torch_batch():
    return training.to_torch(jax.device_get(data.decode(batch())))


def close(got, expected, tolerance=1e-4):
    got, expected = np.asarray(got, np.float64), np.asarray(expected, np.float64)
    assert np.abs(got - expected).max() <= tolerance * np.abs(expected).max()


@pytest.mark.parametrize("backbone", ["resnet18", "resnet50"])
def test_outputs_agree(backbone):
    _, (predicted, *_) = ours(backbone)
    with torch.no_grad():
        raw = twin(backbone).eval()(torch_batch()["image"])
    close(raw["segmentation"].log_softmax(1).permute(0, 2, 3, 1), predicted["segmentation"])
    close(torch.nn.functional.softplus(raw["depth"][:, 0] + 2.5), predicted["depth"])
    unit = torch.nn.functional.normalize(raw["normals"], dim=1).permute(0, 2, 3, 1)
    close(unit, predicted["normals"])


def test_losses_agree():
    _, (_, losses, *_) = ours("resnet18")
    run = training.Training(twin("resnet18"), CHANNELS, learning_rate=1e-4, method="equal")
    close(run.losses(torch_batch()).detach(), losses)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("backbone", ["resnet18"])
def test_gradients_agree_in_float64(backbone):
    """In float32 both are as far from this as from each other: few-pixel statistics amplify."""
    variables, (_, losses, each, heads) = ours(backbone, np.float64)
    module = Twin(backbone, CHANNELS, SIZE)
    convert.load(module, variables)
    run = training.Training(module.double(), CHANNELS, learning_rate=1e-4, method="equal")
    batch64 = {k: x.double() if x.is_floating_point() else x for k, x in torch_batch().items()}
    found, per_task, head_gradients = run.task_gradients(batch64)
    close(found.detach(), losses, 1e-6)
    names = [name for name, _ in run.twin.trunk.named_parameters()]
    for index, gradient in enumerate(per_task):
        mine = jax.tree.map(lambda x, index=index: x[index], each)
        named = zip(names, gradient, strict=True)
        assert_near(convert.flat_like_flax(variables.params["trunk"], named), mine)
    for task in CHANNELS:
        names = [name for name, _ in run.twin.heads[task].named_parameters()]
        named = zip(names, head_gradients[task], strict=True)
        flat = convert.flat_like_flax(variables.params["heads"][task], named)
        assert_near(flat, heads[task])


def assert_near(flat, tree):
    # Heads give their outputs in float32 whatever they compute in.
    expected = np.concatenate([np.ravel(x).astype(np.float64) for x in jax.tree.leaves(tree)])
    assert np.linalg.norm(flat - expected) <= 5e-5 * np.linalg.norm(expected)


def test_published_and_tuned_steps_agree():
    pytest.importorskip("cvxpy")
    states = []
    for method in ("nash", "tuned nash"):
        run = training.Training(twin("resnet18"), CHANNELS, learning_rate=1e-4, method=method)
        run.optimizer = torch.optim.SGD(run.twin.parameters(), lr=0.1)
        run(torch_batch())
        states.append(torch.cat([p.detach().flatten() for p in run.twin.parameters()]))
    moved = states[1] - torch.cat([p.detach().flatten() for p in twin("resnet18").parameters()])
    assert torch.linalg.norm(states[0] - states[1]) < 2e-2 * torch.linalg.norm(moved)


@pytest.mark.parametrize(
    ("gram", "weights"),
    [
        ([[18, -22], [-22, 38]], [0.591461, 0.407071]),
        ([[4, 1, -0.5], [1, 2, 0.3], [-0.5, 0.3, 0.1]], [0.865179, 0.323663, 5.257096]),
    ],
)
def test_golden_bargains(gram, weights):
    pytest.importorskip("cvxpy")
    from mtl_jax.torch_twin import bargain

    np.testing.assert_allclose(bargain.exact(np.float64(gram)), weights, rtol=1e-5)
    found = bargain.Published(len(weights)).solve(np.float64(gram))
    np.testing.assert_allclose(found, weights, rtol=2e-3)


@pytest.mark.parametrize("method", ["equal", "uw", "nash"])
def test_training_lowers_the_losses(method):
    if method == "nash":
        pytest.importorskip("cvxpy")
    run = training.Training(twin("resnet18"), CHANNELS, learning_rate=1e-3, method=method)
    first = run(torch_batch())
    for _ in range(4):
        last = run(torch_batch())
    assert last.sum() < first.sum()


def test_a_missing_label_counts_nowhere():
    raw = torch.randn(1, 3, 4, 4)
    empty = {"depth": torch.zeros(1, 4, 4), "normals": torch.zeros(1, 3, 4, 4)}
    assert training.depth_loss(raw, empty) == 0
    assert training.normals_loss(raw, empty) == 0
