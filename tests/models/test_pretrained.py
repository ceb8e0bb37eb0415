"""Encoders from PyTorch: names, shapes, features, and the way back."""

import functools

import jax
import numpy as np
import pytest
from safetensors.numpy import save_file

from mtl_jax import models
from mtl_jax.deploy.weights import tensors_of
from mtl_jax.models import pretrained
from mtl_jax.models.resnet import BACKBONES
from mtl_jax.tasks import select

SIZE = (64, 96)


def build(names, *, num_classes, backbone="resnet18"):
    model = f"resnet_unet:backbone={backbone}"
    return models.build(select(names), num_classes=num_classes, model=model)


@functools.cache
def fresh(backbone="resnet18", seed=0):
    network = build(["depth"], num_classes=3, backbone=backbone)
    return network, models.init(network, jax.random.key(seed), SIZE)


@functools.cache
def blank(backbone):
    """Variables without content, which take no time to draw."""
    network = build(["depth"], num_classes=3, backbone=backbone)
    return jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), models.shapes(network, SIZE))


def as_torchvision(variables):
    """An encoder's tensors as torchvision would save them, a classifier among them."""
    found = {"fc.weight": np.zeros((10, 512), np.float32), "fc.bias": np.zeros(10, np.float32)}
    for tree in variables:
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree["trunk"]["encoder"]):
            array = np.asarray(leaf)
            array = array.transpose(3, 2, 0, 1) if array.ndim == 4 else array
            found[pretrained.torch_name(path)] = np.ascontiguousarray(array)
            found["bn1.num_batches_tracked"] = np.array(7)
    return found


def encoders_equal(one, other):
    for a, b in zip(one, other, strict=True):
        jax.tree.map(np.testing.assert_array_equal, a["trunk"]["encoder"], b["trunk"]["encoder"])


@pytest.mark.parametrize("prefix", ["", "encoder.", "module.encoder.", "backbone.", "net.0.body."])
def test_an_encoder_is_loaded_under_the_names_that_people_use(tmp_path, prefix):
    donor = as_torchvision(fresh(seed=1)[1])
    path = tmp_path / "resnet18.safetensors"
    save_file({prefix + name: array for name, array in donor.items()}, path)
    loaded = pretrained.put_into(fresh()[1], pretrained.read(path))
    encoders_equal(loaded.variables, fresh(seed=1)[1])
    assert loaded.skipped == ["fc"]
    assert loaded.afresh == ["heads", "trunk"]
    assert loaded.missed == []
    assert loaded.count == len(donor) - 3
    heads = loaded.variables.params["heads"]["depth"]["output"]["kernel"]
    np.testing.assert_array_equal(heads, fresh()[1].params["heads"]["depth"]["output"]["kernel"])


@pytest.mark.parametrize("backbone", ["resnet18", "resnet50"])
def test_names_are_torchvisions(backbone):
    names = set(as_torchvision(blank(backbone)))
    assert {"conv1.weight", "bn1.running_mean", "layer2.0.downsample.0.weight"} <= names
    assert {"layer2.0.downsample.1.running_var", "layer4.1.bn2.bias"} <= names
    assert ("layer1.0.conv3.weight" in names) == (backbone == "resnet50")
    assert ("layer1.0.downsample.0.weight" in names) == (backbone == "resnet50")
    # torchvision's resnet18 and resnet50 have 120 and 318 tensors, num_batches_tracked apart.
    counters = {"resnet18": 20, "resnet50": 53}[backbone]
    total = {"resnet18": 122, "resnet50": 320}[backbone]
    assert len(names) - 1 == total - counters


def test_heads_that_do_not_fit_start_afresh(tmp_path):
    """Classes of another number; a task that the other run did not have."""
    path = tmp_path / "all.safetensors"
    other = build(["segmentation", "normals"], num_classes=40)
    save_file(tensors_of(models.init(other, jax.random.key(2), SIZE)), path)
    network = build(["segmentation", "depth"], num_classes=13)
    before = models.init(network, jax.random.key(0), SIZE)
    loaded = pretrained.put_into(before, pretrained.read(path))
    heads = loaded.variables.params["heads"]
    assert heads["segmentation"]["output"]["kernel"].shape[-1] == 13
    jax.tree.map(np.testing.assert_array_equal, heads["depth"], before.params["heads"]["depth"])
    assert loaded.skipped == ["heads.normals", "heads.segmentation.output"]
    assert loaded.afresh == ["heads.depth", "heads.segmentation.output"]


def test_missed_tensors_are_named_and_left():
    donor = as_torchvision(fresh(seed=1)[1])
    del donor["layer4.1.bn2.running_var"]
    loaded = pretrained.put_into(fresh()[1], donor)
    assert loaded.missed == ["layer4.1.bn2.running_var"]


