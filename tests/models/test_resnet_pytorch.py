"""The ResNet encoders against the same networks written in PyTorch, with the same weights."""

import functools

import jax
import numpy as np
import pytest

from mtl_jax.models.resnet import BACKBONES

torch = pytest.importorskip("torch")
nn = torch.nn

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
DEPTHS = {"resnet18": (2, 2, 2, 2), "resnet50": (3, 4, 6, 3)}


class Block(nn.Module):
    """A residual block: convolutions of the kernel sizes given, the stride on the (first) 3x3."""

    def __init__(self, channels, sizes, widths, stride):
        super().__init__()
        self.number = len(sizes)
        inside = channels
        for i, (size, width) in enumerate(zip(sizes, widths, strict=True), start=1):
            step = stride if i == sizes.index(3) + 1 else 1
            conv = nn.Conv2d(inside, width, size, step, padding=size // 2, bias=False)
            setattr(self, f"conv{i}", conv)
            setattr(self, f"bn{i}", nn.BatchNorm2d(width))
            inside = width
        self.downsample = nn.Identity()
        if stride != 1 or channels != inside:
            self.downsample = nn.Sequential(
                nn.Conv2d(channels, inside, 1, stride, bias=False), nn.BatchNorm2d(inside)
            )

    def forward(self, x):
        y = x
        for i in range(1, self.number + 1):
            y = getattr(self, f"bn{i}")(getattr(self, f"conv{i}")(y))
            if i < self.number:
                y = torch.relu(y)
        return torch.relu(y + self.downsample(x))


class Encoder(nn.Module):
    """The five feature maps, with torchvision's names for all parameters."""

    def __init__(self, name):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        inside = 64
        for stage, blocks in enumerate(DEPTHS[name]):
            width = 64 * 2**stage
            sizes, widths = ((3, 3), (width, width))
            if name == "resnet50":
                sizes, widths = ((1, 3, 1), (width, width, 4 * width))
            layer = []
            for index in range(blocks):
                layer.append(Block(inside, sizes, widths, 2 if stage and not index else 1))
                inside = widths[-1]
            setattr(self, f"layer{stage + 1}", nn.Sequential(*layer))

    def forward(self, image):
        mean, std = (torch.tensor(x).reshape(1, 3, 1, 1) for x in (MEAN, STD))
        features = [torch.relu(self.bn1(self.conv1((image - mean) / std)))]
        x = nn.functional.max_pool2d(features[0], 3, 2, padding=1)
        for stage in range(1, 5):
            x = getattr(self, f"layer{stage}")(x)
            features.append(x)
        return features


def torch_encoder(name):
    """With random weights, and statistics that make every batch normalisation do something."""
    torch.manual_seed(0)
    encoder = Encoder(name)
    for module in encoder.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.2)
            nn.init.normal_(module.running_mean, std=0.2)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return encoder


def flax_path(name):
    """The collection and the path of `layer1.0.downsample.1.running_var`, say.

    That one is `batch_stats`, (`layer1_0`, `downsample_bn`, `var`).
    """
    name = name.replace("downsample.0", "downsample_conv").replace("downsample.1", "downsample_bn")
    *path, leaf = name.split(".")
    if path[0].startswith("layer"):
        path = [f"{path[0]}_{path[1]}", *path[2:]]
    leaves = {"bias": "bias", "running_mean": "mean", "running_var": "var"}
    leaves["weight"] = "scale" if "bn" in path[-1] else "kernel"
    return "batch_stats" if leaf.startswith("running") else "params", (*path, leaves[leaf])


def to_flax(state):
    """Variables of the Flax encoder from a PyTorch state dict."""
    variables = {"params": {}, "batch_stats": {}}
    for name, tensor in state.items():
        if name.endswith("num_batches_tracked"):
            continue
        kind, (*path, leaf) = flax_path(name)
        place = functools.reduce(lambda tree, key: tree.setdefault(key, {}), path, variables[kind])
        value = tensor.numpy().copy()
        place[leaf] = value.transpose(2, 3, 1, 0) if value.ndim == 4 else value  # OIHW -> HWIO
    return variables


def images(count):
    # Heights even at every stage, where XLA's `SAME` would pad on one side only; odd widths.
    return np.random.default_rng(0).random((count, 64, 97, 3)).astype(np.float32)


def channels_first(image):
    return torch.from_numpy(image).permute(0, 3, 1, 2)


def assert_features_equal(found, expected):
    assert len(found) == len(expected) == 5
    for x, y in zip(found, expected, strict=True):
        y = y.detach().permute(0, 2, 3, 1).numpy()
        assert x.shape == y.shape
        np.testing.assert_allclose(x, y, atol=1e-4 * np.abs(y).max())


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.slow] if n == "resnet50" else []) for n in DEPTHS]
)
def test_features_equal_those_of_pytorch(name):
    encoder = torch_encoder(name).eval()
    image = images(1)
    apply = jax.jit(functools.partial(BACKBONES[name]().apply, train=False))
    found = apply(to_flax(encoder.state_dict()), image)
    assert_features_equal(found, encoder(channels_first(image)))


def test_training_equals_that_of_pytorch():
    encoder = torch_encoder("resnet18").train()
    pixels = {}  # that each normalisation averages over
    for name, module in encoder.named_modules():
        if isinstance(module, nn.BatchNorm2d):
            module.register_forward_hook(
                lambda module, inputs, output, name=name: pixels.update(
                    {name: output.numel() // output.shape[1]}
                )
            )
    variables = to_flax(encoder.state_dict())
    image = images(2)
    expected = encoder(channels_first(image))
    apply = jax.jit(
        functools.partial(BACKBONES["resnet18"]().apply, train=True, mutable="batch_stats")
    )
    found, new = apply(variables, image)
    assert_features_equal(found, expected)

    # PyTorch averages the unbiased variance of n pixels, Flax the biased one, n - 1 n-ths of it.
    after = to_flax(encoder.state_dict())["batch_stats"]
    for name, count in pixels.items():
        _, path = flax_path(f"{name}.running_var")
        old, torchs, flaxs = (
            functools.reduce(lambda tree, key: tree[key], path[:-1], tree)
            for tree in (variables["batch_stats"], after, new["batch_stats"])
        )
        np.testing.assert_allclose(flaxs["mean"], torchs["mean"], rtol=1e-3, atol=1e-4)
        unbiased = (torchs["var"] - 0.9 * old["var"]) / 0.1
        biased = 0.9 * old["var"] + 0.1 * unbiased * (count - 1) / count
        np.testing.assert_allclose(flaxs["var"], biased, rtol=1e-3)
    assert len(pixels) == 20
