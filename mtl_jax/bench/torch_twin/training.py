"""Losses and training steps in PyTorch: as published, and as fast as PyTorch can go."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from mtl_jax.bench.torch_twin import bargain
from mtl_jax.bench.torch_twin.network import Twin
from mtl_jax.bench.torch_twin.segnet import SegNetTwin
from mtl_jax.tasks import Task
from mtl_jax.tasks.losses import EPSILON

Batch = Mapping[str, torch.Tensor]


def build(
    model: str, backbone: str, channels: Mapping[str, int], image_size: tuple[int, int]
) -> Twin | SegNetTwin:
    """Makes the twin of a network.

    Args:
      model: "resnet_unet" or "segnet", as in `models.build`.
      backbone: of the ResNet-U-Net.
      channels: of each task's head.
      image_size: height and width.
    """
    return SegNetTwin(channels) if model == "segnet" else Twin(backbone, channels, image_size)


def to_torch(batch: Mapping[str, np.ndarray], device: str = "cpu") -> dict[str, torch.Tensor]:
    """Returns a decoded batch, arrays [B, H, W, C] as [B, C, H, W]."""
    tensors = {name: torch.from_numpy(np.array(x)).to(device) for name, x in batch.items()}
    return {
        name: x.permute(0, 3, 1, 2).contiguous() if x.ndim == 4 else x
        for name, x in tensors.items()
    }


def cross_entropy(raw: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Returns the mean cross-entropy [] of logits [B, C, H, W] over the labelled pixels."""
    return functional.cross_entropy(raw, labels.long(), ignore_index=-1)


def absolute(raw: torch.Tensor, depth: torch.Tensor) -> torch.Tensor:
    """Returns the mean absolute error [] in metres of raw outputs [B, 1, H, W]."""
    predicted = functional.softplus(raw[:, 0] + 2.5)
    labelled = depth > 0
    return ((predicted - depth).abs() * labelled).sum() / labelled.sum().clamp(min=1)


def cosine(raw: torch.Tensor, normals: torch.Tensor) -> torch.Tensor:
    """Returns one minus the mean cosine [] of raw outputs [B, 3, H, W]."""
    unit = raw * torch.rsqrt(raw.square().sum(1, keepdim=True) + EPSILON**2)
    labelled = (normals != 0).any(1)
    similarity = (unit * normals).sum(1)
    return ((1 - similarity) * labelled).sum() / labelled.sum().clamp(min=1)


# `Task.loss_name` -> (raw output of the head, labels) -> mean loss.
LOSSES = {"ce": cross_entropy, "l1": absolute, "cosine": cosine}


def loss_of(task: Task) -> Callable[[torch.Tensor, Batch], torch.Tensor]:
    """Returns a task's loss in PyTorch, (raw output of its head, batch) -> mean loss [].

    Raises:
      ValueError: for a loss that PyTorch's side does not have.
    """
    if task.loss_name not in LOSSES or task.reads != task.labels:
        raise ValueError(
            f"the PyTorch twin can't learn {task.name}: it has {', '.join(LOSSES)} from the task's "
            "own labels"
        )
    loss, (entry,) = LOSSES[task.loss_name], task.labels
    return lambda raw, batch: loss(raw, batch[entry.name])


class Training:
    """A twin in training; each call is a step and returns the losses before it.

    Args:
      twin: to train.
      tasks: in the order of the weights, each with a loss of `LOSSES`.
      learning_rate: Adam's.
      method: "equal", "uw", "nash" or "tuned nash". The published Nash-MTL takes each task's
        gradient through the whole network, solves with cvxpy, and makes one more backward pass for
        the weighted sum; the tuned one makes one backward pass through each head and one per task
        through the trunk, and solves in NumPy.
      channels_last: the memory layout that convolutions are fastest in.
      compiled: whether `torch.compile` makes the network and its losses one program.
    """

    def __init__(
        self,
        twin: Twin | SegNetTwin,
        tasks: Sequence[Task],
        *,
        learning_rate: float,
        method: str,
        channels_last: bool = False,
        compiled: bool = False,
    ):
        layout = torch.channels_last if channels_last else torch.contiguous_format
        self.twin = twin.train()
        self.twin.to(memory_format=layout)  # pyrefly: ignore[no-matching-overload]
        self.layout = layout
        self.tasks = {task.name: loss_of(task) for task in tasks}
        self.forward = torch.compile(self.losses) if compiled else self.losses
        self.method = method
        self.log_variance = torch.zeros(
            len(tasks), requires_grad=True, device=next(twin.parameters()).device
        )
        groups: list[dict[str, Any]] = [{"params": list(twin.parameters())}]
        if method == "uw":
            groups.append({"params": [self.log_variance], "lr": 0.025})
        self.optimizer = torch.optim.Adam(groups, lr=learning_rate)
        published = method == "nash"
        self.solve = bargain.Published(len(tasks)).solve if published else bargain.exact

    def __call__(self, batch: Batch) -> torch.Tensor:
        self.optimizer.zero_grad(set_to_none=True)
        batch = {**batch, "image": batch["image"].contiguous(memory_format=self.layout)}
        losses = self.tuned(batch) if self.method == "tuned nash" else self.weighted(batch)
        self.optimizer.step()
        return losses.detach()

    def losses(self, batch: Batch) -> torch.Tensor:
        """Returns the losses [K]."""
        raw = self.twin(batch["image"])
        return torch.stack([loss(raw[task], batch) for task, loss in self.tasks.items()])

    def weighted(self, batch: Batch) -> torch.Tensor:
        """Computes gradients by one backward pass of the weighted sum; returns the losses."""
        losses = self.forward(batch)
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
        """Does the same as Nash-MTL's step with nothing computed twice; returns the losses."""
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
    ) -> tuple[torch.Tensor, list[tuple[torch.Tensor, ...]], dict[str, list[torch.Tensor]]]:
        """Returns the losses, each task's gradient of the trunk, and that of its own head."""
        features = self.twin.trunk(batch["image"])
        leaf = features.detach().requires_grad_()
        losses, cotangents = [], []
        head_gradients: dict[str, list[torch.Tensor]] = {}
        for task, loss_of_task in self.tasks.items():
            head = self.twin.heads[task]
            loss = loss_of_task(head(leaf, batch["image"].shape[2:]), batch)
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
