"""Builds the parts of a run from its settings.

Below the commands, everything takes its arguments by name: only the commands see all settings of a
run, from a command line or from config.json.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax

from mtl_jax import data, models, parallel
from mtl_jax.commands.checks import check_sizes
from mtl_jax.data.outline import Outline
from mtl_jax.models import pretrained
from mtl_jax.runs import codebook_file, workdir
from mtl_jax.runs.settings import Settings, folder_of, method
from mtl_jax.tasks import Codebook, Task, select
from mtl_jax.training import loop
from mtl_jax.training.evaluation import Judge, make_judge
from mtl_jax.training.optimizer import (
    learning_rate_schedule,
    make_optimizer,
    parse_optimizer,
    scaled,
)
from mtl_jax.training.step import Recipe, check_options
from mtl_jax.weighting import Weighting, make

PRECISIONS = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}
Splits = dict[str, data.Dataset]


def network_of(
    settings: Settings, *, num_classes: int, channels: int, codebook: Codebook | None = None
) -> models.Network:
    """Makes the network of a run.

    Args:
      settings: tasks, network and losses.
      num_classes: classes of the segmentation.
      channels: channels of the images.
      codebook: codebook of a run that learns normals as classes, which cannot be trained without
        it.

    Raises:
      ValueError: for settings that don't fit together.
    """
    return models.build(
        tasks_of(settings, codebook=codebook),
        num_classes=num_classes,
        channels=channels,
        model=settings.model,
        dtype=PRECISIONS[settings.precision],
        axis_name=parallel.AXIS,
    )


def tasks_of(settings: Settings, *, codebook: Codebook | None = None) -> tuple[Task, ...]:
    """Returns the tasks of a run; see `network_of`."""
    return select(
        settings.tasks,
        segmentation_loss=settings.segmentation_loss,
        depth_loss=settings.depth_loss,
        normals_loss=settings.normals_loss,
        normals_source=settings.normals_source,
        codebook=codebook,
    )


def recipe_of(
    settings: Settings,
    network: models.Network,
    image_size: tuple[int, int],
    *,
    steps_per_epoch: int = 1,
    schedule: optax.Schedule | None = None,
) -> Recipe:
    """Adds a run's weighting and optimizer to its network.

    Args:
      settings: weighting and optimizer.
      network: to train.
      image_size: height and width.
      steps_per_epoch: like `schedule`, it does not affect the structure of the state.
      schedule: learning rate of each step, divided by the peak if there are `learning_rates`; None
        for a constant one.

    Raises:
      ValueError: if the weighting or the optimizer refuses its options, or the weighting these
        tasks.
    """
    text = method(settings)
    weigh = make_weighting(text, network, image_size, steps_per_epoch=steps_per_epoch)
    if "encoder_rate" in parse_optimizer(settings.optimizer).options:
        _check_encoder(settings, network)
    if settings.learning_rates and schedule is None:
        schedule = optax.constant_schedule(1.0)
    optimizer = make_optimizer(
        settings.optimizer,
        learning_rate=settings.learning_rate,
        schedule=schedule,
        frozen=models.frozen(network),
    )
    if settings.learning_rates:
        optimizer = scaled(optimizer, settings.learning_rate)
    if not 0 <= settings.average < 1:
        raise ValueError(f"`average`={settings.average}: must be 0 or more, and less than 1")
    return Recipe(network, weigh, optimizer, settings.average or None)


def _check_encoder(settings: Settings, network: models.Network) -> None:
    """Refuses a learning rate of an encoder that is not there or not trained."""
    if models.frozen(network) or not hasattr(network.trunk, "backbone"):
        raise ValueError(
            f"`optimizer`={settings.optimizer}: encoder_rate has no effect with "
            f"`model`={settings.model}, which trains no pretrained encoder"
        )


def build(
    settings: Settings, outline: Outline, *, codebook: Codebook | None = None
) -> tuple[Recipe, optax.Schedule]:
    """Builds the recipe of a run and its learning-rate schedule.

    Args:
      settings: all settings of the run.
      outline: facts about its data set.
      codebook: see `network_of`.

    Raises:
      ValueError: for settings that don't fit together or don't fit the data set.
    """
    per_epoch = check_sizes(
        train=outline.train,
        test=outline.test,
        validation=settings.validation,
        images=outline.images(validation=settings.validation),
        batch_size=settings.batch_size,
        eval_batch_size=settings.eval_batch_size,
        epochs=settings.epochs,
    )
    data.check_fraction(settings.label_fraction, outline.stream)
    if settings.patience and not settings.validation:
        raise ValueError(loop.NEEDS_VALIDATION.format(settings.patience))
    network = network_of(
        settings,
        num_classes=len(outline.class_names),
        channels=outline.channels,
        codebook=codebook,
    )
    data.check_labels(outline.entries, network.tasks, advice=outline.advice)
    schedule_from = partial(
        learning_rate_schedule,
        schedule=settings.schedule,
        steps=settings.epochs * per_epoch,
        steps_per_epoch=per_epoch,
        warmup_epochs=settings.warmup_epochs,
    )
    schedule = schedule_from(settings.learning_rate)
    used = schedule_from(1.0) if settings.learning_rates else schedule
    size = outline.image_size
    recipe = recipe_of(settings, network, size, steps_per_epoch=per_epoch, schedule=used)
    return recipe, schedule


def make_weighting(
    text: str, network: models.Network, image_size: tuple[int, int], *, steps_per_epoch: int
) -> Weighting:
    """Makes the weighting of a text and checks it for the network's tasks; see `weighting.make`."""
    shared = models.shapes(network, image_size).params["trunk"]
    classification = [task.classification for task in network.tasks]
    try:
        made = make(text, steps_per_epoch=steps_per_epoch, classification=classification)
        made.init(len(network.tasks), shared)
    except ValueError as error:
        raise ValueError(f"`weighting`={text}: {error}") from error
    return made