@pytest.mark.parametrize("here", BACKBONES)
@pytest.mark.parametrize("there", BACKBONES)
def test_another_backbone_is_refused_and_named(here, there):
    """Larger and smaller ones, of either kind of block; a file of this backbone is taken."""
    tensors = as_torchvision(blank(there))
    if here == there:
        assert pretrained.put_into(blank(here), tensors).missed == []
        return
    with pytest.raises(
        ValueError, match=f"holds a {there}, .* set `model`=resnet_unet:backbone={there}"
    ):
        pretrained.put_into(blank(here), tensors)


def test_other_networks_are_refused_without_misleading_advice():
    known = as_torchvision(fresh("resnet50")[1])

    def refused(message, **changes):
        tensors = {name: x for name, x in (known | changes).items() if x is not None}
        with pytest.raises(ValueError, match=message) as caught:
            pretrained.put_into(fresh("resnet50")[1], tensors, source="a.pth")
        assert "set `model`" not in str(caught.value)
        assert "a.pth" in str(caught.value)

    kernel = known["layer1.0.conv2.weight"]
    block = {n: x for n, x in known.items() if n.startswith("layer3.5.")}
    longer = {n.replace("layer3.5.", "layer3.6."): x for n, x in block.items()}
    refused(
        "a ResNet of 3, 4, 7, 3 bottleneck blocks, which is not one of the backbones .*", **longer
    )
    refused("has layer1.0.se.fc1.weight: .*a variant", **{"layer1.0.se.fc1.weight": kernel})
    refused("has no conv1.weight: ", **{"conv1.weight": None, "conv1.0.weight": kernel})
    refused(
        "layer1.0.conv2.weight .* the shape .*wider", **{"layer1.0.conv2.weight": kernel[:, :4]}
    )
    for channels in (1, 4):
        first = {"conv1.weight": np.zeros((64, channels, 7, 7), np.float32)}
        refused("the first convolution of a.pth.* 3 channels.*RGB", **first)
    with pytest.raises(ValueError, match="not a ResNet with .* features.0.weight"):
        pretrained.put_into(fresh()[1], {"features.0.weight": np.zeros((64, 3, 3, 3))})
    with pytest.raises(ValueError, match="nor any other tensor by name"):
        pretrained.put_into(fresh()[1], {})


@pytest.mark.parametrize("model", ["segnet", "small:channels=2"])
def test_a_network_without_an_encoder_starts_from_its_own_export(model):
    def made(tasks, key):
        network = models.build(select(tasks), num_classes=3, model=model)
        return models.init(network, jax.random.key(key), SIZE)

    other = made(["depth", "segmentation"], 1)
    loaded = pretrained.put_into(made(["depth", "normals"], 0), tensors_of(other))
    for found, expected in zip(loaded.variables, other, strict=True):
        jax.tree.map(np.testing.assert_array_equal, found["trunk"], expected["trunk"])
        jax.tree.map(
            np.testing.assert_array_equal, found["heads"]["depth"], expected["heads"]["depth"]
        )
    assert loaded.afresh == ["heads.normals"] and loaded.skipped == ["heads.segmentation"]


def test_a_network_without_an_encoder_starts_from_nothing_else():
    variables = models.init(
        models.build(select(["depth"]), num_classes=3, model="segnet"), jax.random.key(0), SIZE
    )
    with pytest.raises(ValueError, match="has no trunk.*no ResNet encoder.* of the same network"):
        pretrained.put_into(variables, as_torchvision(fresh()[1]))
    tensors = tensors_of(variables)
    kernel = next(name for name in tensors if name.startswith("trunk") and tensors[name].ndim == 4)
    with pytest.raises(ValueError, match=f"has another shape of {kernel}"):
        pretrained.put_into(variables, tensors | {kernel: tensors[kernel][:, :1]})


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.full((64, 3, 7, 7), np.nan, np.float32), "not finite"),
        (np.full((64, 3, 7, 7), -np.inf, np.float16), "not finite"),
        (np.full((64, 3, 7, 7), 1e300), "not finite"),  # too large for float32
        (np.ones((64, 3, 7, 7), np.int8), "int8"),
        (np.ones((64, 3, 7, 7), bool), "bool"),
        (np.ones((64, 3, 7, 7), np.complex64), "complex64"),
    ],
)
def test_tensors_that_are_not_finite_numbers_are_refused_by_name(array, message):
    tensors = as_torchvision(fresh()[1]) | {"conv1.weight": array}
    with pytest.raises(ValueError, match=f"conv1.weight of F .*{message}"):
        pretrained.put_into(fresh()[1], tensors, source="F")


