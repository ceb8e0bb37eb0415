"""Losses and training steps in PyTorch: as published, and as fast as PyTorch can go."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch.nn import functional

from mtl_jax.bench.torch_twin import bargain
from mtl_jax.bench.torch_twin.network import Twin
from mtl_jax.bench.torch_twin.segnet import SegNetTwin
from mtl_jax.tasks.losses import EPSILON

Batch = Mapping[str, torch.Tensor]


def build(
    model: str, backbone: str, channels: Mapping[str, int], image_size: tuple[int, int]
) -> Twin | SegNetTwin:
    """The twin of a network.

    Args:
      model: "resnet_unet" or "segnet", as in `models.build`.
      backbone: of the ResNet-U-Net.
      channels: of each task's head.
      image_size: height and width.
    """
    return SegNetTwin(channels) if model == "segnet" else Twin(backbone, channels, image_size)


def to_torch(batch: Mapping[str, np.ndarray], device: str = "cpu") -> dict[str, torch.Tensor]:
    """A decoded batch, images and normals as [B, 3, H, W]."""
    tensors = {name: torch.from_numpy(np.array(x)).to(device) for name, x in batch.items()}
    for name in ("image", "normals"):
        if name in tensors:
            tensors[name] = tensors[name].permute(0, 3, 1, 2).contiguous()
    return tensors


def segmentation_loss(raw: torch.Tensor, batch: Batch) -> torch.Tensor:
    """Mean cross-entropy [] of logits [B, C, H, W] over the labelled pixels."""
    return functional.cross_entropy(raw, batch["segmentation"].long(), ignore_index=-1)


def depth_loss(raw: torch.Tensor, batch: Batch) -> torch.Tensor:
    """Mean absolute error [] in metres of raw outputs [B, 1, H, W] over the labelled pixels."""
    depth = functional.softplus(raw[:, 0] + 2.5)
    labelled = batch["depth"] > 0
    return ((depth - batch["depth"]).abs() * labelled).sum() / labelled.sum().clamp(min=1)


def normals_loss(raw: torch.Tensor, batch: Batch) -> torch.Tensor:
    """One minus the mean cosine [] of raw outputs [B, 3, H, W] over the labelled pixels."""
    unit = raw * torch.rsqrt(raw.square().sum(1, keepdim=True) + EPSILON**2)
    labelled = (batch["normals"] != 0).any(1)
    cosine = (unit * batch["normals"]).sum(1)
    return ((1 - cosine) * labelled).sum() / labelled.sum().clamp(min=1)


def rivals(
    model: str,
    backbone: str,
    channels: Mapping[str, int],
    batch: Mapping[str, np.ndarray],
    *,
    learning_rate: float,
) -> dict[str, Callable[[], torch.Tensor]]:
    """Steps to time beside ours, by name: equal and Nash-MTL, as published and tuned.

    Args:
      model: see `build`.
      backbone: see `build`.
      channels: of each task's head.
      batch: decoded.
      learning_rate: Adam's.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    tensors = to_torch(batch, device)
    size = tuple(batch["image"].shape[1:3])

    def step(method: str, channels_last: bool) -> Callable[[], torch.Tensor]:
        run = Training(
            build(model, backbone, channels, size).to(device), list(channels), method=method,
            learning_rate=learning_rate, channels_last=channels_last,
        )  # fmt: skip

        def call() -> torch.Tensor:
            losses = run(tensors)
            # Reading a number waits for the device.
            losses.sum().item()
            return losses.numpy(force=True)

        return call

    return {
        "PyTorch equal": step("equal", False),
        "PyTorch equal, channels_last": step("equal", True),
        "PyTorch nash, published": step("nash", False),
        "PyTorch nash, tuned": step("tuned nash", True),
    }


LOSSES = {"segmentation": segmentation_loss, "depth": depth_loss, "normals": normals_loss}