def check_step(settings: Settings, recipe: Recipe, outline: Outline) -> None:
    """Refuses batches with which the network or the weighting can't work; see `check_options`."""
    check_options(
        recipe,
        image_size=outline.image_size,
        batch_size=settings.batch_size,
        devices=devices_of(settings, "batch_size"),
        gradients=settings.gradients,
        labelled_per_batch=labelled_per_batch(settings, recipe),
        accumulate=settings.accumulate,
    )


def fitted(network: models.Network, train: data.Dataset) -> models.Network:
    """Returns the network with losses fitted to the training labels, and prints the outcome."""
    tasks = []
    for task in network.tasks:
        if task.fit is not None:
            task, text = task.fit(data.count_labels(train, task), train.class_names)
            print(text)
        tasks.append(task)
    return network._replace(tasks=tuple(tasks))


def judge_of(
    settings: Settings, network: models.Network, splits: Splits, *, flip_test: bool = False
) -> Judge:
    """Makes the judge of a network on all splits.

    Args:
      settings: settings of the run.
      network: network to judge.
      splits: of the data set.
      flip_test: see `make_judge`. A run does not record it and is therefore judged without it.
    """
    return make_judge(
        fitted(network, splits["train"]),
        splits,
        eval_batch_size=settings.eval_batch_size,
        devices=devices_of(settings, "eval_batch_size"),
        metric_protocol=settings.metric_protocol,
        flip_test=flip_test,
    )


def augmentation(settings: Settings) -> data.Augment | None:
    """Returns what changes the images of each training step, if anything does."""
    if not settings.augment:
        return None
    return partial(
        data.augment, crop_scales=settings.crop_scales, colour_jitter=settings.colour_jitter
    )


def devices_of(settings: Settings, *batches: str) -> list[jax.Device]:
    """Returns the devices, over which the batches of these settings must spread evenly."""
    return parallel.choose_devices(settings.devices, *(getattr(settings, x) for x in batches))


def labelled_per_batch(settings: Settings, recipe: Recipe) -> int | None:
    """Returns how many images of each batch have segmentation labels; None if all do."""
    if settings.label_fraction >= 1:
        return None
    return data.labelled_images(
        recipe.network.tasks,
        batch_size=settings.batch_size,
        labelled_per_batch=settings.labelled_per_batch or None,
    )


def codebook_of(settings: Settings, splits: Splits | None = None) -> Codebook | None:
    """Returns the codebook of the run; None for one that needs none.

    Args:
      settings: settings of the run.
      splits: splits to fit a codebook to if none is stored; without them that is an error.

    Raises:
      ValueError: if there is none, or its number of codewords does not suit the data set.
    """
    task = next((task for task in tasks_of(settings) if task.codewords), None)
    if task is None:
        return None
    folder = folder_of(settings)
    if splits is None:
        return codebook_file.read(folder, task.codewords)
    sample = partial(data.sample_labels, splits["train"], task.labels[0])
    try:
        return codebook_file.of_run(folder, task.codewords, sample)
    except ValueError as error:
        name = f"{task.name}_loss"
        raise ValueError(f"`{name}`={getattr(settings, name)}: {error}") from error


def open_pretrained(
    settings: Settings, recipe: Recipe, outline: Outline, *, announce: bool = False
) -> dict[str, np.ndarray] | None:
    """Returns the tensors of `pretrained`, checked against the network; None for a resumed run.

    Args:
      settings: settings of the run.
      recipe: recipe with the network.
      outline: facts about the data set.
      announce: whether to print which tensors of the file are used.

    Raises:
      ValueError: for a file that does not fit, or without one if the network has to keep weights
        or running statistics of one.
    """
    keeps_statistics = getattr(recipe.network.trunk, "norm", "") == "frozen"
    if settings.pretrained is None:
        if not (models.frozen(recipe.network) or keeps_statistics):
            return None
        what = "running statistics" if keeps_statistics else "an encoder"
        raise ValueError(f"`model`={settings.model}: give {what} to keep by `pretrained`=FILE")
    if workdir.has_checkpoint(folder_of(settings)):
        return None
    source = settings.pretrained.replace("{seed}", str(settings.seed))
    tensors = pretrained.read(source)
    variables = models.init(recipe.network, jax.random.key(0), outline.image_size)
    loaded = pretrained.put_into(variables, tensors, source=source)
    if keeps_statistics and any("running" in name for name in loaded.missed):
        raise ValueError(f"`model`={settings.model}: {source} has no running statistics to keep")
    if announce:
        shares = f"{loaded.count} tensors for the encoder, {loaded.others} for the rest"
        print(
            f"{source}: {shares if loaded.count else f'{loaded.others} tensors'}; "
            f"not used: {', '.join(loaded.skipped) or 'none'}; "
            f"from scratch: {', '.join(loaded.missed + loaded.afresh) or 'none'}"
        )
        if loaded.adapted:
            print(f"{source}: {loaded.adapted}")
    return tensors
