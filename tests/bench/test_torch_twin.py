"""The network, losses, gradients and steps agree with PyTorch's at the same weights."""

import functools
import json

import jax
import numpy as np
import pytest

from mtl_jax import data, models, parallel
from mtl_jax.tasks import select
from mtl_jax.training import passes
from tests import fakes

torch = pytest.importorskip("torch")

from mtl_jax.bench import compare  # noqa: E402
from mtl_jax.bench.torch_twin import convert, inference, training  # noqa: E402
from mtl_jax.weighting import METHODS  # noqa: E402

TASKS = select(["segmentation", "depth", "normals"])
CHANNELS = {"segmentation": len(fakes.CLASSES), "depth": 1, "normals": 3}


def size_of(name):
    return (64, 64) if name == "segnet" else (36, 44)


@functools.cache
def batch(name, first=0, size=None):
    height, width = size or size_of(name)
    examples = [fakes.example(first + i, height=height, width=width) for i in range(3)]
    return data.batch_of(examples, data.training_entries(TASKS))


def flax_network(name, dtype=np.float32):
    model = name if name == "segnet" else f"resnet_unet:backbone={name}"
    return models.build(
        TASKS, num_classes=len(fakes.CLASSES), model=model, dtype=dtype, axis_name=parallel.AXIS
    )


@functools.cache
def variables_of(name, dtype=np.float32):
    with jax.numpy_dtype_promotion("standard"):
        return models.init(flax_network(name, dtype), jax.random.key(1), size_of(name))


def in_flax(function, name, dtype):
    """function(network, variables, decoded batch), compiled for one device, all in a precision."""
    network = flax_network(name, dtype)

    def run(variables, stored):
        decoded = jax.tree.map(
            lambda x: x.astype(dtype) if x.dtype == np.float32 else x, data.decode(stored, TASKS)
        )
        return function(network, jax.tree.map(lambda x: x.astype(dtype), variables), decoded)

    devices = jax.local_devices()[:1]
    with jax.numpy_dtype_promotion("standard"):
        shards = parallel.shard(batch(name), devices)
        return jax.device_get(
            parallel.data_parallel(run, devices)(variables_of(name, dtype), shards)
        )


def predictions(network, variables, decoded):
    return models.predict(network, variables, decoded)


def losses_and_gradients(network, variables, decoded):
    """Losses and per-task gradients of trunk and heads."""
    pullback, backward = passes.differentiate(network, variables, decoded)
    return backward.losses, passes.trunk_gradients(pullback, backward), backward.gradients


@pytest.fixture
def float64():
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", False)


def twin(name, dtype=np.float32):
    model = name if name == "segnet" else "resnet_unet"
    module = training.build(model, name, CHANNELS, size_of(name))
    convert.load(module, variables_of(name, dtype))
    return module


def torch_batch(name="resnet18"):
    return training.to_torch(jax.device_get(data.decode(batch(name), TASKS)))


def close(got, expected, tolerance=1e-4):
    got, expected = np.asarray(got, np.float64), np.asarray(expected, np.float64)
    assert np.abs(got - expected).max() <= tolerance * np.abs(expected).max()


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(
    "name",
    ["resnet18", *(pytest.param(name, marks=pytest.mark.slow) for name in ("resnet50", "segnet"))],
)
def test_outputs_agree_in_float64(name):
    """In float32 the direction of normals that are almost of length zero is rounding alone."""
    predicted = in_flax(predictions, name, np.float64)
    module = twin(name, np.float64).double()
    with torch.no_grad():
        raw = module.eval()(torch_batch(name)["image"].double())
    close(raw["segmentation"].log_softmax(1).permute(0, 2, 3, 1), predicted["segmentation"], 1e-5)
    close(torch.nn.functional.softplus(raw["depth"][:, 0] + 2.5), predicted["depth"], 1e-5)
    unit = torch.nn.functional.normalize(raw["normals"], dim=1).permute(0, 2, 3, 1)
    close(unit, predicted["normals"], 1e-5)
    for run in inference.rivals(module, TASKS).values():
        found = run(batch(name)["image"])
        assert (
            np.mean(found["segmentation"].numpy() == predicted["segmentation"].argmax(-1)) > 0.999
        )
        close(found["depth"], predicted["depth"], 1e-5)
        close(found["normals"], predicted["normals"], 1e-5)


@pytest.mark.slow
def test_losses_agree():
    losses = in_flax(lambda *args: losses_and_gradients(*args)[0], "resnet18", np.float32)
    run = training.Training(twin("resnet18"), TASKS, learning_rate=1e-4, method="equal")
    close(run.losses(torch_batch()).detach(), losses)


