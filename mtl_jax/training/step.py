"""One training step, from a batch of images to the next state, all on the device."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from mtl_jax import data, models, parallel
from mtl_jax.models import pretrained as weights_file
from mtl_jax.tasks import Batch
from mtl_jax.training import accumulation, average, passes
from mtl_jax.training.sums import Sums, add_to_sums, zero_sums
from mtl_jax.weighting import Signals, TaskWeights, Weighting
from mtl_jax.weighting.contract import PyTree
from mtl_jax.weighting.gradients import Pullback, all_finite, combine, gram, scale

# A run is aborted after this many consecutive steps with gradients that are not finite.
MAX_SKIPPED = 10
# The gradients whose inner products make the Gram matrix, see `make_steps`.
GRADIENTS = ("parameters", "recomputed", "features")


class Recipe(NamedTuple):
    """What a training step is made of.

    Attributes:
      network: the network and its tasks, built with `axis_name=parallel.AXIS`.
      weighting: weighting of the tasks.
      optimizer: optimizer of the network's parameters.
      average: decay of the average of the weights, see `average`; None to keep no average.
    """

    network: models.Network
    weighting: Weighting
    optimizer: optax.GradientTransformation
    average: float | None = None


class TrainState(NamedTuple):
    """Everything that training changes; a checkpoint holds just this.

    Attributes:
      step: i32[], steps taken, skipped ones included.
      seed: i32[], seed of the augmentation and of random weightings. It is part of the state
        because a constant seed would force a new compilation for every seed.
      variables: variables of the network.
      optimizer: state of the optax transformation; an `average.Averaged` of it where the recipe
        asks for an average.
      weighting: state of the task weighting.
      skipped: i32[], consecutive steps skipped up to now because a gradient was not finite.
      sums: sums over the epoch so far, see `sums.epoch_row`.
    """

    step: jax.Array
    seed: jax.Array
    variables: models.Variables
    optimizer: PyTree
    weighting: PyTree
    skipped: jax.Array
    sums: Sums


def evaluated(state: TrainState) -> models.Variables:
    """Returns the variables to evaluate and use, the average where the run keeps one."""
    kept = state.optimizer
    return kept.average if isinstance(kept, average.Averaged) else state.variables


# (state, sharded batch) -> (state, values to display), as `train_step` returns them.
StepFunction = jax.stages.Wrapped


class Steps(NamedTuple):
    """The compiled training steps.

    They are two functions because convolutions inside `lax.cond` are ten times as slow on CPU.

    Attributes:
      update: finds new weights.
      reuse: takes the last weights, for one backward pass of the trunk; the same function for a
        weighting that needs the losses alone.
      weigh_every: steps from one update to the next.
    """

    update: StepFunction
    reuse: StepFunction
    weigh_every: int = 1

    def at(self, step: int) -> StepFunction:
        """Returns the function that takes the step of this number."""
        return self.update if step % self.weigh_every == 0 else self.reuse


def init_state(
    recipe: Recipe,
    *,
    seed: int,
    image_size: tuple[int, int],
    pretrained: Mapping[str, np.ndarray] | None = None,
) -> TrainState:
    """Makes the state before the first step.

    Args:
      seed: seed of the initialisation, the augmentation and random weightings.
      image_size: height and width.
      pretrained: tensors by PyTorch's names to start from, see `models.pretrained.put_into`.

    Raises:
      ValueError: for images of a size that the network does not accept, for tensors that do not
        fit, or if the weighting refuses that number of tasks.
    """
    network = recipe.network
    variables = models.init(network, jax.random.key(seed), image_size)
    if pretrained is not None:
        variables = weights_file.put_into(variables, pretrained).variables
    # Copied: a method may put one array twice into its state, and buffers are donated only once.
    shared = jax.eval_shape(lambda: variables.params["trunk"])
    weighting_state = jax.tree.map(jnp.copy, recipe.weighting.init(len(network.tasks), shared))
    # As one program: compiling each of its zeros alone takes longer than a step.
    optimizer = jax.jit(recipe.optimizer.init)(variables.params)
    if recipe.average is not None:
        optimizer = average.start(optimizer, variables)
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        seed=jnp.array(seed, jnp.int32),
        variables=variables,
        optimizer=optimizer,
        weighting=weighting_state,
        skipped=jnp.zeros((), jnp.int32),
        sums=zero_sums(network.tasks, recipe.weighting, weighting_state),
    )


def check_options(
    recipe: Recipe,
    *,
    image_size: tuple[int, int],
    batch_size: int,
    devices: Sequence[jax.Device],
    gradients: str = "parameters",
    labelled_per_batch: int | None = None,
    accumulate: int = 1,
) -> None:
    """Checks that batches suffice for the network and the weighting; needs no data.

    Args:
      image_size: height and width.
      batch_size: images per step, over all devices.
      gradients: see `make_steps`.
      labelled_per_batch: images of each batch that show their withheld labels, see
        `data.labelled_images`; None where all do.
      accumulate: see `make_steps`.

    Raises:
      ValueError: for unknown `gradients`, or for "recomputed" with `accumulate` above 1; if each
        device's share of a batch can't be divided in three for a weighting with `needs_cross`, or
        in `accumulate` parts; if a third would have no labels; if a weighting needs the trunk's
        gradients themselves and does not get them; if the passes have too few images for their
        batch statistics, see `models.fewest_images`.
    """
    weighting = recipe.weighting
    if gradients not in GRADIENTS:
        raise ValueError(f"`gradients`={gradients}: unknown, choose from {', '.join(GRADIENTS)}")
    if gradients != "parameters" and (weighting.needs_cross or weighting.combine is not None):
        raise ValueError(
            f"`gradients`={gradients}: this weighting needs the gradients themselves, not only "
            "their inner products; leave it out or choose another `weighting`"
        )
    if gradients == "recomputed" and accumulate > 1:
        raise ValueError(
            f"`gradients`=recomputed: with `accumulate`={accumulate} the gradients must be kept "
            "until all parts are added up; leave out one of the two"
        )
    thirds = 3 if weighting.needs_cross else 1
    if thirds > 1 and batch_size % (thirds * len(devices)):
        raise ValueError(
            f"`batch_size`={batch_size}: this weighting compares three equal parts of every batch; "
            f"set a multiple of {3 * len(devices)} (3 x {len(devices)} devices)"
        )
    share = batch_size // (thirds * len(devices))
    if accumulate < 1 or (accumulate > 1 and share % accumulate):
        whose = "a third of a device's images" if thirds > 1 else "the images of a device"
        raise ValueError(
            f"`accumulate`={accumulate}: it must divide {whose}, {share} with "
            f"`batch_size`={batch_size}"
        )
    if weighting.needs_cross and labelled_per_batch is not None and labelled_per_batch < 3:
        raise ValueError(
            f"`labelled_per_batch`={labelled_per_batch}: this weighting compares three parts of "
            "every batch, and each needs an image with labels; with `label_fraction` below 1 set "
            "at least 3 (0 takes half of `batch_size`)"
        )
    passes_per_step = thirds * accumulate
    images = batch_size // passes_per_step
    fewest = models.fewest_images(recipe.network, image_size)
    if images < fewest:
        unit = passes_per_step * len(devices)
        raise ValueError(
            f"`batch_size`={batch_size}: this network normalises over the images of a pass, and "
            f"with {images} per pass it would learn nothing; set at least "
            f"{unit * -(-passes_per_step * fewest // unit)}"
            + (" (three passes per step with this `weighting`)" if thirds > 1 else "")
            + (f" (with `accumulate`={accumulate})" if accumulate > 1 else "")
            + ", or the option norm=group of `model`"
        )


def make_steps(
    recipe: Recipe,
    *,
    image_size: tuple[int, int],
    batch_size: int,
    devices: Sequence[jax.Device],
    gradients: str = "parameters",
    augment: data.Augment | None = data.augment,
    labelled_per_batch: int | None = None,
    weigh_every: int = 1,
    accumulate: int = 1,
) -> Steps:
    """Compiles `train_step` for the devices; the compiled functions take over the state's memory.

    Args:
      image_size: height and width.
      batch_size: images per step, over all devices.
      devices: devices to run on.
      gradients: "parameters", the trunk's gradients; "recomputed", the same, of which only the
        inner products are kept, so that the weighted sum takes one more backward pass of the trunk
        and the K gradients less memory; or "features", the gradients at the trunk's output: an
        approximation of their directions (Sener and Koltun, 2018, bound one by the other) that
        costs one backward pass of the trunk for any K. A `max_norm` of the weighting then bounds
        the combined gradient at the output, over the whole batch, not that of the parameters.
      augment: changes the batch of each step at random, such as `data.augment`, or None.
      labelled_per_batch: see `check_options`.
      weigh_every: steps from one update of the weights to the next, for a weighting that needs
        gradients.
      accumulate: number of equal parts of a batch that pass through the network one after the
        other, which saves memory; see `accumulation`.

    Raises:
      ValueError: see `check_options`; for a `weigh_every` below 1.
    """
    check_options(
        recipe,
        image_size=image_size,
        batch_size=batch_size,
        devices=devices,
        gradients=gradients,
        labelled_per_batch=labelled_per_batch,
        accumulate=accumulate,
    )
    if weigh_every < 1:
        raise ValueError(f"`weigh_every`={weigh_every}: must be at least 1")
    how: dict[str, Any] = {
        "recipe": recipe,
        "augment": augment,
        "accumulate": accumulate,
    }

    def compiled(gradients: str | None) -> StepFunction:
        step = partial(train_step, gradients=gradients, **how)
        return parallel.data_parallel(step, devices, donate=True)

    reuse = compiled(None)
    update = reuse if recipe.weighting.needs == "losses" else compiled(gradients)
    return Steps(update, reuse, weigh_every)


def train_step(
    state: TrainState,
    batch: Batch,
    *,
    recipe: Recipe,
    gradients: str | None,
    augment: data.Augment | None = None,
    accumulate: int = 1,
) -> tuple[TrainState, dict[str, jax.Array]]:
    """Takes one training step; a pure function that its caller compiles.

    It reduces over the mapped axis `parallel.AXIS`: bind the keyword arguments by
    `functools.partial` and map it over the devices by `parallel.data_parallel`, as `make_steps`
    does, or call it through `parallel.one_device`.

    Args:
      state: state before the step.
      batch: this device's part, in stored types.
      gradients: the gradients whose inner products the weighting gets, one of `GRADIENTS`, see
        `make_steps`; None for a weighting that reuses its last weights or needs the losses alone.
      augment: changes the batch of each step at random, such as `data.augment`, or None.
      accumulate: see `make_steps`.

    Returns:
      The state after the step, the same on all devices. A step whose gradient is not finite is
      skipped: it changes nothing but `step`, `skipped` and `sums`. Also a dictionary for display:
      `losses` f32[K], `weights` f32[K] of the trunk, `skipped` i32[].
    """
    batch = data.decode(batch, recipe.network.tasks)
    if augment is not None:
        key = jax.random.fold_in(jax.random.key(state.seed), state.step)
        keys = parallel.per_image_keys(key, batch["image"].shape[0])
        batch = augment(keys, batch, recipe.network.tasks)
    tasks, weighting = recipe.network.tasks, recipe.weighting
    observed = observe(recipe, state, batch, gradients=gradients, accumulate=accumulate)
    combined, weights, weighting_state, diagnostics = weigh(weighting, observed, state.weighting)
    trunk, backward = combined
    heads = {
        task.name: scale(backward.gradients[task.name], weights.heads[i])
        for i, task in enumerate(tasks)
    }
    new = state._replace(
        variables=state.variables._replace(batch_stats=backward.batch_stats),
        weighting=weighting_state,
        sums=add_to_sums(state.sums, tasks, backward, weights.shared, diagnostics),
    )
    state = take_or_skip(recipe, state, new, {"trunk": trunk, "heads": heads})
    state = follow_up(recipe, state, observed.signals, batch, accumulate=accumulate)
    shown = {"losses": backward.losses, "weights": weights.shared, "skipped": state.skipped}
    return state, shown


# The trunk's combined gradient over all devices, and the results of the heads' backward passes.
Combined = tuple[PyTree, passes.Backward]


class Observed(NamedTuple):
    """What a step computes before it weighs the tasks.

    Attributes:
      signals: the input of the weighting.
      backward: results of the heads' backward passes.
      task_gradients: the K gradients of the trunk over all devices, leaves [K, ...]; None if they
        are not kept.
      weighted_gradient: weights f32[K] of the trunk -> the gradient that they give.
    """

    signals: Signals
    backward: passes.Backward
    task_gradients: PyTree | None
    weighted_gradient: Callable[[jax.Array], Combined]


def observe(
    recipe: Recipe, state: TrainState, batch: Batch, *, gradients: str | None, accumulate: int = 1
) -> Observed:
    """Runs all forward and backward passes that the weighting needs.

    Args:
      state: state before the step.
      batch: augmented, of this device. For a weighting with `needs_cross` two thirds of it go into
        `Signals.cross`, and the last third alone is passed on.
      gradients: see `train_step`.
      accumulate: see `make_steps`.
    """
    network, variables = recipe.network, state.variables
    crossed = gradients is not None and recipe.weighting.needs_cross
    cross = others = task_gradients = products = None
    if crossed:
        first, second, batch = passes.thirds(batch)
        cross, others, variables = accumulation.cross_gram(
            network, variables, first, second, accumulate
        )
    if gradients == "parameters":
        backward, task_gradients = accumulation.trunk_gradients(
            network, variables, batch, accumulate
        )
        # The Gram matrix is made of the gradients summed over devices: the weights are not linear
        # in it, so an average of the devices' matrices would give different ones.
        products = gram(task_gradients)
        weighted_gradient = partial(_from_gradients, task_gradients, backward)
    elif accumulate == 1:
        pullback, backward = passes.differentiate(network, variables, batch)
        if gradients == "features":
            products = passes.feature_gram(backward)
        elif gradients == "recomputed":
            products = gram(passes.trunk_gradients(pullback, backward))
        weighted_gradient = partial(_from_pullback, pullback, backward)
    else:
        inputs = (network, variables, batch, accumulate)
        backward, products = accumulation.head_results(*inputs, at_features=gradients == "features")
        weighted_gradient = partial(accumulation.weighted_gradient, *inputs, backward.counts)
    key = jax.random.fold_in(jax.random.key(state.seed + 1), state.step)
    signals = Signals(
        losses=backward.losses,
        gram=products,
        step=state.step,
        key=key,
        labelled=backward.labelled if others is None else backward.labelled & others,
        cross=cross,
    )
    return Observed(signals, backward, task_gradients, weighted_gradient)


def _from_gradients(gradients: PyTree, backward: passes.Backward, weights: jax.Array) -> Combined:
    return combine(gradients, weights), backward


def _from_pullback(pullback: Pullback, backward: passes.Backward, weights: jax.Array) -> Combined:
    (own,) = pullback(combine(backward.cotangents, weights))
    return parallel.total(own), backward


def weigh(
    weighting: Weighting, observed: Observed, state: PyTree
) -> tuple[Combined, TaskWeights, PyTree, dict[str, jax.Array]]:
    """Weighs the tasks and combines their gradients of the trunk.

    Without the K gradients, it makes one backward pass of the weighted sum.

    Args:
      state: state of the weighting.

    Returns:
      The gradient over all devices with the heads' results, the weights, the weighting's new state
      and diagnostics.
    """
    signals, gradients = observed.signals, observed.task_gradients
    if gradients is not None and weighting.combine is not None:
        gradient, weights, state, diagnostics = weighting.combine(gradients, signals, state)
        return (gradient, observed.backward), weights, state, diagnostics
    weights, state, diagnostics = weighting.update(signals, state)
    return observed.weighted_gradient(weights.shared), weights, state, diagnostics


def take_or_skip(
    recipe: Recipe, state: TrainState, new: TrainState, gradient: PyTree
) -> TrainState:
    """Returns the state after a step, or the one before it if the gradient is not finite.

    Args:
      state: state before the step.
      new: state after it, except for what the optimizer changes.
      gradient: gradient of the parameters, over all devices.
    """

    def take() -> TrainState:
        kept = state.optimizer
        inner = kept if recipe.average is None else kept.inner
        updates, inner = recipe.optimizer.update(gradient, inner, state.variables.params)
        params: PyTree = optax.apply_updates(state.variables.params, updates)
        variables = new.variables._replace(params=params)
        if recipe.average is not None:
            inner = average.follow(kept, inner, variables, decay=recipe.average)
        return new._replace(
            step=state.step + 1,
            variables=variables,
            optimizer=inner,
            skipped=jnp.zeros_like(state.skipped),
        )

    def skip() -> TrainState:
        sums = {**state.sums, "skipped": state.sums["skipped"] + 1.0}
        return state._replace(step=state.step + 1, skipped=state.skipped + 1, sums=sums)

    finite = all_finite((gradient, new.sums))
    # Nothing in the branches is slow under lax.cond, and choosing between finished states entry
    # by entry takes XLA four times as long to compile.
    return jax.lax.cond(finite, take, skip)


def follow_up(
    recipe: Recipe, state: TrainState, signals: Signals, batch: Batch, *, accumulate: int
) -> TrainState:
    """Passes the losses after the step to a weighting with `follow_up`.

    It costs a forward pass, which leaves the running statistics alone. After a skipped step the
    state of the weighting stays as it is.
    """
    if recipe.weighting.follow_up is None:
        return state
    losses = accumulation.forward_losses(recipe.network, state.variables, batch, accumulate)
    followed = recipe.weighting.follow_up(losses, signals, state.weighting)
    taken = state.skipped == 0
    kept = jax.tree.map(lambda new, old: jnp.where(taken, new, old), followed, state.weighting)
    return state._replace(weighting=kept)
