"""The network: trunk and heads, their sizes, their independence, their statistics."""

import functools
import itertools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtl_jax import models, parallel
from mtl_jax.models.unet import double, enlarge
from mtl_jax.tasks import select
from tests.fakes import TASKS

ALL = tuple(TASKS.values())
CLASSES = 5


def build(tasks=ALL, **kwargs):
    return models.build(tasks, num_classes=CLASSES, model="resnet_unet:backbone=resnet18", **kwargs)


def small(network):
    """The network with a trunk of one convolution, for what does not depend on the trunk."""
    return network._replace(trunk=SmallTrunk())


class SmallTrunk(nn.Module):
    @nn.compact
    def __call__(self, image, *, train):
        x = nn.Conv(8, (3, 3), strides=2, padding=1)(image)
        return nn.BatchNorm(use_running_average=not train)(x)


def random_images(*shape):
    return np.random.default_rng(0).random((*shape, 3)).astype(np.float32)


def assert_same(one, other, **tolerance):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, **tolerance), one, other)


@pytest.fixture(scope="module")
def network():
    return build()


@pytest.fixture(scope="module")
def variables(network):
    return models.init(network, jax.random.key(0), (50, 70))


def test_predictions_are_what_their_tasks_promise(network, variables):
    # 32 divides neither side.
    found = jax.jit(functools.partial(models.predict, network))(
        variables, {"image": random_images(2, 50, 70)}
    )
    assert found["segmentation"].shape == (2, 50, 70, CLASSES)
    np.testing.assert_allclose(np.exp(found["segmentation"]).sum(-1), 1.0, rtol=1e-5)
    assert found["depth"].shape == (2, 50, 70)
    assert np.all(found["depth"] > 0)
    assert found["normals"].shape == (2, 50, 70, 3)
    np.testing.assert_allclose(np.linalg.norm(found["normals"], axis=-1), 1.0, rtol=1e-5)
    for prediction in found.values():
        assert np.std(prediction, axis=(1, 2)).min() > 0  # each image's pixels differ


@pytest.mark.parametrize("size", [(32, 32), (33, 97), (50, 70), (96, 128)])
def test_any_size_from_32_pixels_on_keeps_its_size(network, size):
    image = jax.ShapeDtypeStruct((1, *size, 3), jnp.float32)
    predict = functools.partial(models.predict, network)
    found = jax.eval_shape(predict, models.shapes(network, size), {"image": image})
    assert {x.shape[:3] for x in found.values()} == {(1, *size)}


@pytest.mark.parametrize("size", [(31, 64), (64, 16)])
def test_smaller_images_are_refused(network, size):
    complaint = f"`image_size`={size[0]}x{size[1]}: the encoder needs at least 32x32"
    with pytest.raises(ValueError, match=complaint):
        models.init(network, jax.random.key(0), size)


def test_an_unknown_backbone_is_refused():
    with pytest.raises(ValueError, match="unknown backbone 'vgg': choose from resnet18, resnet34"):
        models.build(ALL, num_classes=3, model="resnet_unet:backbone=vgg")


@pytest.mark.parametrize("model", models.MODELS)
def test_heads_are_those_of_the_networks_tasks_in_their_order(model):
    tasks = select(["normals", "segmentation"])
    network = models.build(tasks, num_classes=CLASSES, model=model)
    assert network.tasks == tasks
    assert list(network.heads) == ["normals", "segmentation"]
    assert [head.channels for head in network.heads.values()] == [3, CLASSES]


def test_a_text_of_a_model_says_what_it_is_once():
    assert str(models.parse_model("resnet_unet:backbone=resnet34")) == "resnet_unet"
    text = "resnet_unet:backbone=resnet50"
    assert str(models.parse_model(text)) == text
    with pytest.raises(ValueError, match="`model`: .*segnet has no option 'backbone'"):
        models.build(ALL, num_classes=3, model="segnet:backbone=resnet18")


def test_trunk_and_heads_are_apart(network):
    params, batch_stats = models.init(network, jax.random.key(0), (64, 96))
    for tree in (params, batch_stats):
        assert set(tree) == {"trunk", "heads"}
        assert set(tree["heads"]) == set(TASKS)
    outputs = {name: head["output"]["kernel"].shape[-1] for name, head in params["heads"].items()}
    assert outputs == {"segmentation": CLASSES, "depth": 1, "normals": 3}
    # The trunk is the same for all sets of tasks.
    alone = models.init(build(select(["depth"])), jax.random.key(0), (64, 96))
    assert set(alone.params["heads"]) == {"depth"}
    assert jax.tree.map(jnp.shape, alone.params["trunk"]) == jax.tree.map(
        jnp.shape, params["trunk"]
    )


def test_fresh_variables_do_not_depend_on_the_other_tasks(variables):
    alone = models.init(build(select(["normals"])), jax.random.key(0), (50, 70))
    assert_same(variables.params["heads"]["normals"], alone.params["heads"]["normals"], rtol=0)
    assert_same(variables.params["trunk"], alone.params["trunk"], rtol=0)


def test_fresh_variables_depend_on_the_key_and_on_their_place(variables):
    other = models.init(build(), jax.random.key(1), (50, 70))
    hidden = [
        x.params["heads"][name]["hidden"]["conv"]["kernel"]
        for x in (variables, other)
        for name in TASKS
    ]
    for i, j in itertools.combinations(range(len(hidden)), 2):
        assert not np.allclose(hidden[i], hidden[j])