@pytest.mark.slow
@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", ["resnet18", "segnet"])
def test_gradients_agree_in_float64(name):
    """In float32 both are as far from this as from each other: few-pixel statistics amplify.

    Heads return float32 outputs for any dtype of the computation, which SegNet, without shortcuts,
    amplifies most.
    """
    tolerance = {"resnet18": 5e-5, "segnet": 5e-3}[name]
    variables = variables_of(name, np.float64)
    losses, each, heads = in_flax(losses_and_gradients, name, np.float64)
    module = twin(name, np.float64).double()
    run = training.Training(module, TASKS, learning_rate=1e-4, method="equal")
    batch64 = {k: x.double() if x.is_floating_point() else x for k, x in torch_batch(name).items()}
    found, per_task, head_gradients = run.task_gradients(batch64)
    close(found.detach(), losses, 1e-6)
    names = [name for name, _ in run.twin.trunk.named_parameters()]
    for index, gradient in enumerate(per_task):
        mine = jax.tree.map(lambda x, index=index: x[index], each)
        named = zip(names, gradient, strict=True)
        flat = convert.flat_like_flax(variables.params["trunk"], named)
        assert_near(flat, mine, tolerance)
    for task in CHANNELS:
        names = [name for name, _ in run.twin.heads[task].named_parameters()]
        named = zip(names, head_gradients[task], strict=True)
        flat = convert.flat_like_flax(variables.params["heads"][task], named)
        assert_near(flat, heads[task], 5e-5)


def assert_near(flat, tree, tolerance):
    expected = np.concatenate([np.ravel(x).astype(np.float64) for x in jax.tree.leaves(tree)])
    assert np.linalg.norm(flat - expected) <= tolerance * np.linalg.norm(expected)


def test_published_and_tuned_steps_agree():
    pytest.importorskip("cvxpy")
    states = []
    for method in ("nash", "tuned nash"):
        run = training.Training(twin("resnet18"), TASKS, learning_rate=1e-4, method=method)
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
    from mtl_jax.bench.torch_twin import bargain

    np.testing.assert_allclose(bargain.exact(np.float64(gram)), weights, rtol=1e-5)
    found = bargain.Published(len(weights)).solve(np.float64(gram))
    np.testing.assert_allclose(found, weights, rtol=2e-3)


@pytest.mark.parametrize(
    "method", ["equal", *(pytest.param(name, marks=pytest.mark.slow) for name in ("uw", "nash"))]
)
def test_training_lowers_the_losses(method):
    if method == "nash":
        pytest.importorskip("cvxpy")
    run = training.Training(twin("resnet18"), TASKS, learning_rate=1e-3, method=method)
    first = run(torch_batch())
    for _ in range(4):
        last = run(torch_batch())
    assert last.sum() < first.sum()


def test_a_missing_label_counts_nowhere():
    raw = torch.randn(1, 3, 4, 4)
    empty = {"depth": torch.zeros(1, 4, 4), "normals": torch.zeros(1, 3, 4, 4)}
    for name in ("depth", "normals"):
        (task,) = select([name])
        assert training.loss_of(task)(raw, empty) == 0


@pytest.mark.parametrize(
    "task",
    [
        *select(["depth"], depth_loss="stereo"),
        *select(["normals"], normals_loss="codebook"),
        *select(["normals"], normals_source="depth"),
    ],
)
def test_a_loss_that_pytorch_does_not_have_is_refused(task):
    with pytest.raises(ValueError, match=f"the PyTorch twin can't learn {task.name}"):
        training.loss_of(task)


@pytest.mark.slow
def test_both_start_alike_and_go_on_alike(tmp_path):
    # Statistics over fewer pixels amplify what float32 rounds.
    result = compare.compare(
        [batch("resnet18", first, (50, 70)) for first in (0, 3)],
        flax_network("resnet18"),
        METHODS["equal"](),
        method="equal",
        learning_rate=1e-4,
        seed=0,
    )
    start = {row.what: row for row in result.start}
    for what in (*(f"prediction of {task}" for task in CHANNELS), "losses"):
        assert start[what].between <= 1e-4
    for task in CHANNELS:
        row = start[f"gradient of {task}"]
        assert row.between <= 2 * (row.ours + row.theirs) <= 0.05
    np.testing.assert_allclose(result.ours, result.theirs, rtol=1e-2)
    assert result.ours[1] != result.ours[0]
    text = compare.write(result, tmp_path, what="tiny")
    assert (tmp_path / "compare.md").read_text() == text
    assert "| losses |" in text
    assert json.loads((tmp_path / "compare.json").read_text())["ours"] == result.ours
    assert (tmp_path / "compare.png").stat().st_size > 0


def test_the_number_of_timed_steps_is_written():
    """The first two compile and are in no median."""
    for steps, timed in ((1, 1), (2, 2), (12, 10)):
        losses = [[1.0]] * steps
        text = compare.to_markdown(
            compare.Comparison(["depth"], [], losses, losses, {"ours": 1.0, "theirs": 2.0}),
            what="tiny",
        )
        assert f"(medians of {timed} steps, taken in turn)" in text


def test_attention_branches_have_no_twin():
    network = models.build(TASKS, num_classes=len(fakes.CLASSES), model="mtan")
    with pytest.raises(ValueError, match="`model`: only resnet_unet and segnet"):
        compare.twin_of(network, (64, 96))
