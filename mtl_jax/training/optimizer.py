"""Adam and its learning-rate schedules."""

import math

import jax
import optax

from mtl_jax.weighting import options
from mtl_jax.weighting.contract import PyTree


def halving(
    *, halve_every: int = 100, learning_rate: float, steps: int, steps_per_epoch: int, warmup: int
) -> optax.Schedule:
    """Makes the literature's StepLR, which halves the learning rate every `halve_every` epochs.

    Raises:
      ValueError: for a `halve_every` below 1.
    """
    if halve_every < 1:
        raise ValueError("halve_every must be at least 1 epoch")
    period = halve_every * steps_per_epoch
    halvings = {place: 0.5 for place in range(period, steps, period)}
    return optax.piecewise_constant_schedule(learning_rate, halvings)


def cosine(
    *, learning_rate: float, steps: int, steps_per_epoch: int, warmup: int
) -> optax.Schedule:
    """Makes a schedule whose learning rate falls to zero over the run."""
    return optax.cosine_decay_schedule(learning_rate, steps - warmup)


def constant(
    *, learning_rate: float, steps: int, steps_per_epoch: int, warmup: int
) -> optax.Schedule:
    """Makes a schedule with a constant learning rate."""
    return optax.constant_schedule(learning_rate)


SCHEDULES = {"step": halving, "cosine": cosine, "constant": constant}


def parse_schedule(schedule: str) -> options.Choice:
    """Returns the factory of `SCHEDULES` and its options that a text such as "cosine" stands for.

    Raises:
      ValueError: for an unknown name or option.
    """
    context = ("learning_rate", "steps", "steps_per_epoch", "warmup")
    try:
        return options.parse(schedule, SCHEDULES, context=context)
    except ValueError as error:
        raise ValueError(f"`schedule`: {error}") from error


def learning_rate_schedule(
    learning_rate: float,
    *,
    schedule: str = "step",
    steps: int,
    steps_per_epoch: int,
    warmup_epochs: float = 0.0,
) -> optax.Schedule:
    """Makes the schedule of a run, with a warm-up.

    Args:
      learning_rate: peak learning rate, reached after the warm-up.
      schedule: "step" halves it every 100 epochs, counted from the end of the warm-up, and
        `step:halve_every=50` every 50; "cosine" lets it fall to zero over the run; "constant" keeps
        it as it is.
      steps: steps of the whole run.
      warmup_epochs: epochs over which the learning rate rises linearly from zero.

    Raises:
      ValueError: for a value out of its range.
    """
    if not learning_rate > 0:
        raise ValueError(f"`learning_rate`={learning_rate}: must be positive")
    choice = parse_schedule(schedule)
    warmup = round(warmup_epochs * steps_per_epoch) if math.isfinite(warmup_epochs) else steps
    if not 0 <= warmup < steps:
        raise ValueError(f"`warmup_epochs`={warmup_epochs}: must be 0 or more, less than the run")
    try:
        after = choice.factory(
            **choice.options,
            learning_rate=learning_rate,
            steps=steps,
            steps_per_epoch=steps_per_epoch,
            warmup=warmup,
        )
    except ValueError as error:
        raise ValueError(f"`schedule`={schedule}: {error}") from error
    if not warmup:
        return after
    rise = optax.linear_schedule(0.0, learning_rate, warmup)
    return optax.join_schedules([rise, after], [warmup])


def adam(
    learning_rate: optax.Schedule, *, weight_decay: float = 0.0
) -> optax.GradientTransformation:
    """Makes Adam with decoupled weight decay on kernels (not on biases and normalisation).

    Raises:
      ValueError: for a negative weight decay.
    """
    if not weight_decay >= 0:
        raise ValueError(f"`weight_decay`={weight_decay}: must be 0 or more")

    def kernels(params: PyTree) -> PyTree:
        return jax.tree.map(lambda x: x.ndim > 1, params)

    inner = optax.adamw(learning_rate, weight_decay=weight_decay, mask=kernels)

    def update(updates: PyTree, state: PyTree, params: PyTree = None) -> tuple[PyTree, PyTree]:
        # Adam's bias correction raises a float to an integer array, which fails where a program
        # has set strict promotion.
        with jax.numpy_dtype_promotion("standard"):
            return inner.update(updates, state, params)

    return optax.GradientTransformation(inner.init, update)
