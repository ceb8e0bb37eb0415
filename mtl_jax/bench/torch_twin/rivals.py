"""The steps in PyTorch that are timed next to ours."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from mtl_jax.bench.torch_twin.training import Training, build, to_torch
from mtl_jax.tasks import Task

COMPILED = "PyTorch equal, channels_last, torch.compile"
TORCHJD = ("TorchJD Mean", "TorchJD UPGrad", "TorchJD NashMTL")

Step = Callable[[], np.ndarray]


class Rivals(NamedTuple):
    """Training steps of other implementations, by name.

    Attributes:
      steps: each takes a step and returns the losses before it.
      missing: why a step can't be timed here.
    """

    steps: dict[str, Step]
    missing: dict[str, str]


def rivals(
    tasks: Sequence[Task],
    model: str,
    backbone: str,
    channels: Mapping[str, int],
    batch: Mapping[str, np.ndarray],
    *,
    learning_rate: float,
) -> Rivals:
    """Makes steps of equal and Nash-MTL, as published and tuned, and of TorchJD.

    Args:
      tasks: see `Training`.
      model: see `build`.
      backbone: see `build`.
      channels: of each task's head.
      batch: decoded.
      learning_rate: Adam's.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    tensors = to_torch(batch, device)
    size = tuple(batch["image"].shape[1:3])

    def step(kind: Callable[..., Training], *, channels_last: bool, **options: Any) -> Step:
        twin = build(model, backbone, channels, size).to(device)
        options |= {"learning_rate": learning_rate, "channels_last": channels_last}
        run = kind(twin, tasks, **options)

        def call() -> np.ndarray:
            losses = run(tensors)
            # Reading a number waits for the device.
            losses.sum().item()
            return losses.numpy(force=True)

        return call

    steps = {
        "PyTorch equal": step(Training, method="equal", channels_last=False),
        "PyTorch equal, channels_last": step(Training, method="equal", channels_last=True),
        "PyTorch nash, published": step(Training, method="nash", channels_last=False),
        "PyTorch nash, tuned": step(Training, method="tuned nash", channels_last=True),
    }
    missing = {}
    compiled = step(Training, method="equal", channels_last=True, compiled=True)
    try:
        # It compiles when it is first called.
        compiled()
        steps[COMPILED] = compiled
    except Exception as error:  # what the compiler needs differs by system
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        missing[COMPILED] = f"torch.compile failed: {reason[:200]}"
    try:
        from mtl_jax.bench.torch_twin.descent import Descent, aggregators

        for name, made in zip(TORCHJD, aggregators(len(tasks)), strict=True):
            # Its passes for all tasks at once are slower in the other layout.
            steps[name] = step(Descent, aggregator=made, channels_last=False)
    except ImportError as error:
        missing |= dict.fromkeys(TORCHJD, f"{error}: run pip install -e '.[torchjd]' in the clone")
    return Rivals(steps, missing)