def test_of_two_encoders_in_a_file_none_is_mixed_with_the_other():
    one, other = (as_torchvision(fresh(seed=seed)[1]) for seed in (1, 2))

    def behind(prefix, tensors):
        return {prefix + name: array for name, array in tensors.items()}

    twice = behind("model.", one) | behind("backbone.", other)
    with pytest.raises(ValueError, match="two different .*model.layer1.*backbone.layer1"):
        pretrained.put_into(fresh()[1], twice)
    same = behind("model.", one) | behind("ema.", one)
    encoders_equal(pretrained.put_into(fresh()[1], same).variables, fresh(seed=1)[1])
    # A part of another encoder, such as a head's own first block, does not count as much.
    part = behind("head.", {n: x for n, x in other.items() if n.startswith("layer1.")})
    loaded = pretrained.put_into(fresh()[1], part | behind("module.net.", one))
    encoders_equal(loaded.variables, fresh(seed=1)[1])
    assert loaded.skipped == ["fc", "head"]


@pytest.mark.parametrize("backbone", ["resnet18", pytest.param("resnet50", marks=pytest.mark.slow)])
def test_features_are_pytorchs(tmp_path, backbone):
    torch = pytest.importorskip("torch")
    from mtl_jax.bench.torch_twin.network import Encoder

    torch.manual_seed(0)
    encoder = Encoder(backbone)
    with torch.no_grad():
        for _ in range(3):  # running statistics that are not the first ones
            encoder.train()(torch.rand(4, 3, *SIZE))
    named = {
        name.replace("downsample_conv", "downsample.0").replace("downsample_bn", "downsample.1")
        .replace("_", ".", 1) if name.startswith("layer") else name: tensor
        for name, tensor in encoder.state_dict().items()
    }  # fmt: skip
    torch.save(named, tmp_path / "resnet.pth")
    network, variables = fresh(backbone)
    loaded = pretrained.put_into(variables, pretrained.read(tmp_path / "resnet.pth"))
    assert not loaded.missed
    assert not loaded.skipped
    image = np.random.default_rng(0).random((2, *SIZE, 3)).astype(np.float32)
    module = models.resnet.BACKBONES[backbone]()
    params, stats = (tree["trunk"]["encoder"] for tree in loaded.variables)
    found = jax.jit(functools.partial(module.apply, train=False))(
        {"params": params, "batch_stats": stats}, image
    )
    with torch.no_grad():
        expected = encoder.eval()(torch.from_numpy(image).permute(0, 3, 1, 2))
    for got, wanted in zip(found, expected, strict=True):
        wanted = wanted.permute(0, 2, 3, 1).numpy()
        assert np.abs(got - wanted).max() <= 1e-4 * np.abs(wanted).max()


def test_a_negative_variance_is_refused():
    _, variables = fresh()
    tensors = as_torchvision(variables)
    tensors["layer1.0.bn1.running_var"] = -tensors["layer1.0.bn1.running_var"]
    with pytest.raises(ValueError, match="layer1.0.bn1.running_var of it holds negative variances"):
        pretrained.put_into(variables, tensors, source="it")


@pytest.mark.parametrize(("channels", "what"), [(1, "summed"), (4, "repeated in turn, times 3/4")])
def test_filters_are_adapted_to_other_channels(channels, what):
    """By the rules of segmentation_models_pytorch, one filter after the other."""
    donor = as_torchvision(fresh(seed=1)[1])
    network = fresh()[0]._replace(channels=channels)
    start = models.init(network, jax.random.key(0), SIZE)
    loaded = pretrained.put_into(start, donor)
    red, green, blue = np.moveaxis(donor["conv1.weight"], 1, 0)
    expected = (
        [red + green + blue] if channels == 1 else [0.75 * x for x in (red, green, blue, red)]
    )
    found = loaded.variables.params["trunk"]["encoder"]["conv1"]["kernel"]
    np.testing.assert_allclose(
        np.asarray(found).transpose(2, 3, 0, 1), expected, rtol=1e-6, atol=1e-6
    )
    assert loaded.missed == []
    assert f"conv1.weight are {what} for images of {channels} channel" in loaded.adapted
    assert pretrained.put_into(fresh()[1], donor).adapted == ""


def test_weights_of_a_network_for_four_channels_are_not_for_three():
    network = fresh()[0]._replace(channels=4)
    donor = as_torchvision(models.init(network, jax.random.key(0), SIZE))
    with pytest.raises(ValueError, match="does not fit images of 3 channels"):
        pretrained.put_into(fresh()[1], donor)
