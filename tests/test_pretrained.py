"""Encoders from PyTorch: names, shapes, features, and the way back."""

import functools
import pickle

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from mtl_jax import models, pretrained
from mtl_jax.tasks import select

SIZE = (64, 96)


@functools.cache
def fresh(backbone="resnet18", seed=0):
    network = models.build(select(["depth"]), num_classes=3, backbone=backbone)
    return network, models.init(network, jax.random.key(seed), SIZE)


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


@pytest.mark.parametrize("prefix", ["", "encoder.", "module.encoder.", "backbone."])
def test_an_encoder_is_loaded_under_the_names_that_people_use(tmp_path, prefix):
    donor = as_torchvision(fresh(seed=1)[1])
    path = tmp_path / "resnet18.safetensors"
    save_file({prefix + name: array for name, array in donor.items()}, path)
    loaded = pretrained.put_into(fresh()[1], pretrained.read(path))
    encoders_equal(loaded.variables, fresh(seed=1)[1])
    assert loaded.skipped == ["fc.bias", "fc.weight"]
    assert loaded.missed == []
    assert loaded.count == len(donor) - 3
    heads = loaded.variables.params["heads"]["depth"]["output"]["kernel"]
    np.testing.assert_array_equal(heads, fresh()[1].params["heads"]["depth"]["output"]["kernel"])


@pytest.mark.parametrize("backbone", ["resnet18", "resnet50"])
def test_names_are_torchvisions(backbone):
    names = set(as_torchvision(fresh(backbone)[1]))
    assert {"conv1.weight", "bn1.running_mean", "layer2.0.downsample.0.weight"} <= names
    assert {"layer2.0.downsample.1.running_var", "layer4.1.bn2.bias"} <= names
    assert ("layer1.0.conv3.weight" in names) == (backbone == "resnet50")
    assert ("layer1.0.downsample.0.weight" in names) == (backbone == "resnet50")
    # torchvision's resnet18 and resnet50 have 120 and 318 tensors, num_batches_tracked apart.
    counters = {"resnet18": 20, "resnet50": 53}[backbone]
    total = {"resnet18": 122, "resnet50": 320}[backbone]
    assert len(names) - 1 == total - counters


def test_a_round_trip_through_export(tmp_path):
    path = tmp_path / "all.safetensors"
    variables = fresh(seed=2)[1]
    count = pretrained.export(variables, path)
    assert count == len(jax.tree.leaves(tuple(variables)))
    assert "encoder.layer1.0.conv1.weight" in load_file(path)
    assert "heads.depth.output.weight" in load_file(path)
    loaded = pretrained.put_into(fresh()[1], pretrained.read(path))
    jax.tree.map(np.testing.assert_array_equal, loaded.variables, variables)
    assert loaded.count + loaded.others == count
    assert not loaded.skipped


def test_heads_that_do_not_fit_start_afresh(tmp_path):
    """Classes of another number; a task that the other run did not have."""
    path = tmp_path / "all.safetensors"
    other = models.build(select(["segmentation", "normals"]), num_classes=40, backbone="resnet18")
    pretrained.export(models.init(other, jax.random.key(2), SIZE), path)
    network = models.build(select(["segmentation", "depth"]), num_classes=13, backbone="resnet18")
    before = models.init(network, jax.random.key(0), SIZE)
    loaded = pretrained.put_into(before, pretrained.read(path))
    heads = loaded.variables.params["heads"]
    assert heads["segmentation"]["output"]["kernel"].shape[-1] == 13
    jax.tree.map(np.testing.assert_array_equal, heads["depth"], before.params["heads"]["depth"])
    assert "heads.segmentation.output.weight" in loaded.skipped
    assert "heads.normals.output.weight" in loaded.skipped


def test_missed_tensors_are_named_and_left():
    donor = as_torchvision(fresh(seed=1)[1])
    del donor["layer4.1.bn2.running_var"]
    loaded = pretrained.put_into(fresh()[1], donor)
    assert loaded.missed == ["layer4.1.bn2.running_var"]


def test_other_networks_are_refused():
    with pytest.raises(ValueError, match="layer1.0.conv1.weight .*--backbone"):
        pretrained.put_into(fresh("resnet50")[1], as_torchvision(fresh()[1]))
    with pytest.raises(ValueError, match="has no layer1.2.conv1.weight.*--backbone"):
        pretrained.put_into(fresh("resnet34")[1], as_torchvision(fresh()[1]))
    with pytest.raises(ValueError, match="no ResNet as torchvision names it"):
        pretrained.put_into(fresh()[1], {"features.0.weight": np.zeros((64, 3, 3, 3))})


def test_files_that_are_none(tmp_path):
    with pytest.raises(ValueError, match="there is no such file"):
        pretrained.read(tmp_path / "nothing.pth")
    for name in ("broken.safetensors", "weights.npz"):
        (tmp_path / name).write_bytes(b"broken")
        with pytest.raises(ValueError, match="safetensors"):
            pretrained.read(tmp_path / name)


def test_odd_files_of_pytorch(tmp_path):
    torch = pytest.importorskip("torch")
    path = tmp_path / "odd.pth"
    path.write_bytes(b"")
    with pytest.raises(ValueError, match="no plain file of weights"):
        pretrained.read(path)
    torch.save({"state_dict": [1, 2]}, path)
    with pytest.raises(ValueError, match="no dictionary"):
        pretrained.read(path)
    torch.save({0: torch.ones(2), "a": torch.nn.Parameter(torch.ones(2))}, path)
    assert list(pretrained.read(path)) == ["a"]


def test_a_place_that_cannot_be_written(tmp_path):
    with pytest.raises(ValueError, match="--out="):
        pretrained.export(fresh()[1], tmp_path)


class Malicious:
    def __reduce__(self):
        return (print, ("code in the pickle was run",))


def test_code_in_a_pickle_is_not_run(tmp_path, capsys):
    pytest.importorskip("torch")
    path = tmp_path / "evil.pth"
    path.write_bytes(pickle.dumps({"conv1.weight": Malicious()}))
    with pytest.raises(ValueError, match="no plain file of weights"):
        pretrained.read(path)
    assert "was run" not in capsys.readouterr().out


@pytest.mark.parametrize("backbone", ["resnet18", "resnet50"])
def test_features_are_pytorchs(tmp_path, backbone):
    torch = pytest.importorskip("torch")
    from mtl_jax.torch_twin.network import Encoder

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
