"""SegNet in PyTorch, trunk and prediction heads; its modules have the names of the Flax ones."""

from collections.abc import Mapping

import torch
from torch import nn
from torch.nn import functional

from mtl_jax.models.segnet import CHANNELS


class SegNetTwin(nn.Module):
    """Images [B, 3, H, W] -> raw outputs by task."""

    def __init__(self, channels: Mapping[str, int]):
        super().__init__()
        self.trunk = SegNet()
        self.heads = nn.ModuleDict({name: Head(count) for name, count in channels.items()})

    def forward(self, image: torch.Tensor) -> dict[str, torch.Tensor]:
        features = self.trunk(image)
        return {name: head(features, image.shape[2:]) for name, head in self.heads.items()}


class SegNet(nn.Module):
    def __init__(self):
        super().__init__()
        before = 3
        for stage, channels in enumerate(CHANNELS):
            for index in range(2 if stage < 2 else 3):
                self.add_module(f"encoder{stage}_{index}", ConvBlock(before, channels))
                before = channels
        for stage in reversed(range(len(CHANNELS))):
            channels = CHANNELS[max(stage - 1, 0)]
            for index in range(2 if stage < 2 else 3):
                self.add_module(f"decoder{stage}_{index}", ConvBlock(before, channels))
                before = channels

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        places = []
        for stage in range(len(CHANNELS)):
            for index in range(2 if stage < 2 else 3):
                x = getattr(self, f"encoder{stage}_{index}")(x)
            x, where = functional.max_pool2d(x, 2, return_indices=True)
            places.append(where)
        for stage in reversed(range(len(CHANNELS))):
            x = functional.max_unpool2d(x, places[stage], [2, 2])
            for index in range(2 if stage < 2 else 3):
                x = getattr(self, f"decoder{stage}_{index}")(x)
        return x


class Head(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        self.hidden = nn.Conv2d(CHANNELS[0], CHANNELS[0], 3, padding=1)
        self.output = nn.Conv2d(CHANNELS[0], channels, 1)

    def forward(self, x: torch.Tensor, size: torch.Size) -> torch.Tensor:
        return self.output(self.hidden(x))


class ConvBlock(nn.Module):
    def __init__(self, before: int, after: int):
        super().__init__()
        self.conv = nn.Conv2d(before, after, 3, padding=1)
        self.bn = nn.BatchNorm2d(after)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return functional.relu(self.bn(self.conv(x)))
