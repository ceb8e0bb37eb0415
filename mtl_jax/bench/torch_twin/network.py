"""The ResNet-U-Net in PyTorch; its modules have the names of the Flax ones."""

import math
from collections.abc import Mapping, Sequence

import torch
from torch import nn
from torch.nn import functional

from mtl_jax.models.aspp import fitting_rates
from mtl_jax.models.resnet import BACKBONES, MEAN, STD, Bottleneck


class Twin(nn.Module):
    """The trunk and a head for each task: images [B, 3, H, W] -> raw outputs by task.

    Args:
      backbone: as in `models.build`.
      channels: of each task's head.
      image_size: height and width, on which the dilation rates depend.
    """

    def __init__(self, backbone: str, channels: Mapping[str, int], image_size: tuple[int, int]):
        super().__init__()
        self.trunk = UNet(backbone, image_size)
        self.heads = nn.ModuleDict({name: Head(count) for name, count in channels.items()})

    def forward(self, image: torch.Tensor) -> dict[str, torch.Tensor]:
        features = self.trunk(image)
        return {name: head(features, image.shape[2:]) for name, head in self.heads.items()}


class UNet(nn.Module):
    def __init__(
        self,
        backbone: str,
        image_size: tuple[int, int],
        channels: Sequence[int] = (256, 256, 128, 64, 32),
    ):
        super().__init__()
        self.encoder = Encoder(backbone)
        *skips, last = self.encoder.channels
        size = tuple(math.ceil(side / 32) for side in image_size)
        self.aspp = ASPP(last, channels[0], fitting_rates(*size))
        before = channels[0]
        for index, skip in enumerate(reversed(skips)):
            after = channels[index + 1]
            self.add_module(f"decoder{index}_0", ConvBlock(before + skip, after))
            self.add_module(f"decoder{index}_1", ConvBlock(after, after))
            before = after

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        *skips, x = self.encoder(image)
        x = self.aspp(x)
        for index, skip in enumerate(reversed(skips)):
            x = functional.interpolate(x, scale_factor=2, mode="nearest")
            x = torch.cat([x[:, :, : skip.shape[2], : skip.shape[3]], skip], dim=1)
            for part in range(2):
                x = getattr(self, f"decoder{index}_{part}")(x)
        return x


class Encoder(nn.Module):
    def __init__(self, backbone: str):
        super().__init__()
        settings = BACKBONES[backbone].keywords
        expansion = settings["block"].expansion
        self.conv1 = conv(3, 64, 7, 2)
        self.bn1 = nn.BatchNorm2d(64)
        self.stages: list[list[str]] = []
        before = 64
        for stage, blocks in enumerate(settings["stages"]):
            names = []
            for index in range(blocks):
                stride = 2 if stage > 0 and index == 0 else 1
                block = Block(before, 64 * 2**stage, stride, settings["block"] is Bottleneck)
                names.append(f"layer{stage + 1}_{index}")
                self.add_module(names[-1], block)
                before = 64 * 2**stage * expansion
            self.stages.append(names)
        self.channels = [64, *(64 * 2**stage * expansion for stage in range(4))]
        self.register_buffer("mean", torch.tensor(MEAN)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(STD)[:, None, None], persistent=False)

    def forward(self, image: torch.Tensor) -> list[torch.Tensor]:
        x = functional.relu(self.bn1(self.conv1((image - self.mean) / self.std)))
        features = [x]
        x = functional.max_pool2d(x, 3, 2, 1)
        for names in self.stages:
            for name in names:
                x = getattr(self, name)(x)
            features.append(x)
        return features


class Block(nn.Module):
    """A basic block or a bottleneck, its stride on the first 3x3 convolution."""

    def __init__(self, before: int, channels: int, stride: int, bottleneck: bool):
        super().__init__()
        sizes = (1, 3, 1) if bottleneck else (3, 3)
        after = channels * 4 if bottleneck else channels
        widths = [before, *[channels] * (len(sizes) - 1), after]
        self.count = len(sizes)
        for index, size in enumerate(sizes):
            strided = stride if index == sizes.index(3) else 1
            self.add_module(
                f"conv{index + 1}", conv(widths[index], widths[index + 1], size, strided)
            )
            self.add_module(f"bn{index + 1}", nn.BatchNorm2d(widths[index + 1]))
        self.projected = stride != 1 or before != after
        if self.projected:
            self.downsample_conv = conv(before, after, 1, stride)
            self.downsample_bn = nn.BatchNorm2d(after)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = x
        for index in range(1, self.count + 1):
            y = getattr(self, f"bn{index}")(getattr(self, f"conv{index}")(y))
            if index < self.count:
                y = functional.relu(y)
        shortcut = self.downsample_bn(self.downsample_conv(x)) if self.projected else x
        return functional.relu(y + shortcut)


class ASPP(nn.Module):
    def __init__(self, before: int, channels: int, rates: Sequence[int]):
        super().__init__()
        self.parallel = ["point", *(f"atrous{index + 1}" for index in range(len(rates)))]
        for name, rate in zip(self.parallel, (0, *rates), strict=True):
            size = 3 if rate else 1
            self.add_module(
                name,
                nn.Conv2d(before, channels, size, padding=rate, dilation=max(rate, 1), bias=False),
            )
        self.pooled = conv(before, channels, 1)
        self.project = conv(channels * (len(rates) + 2), channels, 1)
        for name in (*self.parallel, "pooled", "project"):
            self.add_module(f"{name}_bn", nn.BatchNorm2d(channels))

    def branch(self, name: str, x: torch.Tensor) -> torch.Tensor:
        return functional.relu(getattr(self, f"{name}_bn")(getattr(self, name)(x)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        branches = [self.branch(name, x) for name in self.parallel]
        pooled = self.branch("pooled", x.mean(dim=(2, 3), keepdim=True))
        branches.append(pooled.expand_as(branches[0]))
        return self.branch("project", torch.cat(branches, dim=1))


class Head(nn.Module):
    def __init__(self, channels: int, features: int = 32, hidden: int = 64):
        super().__init__()
        self.hidden = ConvBlock(features, hidden)
        self.output = nn.Conv2d(hidden, channels, 1)

    def forward(self, features: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
        x = self.output(self.hidden(features))
        x = functional.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
        return x[:, :, : size[0], : size[1]]


class ConvBlock(nn.Module):
    def __init__(self, before: int, after: int):
        super().__init__()
        self.conv = conv(before, after, 3)
        self.bn = nn.BatchNorm2d(after)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return functional.relu(self.bn(self.conv(x)))


def conv(before: int, after: int, size: int, stride: int = 1) -> nn.Conv2d:
    """Makes a convolution without bias, padded to keep the size at stride one."""
    return nn.Conv2d(before, after, size, stride, padding=size // 2, bias=False)
