"""The training step of TorchJD, which combines the gradients of PyTorch by its aggregators."""

import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torchjd.aggregation import Aggregator, Mean, NashMTL, UPGrad
from torchjd.autojac import jac_to_grad, mtl_backward

from mtl_jax.bench.torch_twin.training import Batch, Training


def aggregators(num_tasks: int) -> tuple[Aggregator, ...]:
    """Returns those that are timed: Mean, UPGrad and NashMTL.

    Raises:
      ImportError: if one lacks its solver.
    """
    return Mean(), UPGrad(), NashMTL(n_tasks=num_tasks)


class Descent(Training):
    """A twin in training by TorchJD, as its documentation shows it for several tasks.

    Args:
      aggregator: combines the tasks' gradients of the trunk into one; the heads follow their own
        losses.
      arguments: see `Training`.
    """

    def __init__(self, *arguments: Any, aggregator: Aggregator, **options: Any):
        super().__init__(*arguments, method="equal", **options)
        self.aggregator = aggregator

    def weighted(self, batch: Batch) -> torch.Tensor:
        """Computes gradients by TorchJD; returns the losses."""
        features, size = self.twin.trunk(batch["image"]), batch["image"].shape[2:]
        heads = [self.twin.heads[task] for task in self.tasks]
        losses = [
            loss(head(features, size), batch)
            for head, loss in zip(heads, self.tasks.values(), strict=True)
        ]
        shared: Sequence[torch.Tensor] = list(self.twin.trunk.parameters())
        own = [list(head.parameters()) for head in heads]
        mtl_backward(losses, features=features, shared_params=shared, tasks_params=own)
        with warnings.catch_warnings():
            # cvxpy warns about the form of NashMTL's program.
            warnings.simplefilter("ignore")
            jac_to_grad(shared, self.aggregator)
        return torch.stack(losses)
