"""One training step: a batch's way from images to the next state, all on the device."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from mtl_jax import data, models, parallel
from mtl_jax.data import augmentation
from mtl_jax.tasks import Batch, Task
from mtl_jax.training import passes
from mtl_jax.weighting import Signals, TaskWeights, Weighting, gradients

# Steps with non-finite gradients in a row after which a run is given up.
MAX_SKIPPED = 10
# Whose inner products the Gram matrix is made of, see `make_train_step`.
GRAM_OF = ("parameters", "features")


class TrainState(NamedTuple):
    """Everything that training changes; a checkpoint holds just this.

    Attributes:
      step: i32[], steps taken, skipped ones included.
      seed: i32[], of the augmentation and of weightings that draw. Here, because a number written
        into the compiled step would make it another program for every seed.
      variables: of the network.
      optimizer: state of the optax transformation.
      weighting: state of the task weighting.
      skipped: i32[], steps just skipped in a row because a gradient was not finite.
      sums: of the epoch so far, scalars f32[] by name; see `results.epoch_row`.
    """

    step: jax.Array
    seed: jax.Array
    variables: models.Variables
    optimizer: Any
    weighting: Any
    skipped: jax.Array
    sums: dict[str, jax.Array]


StepFunction = Callable[[TrainState, Any], tuple[TrainState, dict[str, jax.Array]]]


def check_options(
    network: models.Network,
    weighting: Weighting,
    *,
    image_size: tuple[int, int],
    batch_size: int,
    devices: Sequence[jax.Device],
    gram_of: str,
    labelled: int | None = None,
) -> None:
    """Makes sure that batches suffice for the network and the weighting; needs no data.

    Args:
      network: to train.
      weighting: of its tasks.
      image_size: height and width.
      batch_size: images per step, over all devices.
      devices: on which to run.
      gram_of: see `make_train_step`.
      labelled: images of each batch that show their segmentation, see `data.labelled_images`; None
        where all do.

    Raises:
      ValueError: for an unknown `gram_of`; if a weighting with `needs_cross` can't divide each
        device's part of a batch in three, or would get a third without labels; if a weighting
        needs the trunk's gradients themselves and is not given them; if the passes have too few
        images for their batch statistics, see `models.fewest_images`.
    """
    if gram_of not in GRAM_OF:
        raise ValueError(f"--gradients={gram_of}: unknown, choose from {', '.join(GRAM_OF)}")
    if gram_of != "parameters" and (weighting.needs_cross or weighting.combine is not None):
        raise ValueError(
            f"--gradients={gram_of}: this weighting needs the gradients themselves, not only their "
            "inner products; leave the flag out or choose another --weighting"
        )
    if weighting.needs_cross and batch_size % (3 * len(devices)):
        raise ValueError(
            f"--batch_size={batch_size}: this weighting compares three equal parts of every batch; "
            f"set a multiple of {3 * len(devices)} (3 x {len(devices)} devices)"
        )
    if weighting.needs_cross and labelled is not None and labelled < 3:
        raise ValueError(
            f"--labelled_per_batch={labelled}: this weighting compares three parts of every batch, "
            "and each needs an image with labels; with --label_fraction below 1 set at least 3 "
            "(0 takes half of --batch_size)"
        )
    parts = 3 if weighting.needs_cross else 1
    images = batch_size // parts
    fewest = models.fewest_images(network, image_size)
    if images < fewest:
        unit = parts * len(devices)
        raise ValueError(
            f"--batch_size={batch_size}: this network normalises over the images of a pass, and "
            f"with {images} per pass it would learn nothing; set at least "
            f"{unit * -(-parts * fewest // unit)}"
            + (" (three passes per step with this --weighting)" if parts > 1 else "")
        )


def make_train_step(
    network: models.Network,
    tasks: Sequence[Task],
    weighting: Weighting,
    optimizer: optax.GradientTransformation,
    *,
    image_size: tuple[int, int],
    batch_size: int,
    devices: Sequence[jax.Device],
    augment: bool = True,
    jitter: float = 0.0,
    gram_of: str = "parameters",
    labelled: int | None = None,
) -> dict[bool, StepFunction]:
    """The compiled steps (state, sharded batch) -> (state, losses and weights of the step).

    The entry True computes all K gradients of the trunk where the weighting needs their Gram
    matrix; the entry False reuses the weighting's last weights and costs one backward pass. They
    are two functions because convolutions inside `lax.cond` are ten times as slow on CPU.

    Args:
      network: built with `axis_name=parallel.AXIS`.
      tasks: in the order of the weighting's K.
      weighting: how to weigh them.
      optimizer: over the network's parameters.
      image_size: height and width.
      batch_size: images per step, over all devices.
      devices: on which to run.
      augment: whether to flip, scale and crop.
      jitter: strength of the colour jitter, 0..1.
      gram_of: "parameters", the trunk's gradients, or "features", the gradients at its output: an
        approximation of their directions (Sener and Koltun, 2018, bound one by the other) that
        costs one backward pass of the trunk for any K. A `max_norm` of the weighting then bounds
        the combined gradient at the output, over the whole batch, not that of the parameters.
      labelled: see `check_options`.

    Raises:
      ValueError: see `check_options`.
    """
    check_options(
        network, weighting, image_size=image_size, batch_size=batch_size, devices=devices,
        gram_of=gram_of, labelled=labelled,
    )  # fmt: skip

    def train_step(state: TrainState, batch: Any, *, every_gradient: bool) -> Any:
        batch = data.decode(batch)
        if augment:
            key = jax.random.fold_in(jax.random.key(state.seed), state.step)
            keys = parallel.per_image_keys(key, batch["image"].shape[0])
            batch = augmentation.augment(keys, batch, jitter=jitter)
        crossed = every_gradient and weighting.needs_cross
        pullback, backward, signals = observe(network, tasks, state, batch, crossed=crossed)
        balance = weighted_gradient
        if every_gradient and gram_of == "features":
            signals = signals._replace(gram=passes.feature_gram(backward))
        elif every_gradient:
            balance = balanced_gradient
        trunk, weights, weighting_state, diagnostics = balance(
            pullback, backward, weighting, signals, state.weighting
        )
        heads = {
            task.name: gradients.scale(backward.gradients[task.name], weights.heads[i])
            for i, task in enumerate(tasks)
        }
        sums = add_to_sums(state.sums, tasks, backward, weights.shared, diagnostics)
        new = state._replace(
            variables=state.variables._replace(batch_stats=backward.batch_stats),
            weighting=weighting_state,
            sums=sums,
        )
        state = take_or_skip(optimizer, state, new, {"trunk": trunk, "heads": heads})
        if weighting.follow_up is not None:
            state = follow_up(network, tasks, weighting, state, signals, batch)
        shown = {
            "losses": backward.losses,
            "weights": weights.shared,
            "skipped": state.skipped,
        }
        return state, shown

    def compiled(*, every_gradient: bool) -> StepFunction:
        step = partial(train_step, every_gradient=every_gradient)
        return parallel.data_parallel(step, devices, donate=True)

    cheap = compiled(every_gradient=False)
    needs_gradients = weighting.needs != "losses"
    return {False: cheap, True: compiled(every_gradient=True) if needs_gradients else cheap}


def observe(
    network: models.Network,
    tasks: Sequence[Task],
    state: TrainState,
    batch: Batch,
    *,
    crossed: bool,
) -> tuple[gradients.Pullback, passes.Backward, Signals]:
    """All passes but those of the trunk's weighted gradient, and what they tell the weighting.

    Args:
      network: to pass through.
      tasks: its heads.
      state: before the step.
      batch: augmented, of this device.
      crossed: whether two thirds of the batch go into `Signals.cross` and the last one alone is
        passed on.
    """
    variables, cross = state.variables, None
    if crossed:
        first, second, batch = passes.thirds(batch)
        cross, labelled, variables = passes.cross_gram(network, tasks, variables, first, second)
    pullback, backward = passes.differentiate(network, tasks, variables, batch)
    signals = Signals(
        losses=backward.losses,
        gram=None,
        step=state.step,
        key=jax.random.fold_in(jax.random.key(state.seed + 1), state.step),
        labelled=backward.labelled & labelled if crossed else backward.labelled,
        cross=cross,
    )
    return pullback, backward, signals


def take_or_skip(
    optimizer: optax.GradientTransformation, state: TrainState, new: TrainState, gradient: Any
) -> TrainState:
    """The state after a step, or the one before it if the gradient is not finite.

    Args:
      optimizer: over the parameters.
      state: before the step.
      new: after it in all that the optimizer does not touch.
      gradient: of the parameters, over all devices.
    """

    def take() -> TrainState:
        params = state.variables.params
        updates, optimizer_state = optimizer.update(gradient, state.optimizer, params)
        params = optax.apply_updates(params, updates)
        return new._replace(
            step=state.step + 1,
            variables=new.variables._replace(params=params),
            optimizer=optimizer_state,
            skipped=jnp.zeros_like(state.skipped),
        )

    def skip() -> TrainState:
        sums = {**state.sums, "skipped": state.sums["skipped"] + 1.0}
        return state._replace(step=state.step + 1, skipped=state.skipped + 1, sums=sums)

    finite = gradients.all_finite((gradient, new.sums))
    # Nothing in the branches is slow under lax.cond, and choosing between finished states entry
    # by entry takes XLA four times as long to compile.
    return jax.lax.cond(finite, take, skip)


def follow_up(
    network: models.Network,
    tasks: Sequence[Task],
    weighting: Weighting,
    state: TrainState,
    signals: Signals,
    batch: Batch,
) -> TrainState:
    """The state once the weighting has seen what the step did to the losses of its batch.

    It costs a forward pass, which leaves the running statistics alone; a skipped step did nothing.
    """
    losses = passes.forward_losses(network, tasks, state.variables, batch)
    followed = weighting.follow_up(losses, signals, state.weighting)
    taken = state.skipped == 0
    kept = jax.tree.map(lambda new, old: jnp.where(taken, new, old), followed, state.weighting)
    return state._replace(weighting=kept)


def balanced_gradient(
    pullback: gradients.Pullback,
    backward: passes.Backward,
    weighting: Weighting,
    signals: Signals,
    state: Any,
) -> tuple[Any, TaskWeights, Any, dict[str, jax.Array]]:
    """The trunk's gradient where the weights depend on all K gradients: K backward passes.

    Args:
      pullback: of the trunk on this device's images.
      backward: of the heads on this device.
      weighting: of the tasks.
      signals: all but the Gram matrix.
      state: of the weighting.

    Returns:
      The gradient over all devices, the weights, the weighting's new state and diagnostics.
    """
    each = passes.trunk_gradients(pullback, backward)
    # The Gram matrix is made of the gradients summed over devices: the weights are not linear in
    # it, so that an average of the devices' matrices would give other ones.
    signals = signals._replace(gram=gradients.gram(each))
    if weighting.combine is not None:
        return weighting.combine(each, signals, state)
    weights, state, diagnostics = weighting.update(signals, state)
    return gradients.combine(each, weights.shared), weights, state, diagnostics


def weighted_gradient(
    pullback: gradients.Pullback,
    backward: passes.Backward,
    weighting: Weighting,
    signals: Signals,
    state: Any,
) -> tuple[Any, TaskWeights, Any, dict[str, jax.Array]]:
    """As `balanced_gradient` where nothing depends on all K gradients: one backward pass."""
    weights, state, diagnostics = weighting.update(signals, state)
    (gradient,) = pullback(gradients.combine(backward.cotangents, weights.shared))
    return parallel.total(gradient), weights, state, diagnostics


def init_state(
    network: models.Network,
    tasks: Sequence[Task],
    weighting: Weighting,
    optimizer: optax.GradientTransformation,
    *,
    seed: int,
    image_size: tuple[int, int],
) -> TrainState:
    """The state before the first step."""
    variables = models.init(network, jax.random.key(seed), image_size)
    # Copied: a method may put one array twice into its state, and buffers are donated only once.
    shared = jax.eval_shape(lambda: variables.params["trunk"])
    weighting_state = jax.tree.map(jnp.copy, weighting.init(len(tasks), shared))
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        seed=jnp.array(seed, jnp.int32),
        variables=variables,
        optimizer=optimizer.init(variables.params),
        weighting=weighting_state,
        skipped=jnp.zeros((), jnp.int32),
        sums=zero_sums(tasks, weighting, weighting_state),
    )


def zero_sums(
    tasks: Sequence[Task], weighting: Weighting, weighting_state: Any
) -> dict[str, jax.Array]:
    """The sums at the start of an epoch: one zero for all that a step reports."""
    count = len(tasks)
    signals = Signals(
        losses=jnp.ones(count),
        gram=None,  # between two updates: the diagnostics are the same ones
        step=jnp.zeros((), jnp.int32),
        key=jax.random.key(0),
        labelled=jnp.ones(count, bool),
    )
    _, _, diagnostics = jax.eval_shape(weighting.update, signals, weighting_state)
    names = name_diagnostics(
        tasks, jax.tree.map(lambda x: jnp.zeros(x.shape, jnp.float32), diagnostics)
    )
    fields = [f"{kind}/{task.name}" for kind in ("loss", "labelled", "weight") for task in tasks]
    return {name: jnp.zeros(()) for name in ("steps", "skipped", *fields, *names)}


def add_to_sums(
    sums: dict[str, jax.Array],
    tasks: Sequence[Task],
    backward: passes.Backward,
    weights: jax.Array,
    diagnostics: dict[str, jax.Array],
) -> dict[str, jax.Array]:
    """The epoch's sums with one step more."""
    step = {"steps": jnp.ones(()), "skipped": jnp.zeros(())}
    for i, task in enumerate(tasks):
        step[f"loss/{task.name}"] = backward.losses[i]
        step[f"labelled/{task.name}"] = backward.labelled[i]
        step[f"weight/{task.name}"] = weights[i]
    step |= name_diagnostics(tasks, diagnostics)
    return {name: sums[name] + step[name].astype(jnp.float32) for name in sums}


def name_diagnostics(
    tasks: Sequence[Task], diagnostics: dict[str, jax.Array]
) -> dict[str, jax.Array]:
    """Diagnostics as scalars: `diagnostic/x`, or `.../task`, or `.../task-task` of a matrix."""
    named = {}
    for key, value in diagnostics.items():
        if value.ndim == 0:
            named[f"diagnostic/{key}"] = value
        for i, task in enumerate(tasks):
            if value.ndim == 1:
                named[f"diagnostic/{key}/{task.name}"] = value[i]
            if value.ndim == 2:
                for j in range(i + 1, len(tasks)):
                    named[f"diagnostic/{key}/{task.name}-{tasks[j].name}"] = value[i, j]
    return named