class Training:
    """A twin in training; each call is a step and returns the losses before it.

    Args:
      twin: to train.
      tasks: names, in the order of the weights.
      learning_rate: Adam's.
      method: "equal", "uw", "nash" or "tuned nash". The published Nash-MTL takes each task's
        gradient through the whole network, solves by cvxpy, and goes back once more through the
        weighted sum; the tuned one goes back through each head once and through the trunk once a
        task, and solves in NumPy.
      channels_last: the memory layout that convolutions are fastest in.
    """

    def __init__(
        self,
        twin: Twin | SegNetTwin,
        tasks: Sequence[str],
        *,
        learning_rate: float,
        method: str,
        channels_last: bool = False,
    ):
        layout = torch.channels_last if channels_last else torch.contiguous_format
        self.twin = twin.train().to(memory_format=layout)
        self.layout = layout
        self.tasks = tuple(tasks)
        self.method = method
        self.log_variance = torch.zeros(
            len(tasks), requires_grad=True, device=next(twin.parameters()).device
        )
        groups = [{"params": list(twin.parameters())}]
        if method == "uw":
            groups.append({"params": [self.log_variance], "lr": 0.025})
        self.optimizer = torch.optim.Adam(groups, lr=learning_rate)
        self.solve: Callable[[np.ndarray], np.ndarray] | None = None
        if method == "nash":
            self.solve = bargain.Published(len(tasks)).solve
        if method == "tuned nash":
            self.solve = bargain.exact

    def __call__(self, batch: Batch) -> torch.Tensor:
        self.optimizer.zero_grad(set_to_none=True)
        batch = {**batch, "image": batch["image"].contiguous(memory_format=self.layout)}
        losses = self.tuned(batch) if self.method == "tuned nash" else self.weighted(batch)
        self.optimizer.step()
        return losses.detach()

    def losses(self, batch: Batch) -> torch.Tensor:
        """Losses [K]."""
        raw = self.twin(batch["image"])
        return torch.stack([LOSSES[task](raw[task], batch) for task in self.tasks])

    def weighted(self, batch: Batch) -> torch.Tensor:
        """Gradients by one backward pass of the weighted sum."""
        losses = self.losses(batch)
        if self.method == "equal":
            losses.sum().backward()
        elif self.method == "uw":
            total = 0.5 * torch.exp(-self.log_variance) * losses + 0.5 * self.log_variance
            total.sum().backward()
        else:
            shared = list(self.twin.trunk.parameters())
            rows = []
            for loss in losses:
                each = torch.autograd.grad(loss, shared, retain_graph=True)
                rows.append(torch.cat([x.flatten() for x in each]))
            stacked = torch.stack(rows)
            weights = self.solve((stacked @ stacked.T).cpu().numpy())
            weights = torch.from_numpy(np.asarray(weights, np.float32)).to(losses.device)
            (weights * losses).sum().backward()
            torch.nn.utils.clip_grad_norm_(shared, 1.0)
        return losses

    def tuned(self, batch: Batch) -> torch.Tensor:
        """The same step as Nash-MTL's with nothing computed twice."""
        losses, per_task, head_gradients = self.task_gradients(batch)
        rows = [torch.cat([x.flatten() for x in each]) for each in per_task]
        stacked = torch.stack(rows)
        gram = (stacked @ stacked.T).cpu().numpy().astype(np.float64)
        weights = self.solve(gram)
        # The combined gradient is sqrt(K) long where the solution is exact.
        scale = min(1.0, 1.0 / np.sqrt(weights @ gram @ weights))
        for parameter, *each in zip(self.twin.trunk.parameters(), *per_task, strict=True):
            parameter.grad = sum(float(a * scale) * x for a, x in zip(weights, each, strict=True))
        for task, a in zip(self.tasks, weights, strict=True):
            own = self.twin.heads[task].parameters()
            for parameter, gradient in zip(own, head_gradients[task], strict=True):
                parameter.grad = float(a) * gradient
        return losses

    def task_gradients(
        self, batch: Batch
    ) -> tuple[torch.Tensor, list[Sequence[torch.Tensor]], dict[str, Sequence[torch.Tensor]]]:
        """Losses, each task's gradient of the trunk, and of its own head."""
        features = self.twin.trunk(batch["image"])
        leaf = features.detach().requires_grad_()
        losses, cotangents, head_gradients = [], [], {}
        for task in self.tasks:
            head = self.twin.heads[task]
            loss = LOSSES[task](head(leaf, batch["image"].shape[2:]), batch)
            cotangent, *own = torch.autograd.grad(loss, [leaf, *head.parameters()])
            losses.append(loss)
            cotangents.append(cotangent)
            head_gradients[task] = own
        shared = list(self.twin.trunk.parameters())
        per_task = [
            torch.autograd.grad(features, shared, cotangent, retain_graph=task != len(cotangents))
            for task, cotangent in enumerate(cotangents, 1)
        ]
        return torch.stack(losses), per_task, head_gradients
