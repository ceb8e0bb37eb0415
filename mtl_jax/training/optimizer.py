"""Optimizers and their learning-rate schedules."""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from mtl_jax import models
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
    if not (warmup_epochs >= 0 and warmup < steps):
        raise ValueError(
            f"`warmup_epochs`={warmup_epochs}: must be 0 or more, and less than the run's `epochs`"
        )
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


def adamw(
    *,
    weight_decay: float = 0.01,
    clip: float = math.inf,
    encoder_rate: float = 1.0,
    learning_rate: float,
    schedule: optax.Schedule,
) -> optax.GradientTransformation:
    """Makes AdamW: Adam with decoupled weight decay on kernels (not on biases and normalisation).

    Raises:
      ValueError: for a value out of its range.
    """
    _check(weight_decay=weight_decay, clip=clip, learning_rate=learning_rate)
    inner = optax.adamw(schedule, weight_decay=weight_decay, mask=_kernels)
    return _completed(inner, clip, encoder_rate)


def adam(
    *,
    clip: float = math.inf,
    encoder_rate: float = 1.0,
    learning_rate: float,
    schedule: optax.Schedule,
) -> optax.GradientTransformation:
    """Makes Adam, which is AdamW without weight decay."""
    return adamw(
        weight_decay=0.0,
        clip=clip,
        encoder_rate=encoder_rate,
        learning_rate=learning_rate,
        schedule=schedule,
    )


def sgd(
    *,
    momentum: float = 0.9,
    nesterov: bool = False,
    weight_decay: float = 0.0,
    clip: float = math.inf,
    encoder_rate: float = 1.0,
    learning_rate: float,
    schedule: optax.Schedule,
) -> optax.GradientTransformation:
    """Makes stochastic gradient descent with momentum.

    As in PyTorch, weight decay is added to the gradient before the momentum; unlike there, only to
    the gradients of kernels.

    Raises:
      ValueError: for a value out of its range.
    """
    _check(weight_decay=weight_decay, clip=clip, learning_rate=learning_rate)
    if not 0 <= momentum < 1:
        raise ValueError("momentum must be 0 or more, and less than 1")
    if nesterov and not momentum:
        raise ValueError("nesterov needs a momentum above 0")
    inner = optax.chain(
        optax.add_decayed_weights(weight_decay, mask=_kernels),
        optax.sgd(schedule, momentum=momentum, nesterov=nesterov),
    )
    return _completed(inner, clip, encoder_rate)


OPTIMIZERS = {"adam": adam, "adamw": adamw, "sgd": sgd}


def parse_optimizer(optimizer: str) -> options.Choice:
    """Returns the factory of `OPTIMIZERS` and its options that a text such as "adam" stands for.

    Raises:
      ValueError: for an unknown name or option.
    """
    try:
        return options.parse(optimizer, OPTIMIZERS, context=("learning_rate", "schedule"))
    except ValueError as error:
        raise ValueError(f"`optimizer`: {error}") from error


def make_optimizer(
    optimizer: str,
    *,
    learning_rate: float,
    schedule: optax.Schedule | None = None,
    frozen: Callable[[PyTree], PyTree] | None = None,
) -> optax.GradientTransformation:
    """Makes the optimizer that a text stands for.

    Args:
      optimizer: a key of `OPTIMIZERS` with options, such as `adamw:weight_decay=0.01`. Each of them
        has the options `clip`, the largest norm of the gradient of all parameters together: a
        longer one is scaled down to it; and `encoder_rate`, the encoder's learning rate as a factor
        of the others', which scales its weight decay, too.
      learning_rate: peak learning rate, by which the options are checked.
      schedule: learning rate of each step; None for a constant one.
      frozen: params -> bool for each, whether it stays as it is; None if all are trained.

    Raises:
      ValueError: for an unknown name or option, or a value out of its range.
    """
    choice = parse_optimizer(optimizer)
    schedule = schedule or optax.constant_schedule(learning_rate)
    try:
        made = choice.factory(**choice.options, learning_rate=learning_rate, schedule=schedule)
    except ValueError as error:
        raise ValueError(f"`optimizer`={optimizer}: {error}") from error
    # Weight decay changes parameters without a gradient, too.
    return optax.chain(made, optax.masked(optax.set_to_zero(), frozen)) if frozen else made


class Scaled(NamedTuple):
    """The state of `scaled`: that of the optimizer, and its learning rate f32[]."""

    inner: PyTree
    learning_rate: jax.Array


def scaled(
    unit: optax.GradientTransformation, learning_rate: float
) -> optax.GradientTransformation:
    """Makes an optimizer whose learning rate is a part of its state.

    Runs that differ in the rate alone then share their compiled program.

    Args:
      unit: the optimizer for a peak learning rate of 1.
    """

    def init(params: PyTree) -> Scaled:
        return Scaled(unit.init(params), jnp.asarray(learning_rate, jnp.float32))

    def update(updates: PyTree, state: PyTree, params: PyTree = None) -> tuple[PyTree, PyTree]:
        updates, inner = unit.update(updates, state.inner, params)
        updates = jax.tree.map(lambda x: state.learning_rate * x, updates)
        return updates, state._replace(inner=inner)

    return optax.GradientTransformation(init, update)


def _check(*, weight_decay: float, clip: float, learning_rate: float) -> None:
    if not weight_decay >= 0:
        raise ValueError("weight_decay must be 0 or more")
    if not weight_decay * learning_rate < 1:
        raise ValueError(
            "weight_decay must be less than 1 / `learning_rate`: a step multiplies every weight by "
            "1 - `learning_rate` * weight_decay"
        )
    if not clip > 0:
        raise ValueError("clip must be positive; inf for no limit")


def _kernels(params: PyTree) -> PyTree:
    return jax.tree.map(lambda x: x.ndim > 1, params)


def _completed(
    inner: optax.GradientTransformation, clip: float, encoder_rate: float
) -> optax.GradientTransformation:
    """Returns an optimizer with the options that all have; see `make_optimizer`.

    Raises:
      ValueError: for an `encoder_rate` out of its range.
    """
    if not 0 <= encoder_rate < math.inf:
        raise ValueError("encoder_rate must be a number that is 0 or more")
    if math.isfinite(clip):
        inner = optax.chain(optax.clip_by_global_norm(clip), inner)
    if encoder_rate != 1:
        inner = optax.chain(inner, optax.masked(optax.scale(encoder_rate), models.in_encoder))

    def update(updates: PyTree, state: PyTree, params: PyTree = None) -> tuple[PyTree, PyTree]:
        # Adam's bias correction raises a float to the power of an integer array, which strict dtype
        # promotion forbids.
        with jax.numpy_dtype_promotion("standard"):
            return inner.update(updates, state, params)

    return optax.GradientTransformation(inner.init, update)
