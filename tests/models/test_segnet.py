"""SegNet and MTAN: pooling and unpooling, shapes, PyTorch's numbers, training."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtl_jax import models
from mtl_jax.models import segnet
from mtl_jax.tasks import select
from mtl_jax.training import passes

SIZE = (32, 64)
TASKS = select(["segmentation", "depth", "normals"])
CHANNELS = {"segmentation": 5, "depth": 1, "normals": 3}


def random(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def test_unpooling_puts_maxima_back_where_they_were():
    x = random(2, 4, 6, 3)
    x[0, :2, :2, 0] = 7.0  # four equal ones: the first counts
    pooled, mask = segnet.pool(jnp.asarray(x))
    back = np.asarray(segnet.unpool(pooled, mask))
    expected = np.zeros_like(x)
    for b, v, u, c in np.ndindex(2, 2, 3, 3):
        window = x[b, 2 * v : 2 * v + 2, 2 * u : 2 * u + 2, c]
        assert pooled[b, v, u, c] == window.max()
        row, column = divmod(int(window.argmax()), 2)
        expected[b, 2 * v + row, 2 * u + column, c] = window.max()
    np.testing.assert_array_equal(back, expected)


@pytest.mark.parametrize("model", ["segnet", "mtan"])
def test_every_task_has_parameters_of_its_own_and_predicts_in_full_size(model):
    network = models.build(TASKS, num_classes=5, model=model)
    variables = models.shapes(network, SIZE)
    image = jax.ShapeDtypeStruct((2, *SIZE, 3), jnp.float32)
    predict = functools.partial(models.predict, network)
    found = jax.eval_shape(predict, variables, {"image": image})
    assert {name: x.shape[:3] for name, x in found.items()} == dict.fromkeys(CHANNELS, (2, *SIZE))
    sizes = [
        sum(x.size for x in jax.tree.leaves(head)) for head in variables.params["heads"].values()
    ]
    assert min(sizes) > (10**6 if model == "mtan" else 10**4)


def test_the_trunk_has_the_published_number_of_parameters():
    """Thirteen convolutions each way, of VGG's widths; the decoder narrows first in each stage."""
    network = models.build(TASKS, num_classes=5, model="segnet")
    shapes = models.shapes(network, SIZE).params["trunk"]
    down = [3] + [64] * 2 + [128] * 2 + [256] * 3 + [512] * 6
    up = [512] + [512] * 3 + [256] * 3 + [128] * 3 + [64] * 2 + [64] * 2

    def count(widths):
        # Kernel, bias, scale and shift of each convolution.
        return sum(9 * a * b + 3 * b for a, b in itertools.pairwise(widths))

    total = sum(np.prod(x.shape) for x in jax.tree.leaves(shapes))
    assert total == count(down) + count(up)


def test_sizes_that_do_not_halve_five_times_are_refused():
    network = models.build(TASKS, num_classes=5, model="mtan")
    with pytest.raises(ValueError, match="`image_size`=48x64: this network needs multiples of 32"):
        models.init(network, jax.random.key(0), (48, 64))
    with pytest.raises(
        ValueError, match="`model`: 'fcn' is unknown: choose from resnet_unet, segnet, mtan"
    ):
        models.build(TASKS, num_classes=5, model="fcn")


@pytest.mark.slow
def test_gradients_of_the_trunk_go_through_all_stages_that_attention_sees():
    """Their sum is what one backward pass of the summed losses gives."""
    network = models.build(TASKS[1:], num_classes=5, model="mtan", axis_name="devices")
    variables = models.init(network, jax.random.key(1), SIZE)
    normals = random(2, *SIZE, 3, seed=2)
    batch = {
        "image": jnp.abs(random(2, *SIZE, 3)),
        "depth": jnp.abs(random(2, *SIZE, seed=1)) + 1.0,
        "normals": jnp.asarray(normals / np.linalg.norm(normals, axis=-1, keepdims=True)),
    }

    def each(variables, batch):
        pullback, backward = passes.differentiate(network, variables, batch)
        return passes.trunk_gradients(pullback, backward)

    def total(variables, batch):
        def loss(trunk):
            params = {**variables.params, "trunk": trunk}
            changed = variables._replace(params=params)
            return jnp.sum(passes.forward_losses(network, changed, batch))

        return jax.grad(loss)(variables.params["trunk"])

    one = jax.tree.map(lambda x: x[None], batch)
    device = jax.local_devices()[:1]
    run = functools.partial(
        jax.pmap, axis_name="devices", in_axes=(None, 0), out_axes=None, devices=device
    )
    separate, summed = run(each)(variables, one), run(total)(variables, one)
    for a, b in zip(jax.tree.leaves(separate), jax.tree.leaves(summed), strict=True):
        np.testing.assert_allclose(a.sum(0), b, atol=2e-3 * float(np.abs(b).max()) + 1e-6)


def test_outputs_are_pytorchs():
    torch = pytest.importorskip("torch")
    from mtl_jax.bench.torch_twin import convert
    from mtl_jax.bench.torch_twin.segnet import SegNetTwin

    network = models.build(TASKS, num_classes=5, model="segnet")
    variables = models.init(network, jax.random.key(2), SIZE)
    twin = SegNetTwin(CHANNELS)
    convert.load(twin, variables)
    image = np.abs(random(2, *SIZE, 3))
    features = jax.jit(functools.partial(network.trunk.apply, train=False))(
        {"params": variables.params["trunk"], "batch_stats": variables.batch_stats["trunk"]}, image
    )
    with torch.no_grad():
        expected = twin.eval()(torch.from_numpy(image).permute(0, 3, 1, 2))
    for name in CHANNELS:
        raw = network.heads[name].apply(
            {"params": variables.params["heads"][name]}, features, SIZE, train=False
        )
        wanted = expected[name].permute(0, 2, 3, 1).numpy()
        assert np.abs(raw - wanted).max() <= 1e-4 * np.abs(wanted).max()


def test_doubling_keeps_corners_on_corners():
    torch = pytest.importorskip("torch")
    x = random(1, 3, 5, 2)
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(x).permute(0, 3, 1, 2), scale_factor=2, mode="bilinear", align_corners=True
    )
    np.testing.assert_allclose(
        segnet.double(jnp.asarray(x)), expected.permute(0, 2, 3, 1), atol=1e-5
    )


def test_doubling_in_half_precision_is_as_exact_as_that_allows():
    x = jnp.asarray(random(1, 144, 6, 2)).astype(jnp.bfloat16)
    found, expected = segnet.double(x), segnet.double(x.astype(jnp.float32))
    assert found.dtype == jnp.bfloat16
    np.testing.assert_allclose(found.astype(jnp.float32), expected, atol=0.02)
