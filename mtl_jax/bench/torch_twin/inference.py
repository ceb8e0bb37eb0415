"""Predictions in PyTorch, from photos to the final form of each task."""

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from functools import partial

import numpy as np
import torch
from torch.nn import functional

from mtl_jax.bench.torch_twin.network import Twin
from mtl_jax.bench.torch_twin.segnet import SegNetTwin
from mtl_jax.tasks import Task

# `Task.loss_name` -> (raw output of the head [B, C, H, W]) -> the task's samples [B, H, W, ...].
SAMPLES = {
    "ce": lambda raw: raw.argmax(1),
    "l1": lambda raw: functional.softplus(raw[:, 0] + 2.5),
    "cosine": lambda raw: functional.normalize(raw, dim=1).permute(0, 2, 3, 1),
}


def predict(
    twin: Twin | SegNetTwin,
    tasks: Sequence[Task],
    photos: np.ndarray,
    *,
    layout: torch.memory_format = torch.contiguous_format,
) -> dict[str, torch.Tensor]:
    """Returns the predictions of photos u8[B, H, W, 3] by task, with the running statistics.

    Args:
      twin: network in PyTorch.
      tasks: tasks whose losses are in `SAMPLES`.
      photos: photos in the memory of the host.
      layout: memory layout of the twin's kernels.
    """
    place = next(twin.parameters())
    with torch.inference_mode():
        image = torch.from_numpy(photos).to(place.device).permute(0, 3, 1, 2).to(place.dtype) / 255
        raw = twin.eval()(image.contiguous(memory_format=layout))
        found = {task.name: SAMPLES[task.loss_name](raw[task.name]) for task in tasks}
    if place.is_cuda:
        torch.cuda.synchronize()
    return found


def rivals(
    twin: Twin | SegNetTwin, tasks: Sequence[Task]
) -> dict[str, Callable[[np.ndarray], Mapping[str, torch.Tensor]]]:
    """Makes functions of photos to time next to ours, by name: in both memory layouts."""
    plain = twin.to("cuda" if torch.cuda.is_available() else "cpu")
    last = deepcopy(plain)
    last.to(memory_format=torch.channels_last)  # pyrefly: ignore[no-matching-overload]
    return {
        "PyTorch, float32": partial(predict, plain, tasks),
        "PyTorch, float32, channels_last": partial(
            predict, last, tasks, layout=torch.channels_last
        ),
    }
