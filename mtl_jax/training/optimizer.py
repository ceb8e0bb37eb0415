"""Adam and its learning-rate schedules."""

import math
from typing import Any

import jax
import optax

SCHEDULES = ("step", "cosine", "constant")


def learning_rate_schedule(
    learning_rate: float,
    *,
    schedule: str = "step",
    steps: int,
    steps_per_epoch: int,
    halve_every: int = 100,
    warmup_epochs: float = 0.0,
) -> optax.Schedule:
    """Learning rate of each step.

    Args:
      learning_rate: the highest, after the warm-up.
      schedule: "step" halves it every `halve_every` epochs (the benchmark's StepLR), "cosine" lets
        it fall to zero over the run, "constant" keeps it.
      steps: of the whole run.
      steps_per_epoch: of one epoch.
      halve_every: epochs, for "step", counted from the end of the warm-up.
      warmup_epochs: over which it rises linearly from zero.

    Raises:
      ValueError: for a value that makes no sense.
    """
    if not learning_rate > 0:
        raise ValueError(f"--learning_rate={learning_rate}: must be positive")
    if schedule not in SCHEDULES:
        raise ValueError(f"--schedule={schedule}: choose from {', '.join(SCHEDULES)}")
    warmup = round(warmup_epochs * steps_per_epoch) if math.isfinite(warmup_epochs) else steps
    if not 0 <= warmup < steps:
        raise ValueError(f"--warmup_epochs={warmup_epochs}: must be 0 or more, less than the run")
    if schedule == "step":
        if halve_every < 1:
            raise ValueError(f"--halve_every={halve_every}: must be at least 1 epoch")
        period = halve_every * steps_per_epoch
        halvings = {place: 0.5 for place in range(period, steps, period)}
        after = optax.piecewise_constant_schedule(learning_rate, halvings)
    elif schedule == "cosine":
        after = optax.cosine_decay_schedule(learning_rate, steps - warmup)
    else:
        after = optax.constant_schedule(learning_rate)
    if not warmup:
        return after
    rise = optax.linear_schedule(0.0, learning_rate, warmup)
    return optax.join_schedules([rise, after], [warmup])


def adam(
    learning_rate: optax.Schedule, *, weight_decay: float = 0.0
) -> optax.GradientTransformation:
    """Adam with decoupled weight decay on kernels (not on biases and normalisation).

    Raises:
      ValueError: for a negative weight decay.
    """
    if not weight_decay >= 0:
        raise ValueError(f"--weight_decay={weight_decay}: must be 0 or more")

    def kernels(params: Any) -> Any:
        return jax.tree.map(lambda x: x.ndim > 1, params)

    inner = optax.adamw(learning_rate, weight_decay=weight_decay, mask=kernels)

    def update(gradient: Any, state: Any, params: Any) -> tuple[Any, Any]:
        # Adam's bias correction raises a float to an integer array, which fails where a program
        # has set strict promotion.
        with jax.numpy_dtype_promotion("standard"):
            return inner.update(gradient, state, params)

    return optax.GradientTransformation(inner.init, update)