def test_fresh_variables_are_normal_kernels_and_idle_normalisations(variables):
    for path, leaf in jax.tree_util.tree_leaves_with_path(jax.device_get(variables)):
        name = path[-1].key
        if name != "kernel":
            assert np.all(leaf == (1.0 if name in ("scale", "var") else 0.0))
        elif leaf.size > 5000:
            # Variance 2 / fan-in (He et al., 2015).
            deviation = np.sqrt(2 / np.prod(leaf.shape[:-1]))
            assert np.std(leaf) == pytest.approx(deviation, rel=0.05)
            assert abs(np.mean(leaf)) < 5 * deviation / np.sqrt(leaf.size)


def test_bfloat16_keeps_parameters_statistics_and_outputs_in_float32(network, variables):
    half = build(dtype=jnp.bfloat16)
    dtypes = {x.dtype for x in jax.tree.leaves(models.init(half, jax.random.key(0), (50, 70)))}
    assert dtypes == {jnp.dtype(jnp.float32)}
    image = jax.ShapeDtypeStruct((1, 50, 70, 3), jnp.float32)
    features = jax.eval_shape(
        lambda v, x: half.trunk.apply(
            {"params": v.params["trunk"], "batch_stats": v.batch_stats["trunk"]}, x, train=False
        ),
        variables,
        image,
    )
    assert features.dtype == jnp.bfloat16
    found = jax.eval_shape(functools.partial(models.predict, half), variables, {"image": image})
    assert {x.dtype for x in found.values()} == {jnp.dtype(jnp.float32)}


def test_training_reports_new_statistics_of_trunk_and_head():
    network = small(build(select(["depth"])))
    params, batch_stats = models.init(network, jax.random.key(0), (32, 32))
    image = random_images(4, 32, 32)
    features, trunk = models.apply_trunk(network, params["trunk"], batch_stats["trunk"], image)
    prediction, head = models.apply_head(
        network, TASKS["depth"], params["heads"]["depth"], batch_stats["heads"]["depth"],
        features, {"image": image},
    )  # fmt: skip
    assert prediction.shape == (4, 32, 32)
    assert jax.tree.structure(trunk) == jax.tree.structure(batch_stats["trunk"])
    assert jax.tree.structure(head) == jax.tree.structure(batch_stats["heads"]["depth"])
    for new, old in ((trunk, batch_stats["trunk"]), (head, batch_stats["heads"]["depth"])):
        assert all(
            not np.allclose(a, b)
            for a, b in zip(jax.tree.leaves(new), jax.tree.leaves(old), strict=True)
        )


@pytest.mark.slow
def test_batch_statistics_do_not_depend_on_the_number_of_devices(variables):
    network = build(axis_name=parallel.AXIS)
    image = random_images(8, 32, 48)
    image *= np.linspace(0.1, 1.0, 8, dtype=np.float32)[:, None, None, None]  # devices differ

    def statistics(variables, image):
        params, batch_stats = variables
        features, new = models.apply_trunk(network, params["trunk"], batch_stats["trunk"], image)
        return jax.lax.all_gather(features, parallel.AXIS, tiled=True), new

    found = {}
    for count in (1, 4):
        devices = jax.local_devices()[:count]
        step = parallel.data_parallel(statistics, devices)
        found[count] = jax.device_get(step(variables, parallel.shard(image, devices)))
    assert found[1][0].shape == (8, 16, 24, 32)
    assert_same(found[4], found[1], rtol=1e-3, atol=1e-4)
    new, old = found[4][1]["encoder"]["bn1"], variables.batch_stats["trunk"]["encoder"]["bn1"]
    assert not np.allclose(new["var"], old["var"], atol=1e-3)


def test_decoder_concatenates_the_encoders_features(variables):
    trunk = variables.params["trunk"]
    # Channels of what is below, then of the encoder at that size.
    expected = [256 + 256, 256 + 128, 128 + 64, 64 + 64]
    found = [trunk[f"decoder{i}_0"]["conv"]["kernel"].shape[2] for i in range(4)]
    assert found == expected
    assert trunk["aspp"]["project_bn"]["scale"].shape == (256,)
    assert trunk["decoder3_1"]["bn"]["scale"].shape == (32,)


@pytest.mark.parametrize("stride", [1, 2, 4])
@pytest.mark.parametrize("size", [(33, 47), (32, 48), (34, 47)])
def test_enlarged_maps_stay_in_their_place(size, stride):
    """Pixel k of a map lies over the pixels k * stride, ... of the image, also of an odd one."""
    rows, columns = (np.arange(-(-side // stride), dtype=np.float32) for side in size)
    x = np.stack(np.meshgrid(rows, columns, indexing="ij"), axis=-1)[None]
    found = enlarge(jnp.asarray(x), size)[0]
    assert found.shape == (*size, 2)
    for axis, side in enumerate(size):
        expected = (np.arange(side) + 0.5) / stride - 0.5
        expected = np.clip(expected, 0, -(-side // stride) - 1)
        line = np.moveaxis(found[..., axis], axis, 0)
        np.testing.assert_allclose(line, np.broadcast_to(expected[:, None], line.shape), atol=1e-5)


@pytest.mark.parametrize(("size", "expected"), [((4, 6), (4, 6)), ((3, 5), (3, 5))])
def test_double_repeats_pixels_and_cuts(size, expected):
    x = jnp.arange(6.0).reshape(1, 2, 3, 1)
    found = double(x, size)[0, :, :, 0]
    assert found.shape == expected
    for row, column in np.ndindex(expected):
        assert found[row, column] == x[0, row // 2, column // 2, 0]
