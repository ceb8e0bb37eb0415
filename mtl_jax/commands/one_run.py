"""One run in its folder: what is checked first, its training, its network and its evaluation."""

from functools import partial
from pathlib import Path
from typing import Any

import jax

from mtl_jax import data, files, models
from mtl_jax.commands import parsing
from mtl_jax.commands.assembly import (
    Splits,
    augmentation,
    build,
    check_step,
    codebook_of,
    devices_of,
    fitted,
    judge_of,
    labelled_per_batch,
    network_of,
    open_pretrained,
)
from mtl_jax.data.outline import Outline
from mtl_jax.runs import codebook_file, lock, workdir
from mtl_jax.runs.settings import (
    Settings,
    channels_of,
    check_folder,
    class_names_of,
    folder_of,
    method,
    record,
)
from mtl_jax.tasks import Codebook
from mtl_jax.training import details, loop, outcome
from mtl_jax.training.evaluation import Evaluation, Judge
from mtl_jax.training.restore import restore_variables
from mtl_jax.training.step import init_state, make_steps


def check_run(settings: Settings, outline: Outline) -> None:
    """Refuses a run that can't work, before anything is downloaded, prepared or written.

    Raises:
      ValueError: naming the setting.
      OSError: for a folder that can't be written.
    """
    recipe, _ = build(settings, outline)
    check_step(settings, recipe, outline)
    devices_of(settings, "batch_size", "eval_batch_size")
    files.check_writable("`workdir`", folder_of(settings))
    check_own_folder(settings, outline)
    open_pretrained(settings, recipe, outline)


def check_own_folder(settings: Settings, outline: Outline) -> None:
    """Refuses a folder that holds another run; see `check_folder`."""
    check_folder(_sized(settings, outline), **_facts(outline))


def has_finished(settings: Settings, outline: Outline) -> bool:
    """Returns whether the run that the settings describe has been trained to its end.

    Raises:
      ValueError: if its folder holds another finished run.
    """
    length = {"epochs": settings.epochs, "patience": settings.patience}
    if not workdir.has_finished(folder_of(settings), **length):
        return False
    check_own_folder(settings, outline)
    return True


def train(
    settings: Settings, splits: Splits, outline: Outline
) -> tuple[dict[str, Any], models.Network]:
    """Trains the run to its end in its folder; see `loop.train` for what it raises.

    Returns:
      What `result.json` holds, and the network.
    """
    codebook = codebook_of(settings, splits)
    recipe, schedule = build(settings, outline, codebook=codebook)
    images = range(outline.images(validation=settings.validation))
    steps = settings.epochs * data.steps_per_epoch(images, settings.batch_size)
    outcome.warn_of_warmup(recipe.weighting, method(settings), steps)
    tensors = open_pretrained(settings, recipe, outline, announce=True)
    with lock.own(folder_of(settings)) as folder:
        check_own_folder(settings, outline)
        recipe = recipe._replace(network=fitted(recipe.network, splits["train"]))
        devices = devices_of(settings, "batch_size", "eval_batch_size")
        labelled = labelled_per_batch(settings, recipe)
        seed, size = settings.seed, outline.image_size
        splits = data.cached(splits, recipe.network.tasks, cache=settings.cache)
        result = loop.train(
            folder,
            init_state(recipe, seed=seed, image_size=size, pretrained=tensors),
            make_steps(
                recipe,
                image_size=size,
                batch_size=settings.batch_size,
                devices=devices,
                gradients=settings.gradients,
                augment=augmentation(settings),
                labelled_per_batch=labelled,
                weigh_every=settings.weigh_every,
                accumulate=settings.accumulate,
            ),
            data.make_feed(
                splits["train"],
                recipe.network.tasks,
                cache=settings.cache,
                batch_size=settings.batch_size,
                labelled_per_batch=labelled,
                seed=seed,
                devices=devices,
            ),
            judge_of(settings, recipe.network, splits),
            epochs=settings.epochs,
            schedule=schedule,
            evaluations=loop.Evaluations(settings.evaluate_every, settings.patience),
            keep=settings.keep,
            accepted=partial(record_run, settings, folder, outline, codebook),
        )
    return result, recipe.network


def record_run(
    settings: Settings, folder: Path, outline: Outline, codebook: Codebook | None
) -> None:
    """Records the run: writes config.json, flags.txt and its codebook."""
    workdir.write(folder, record(_sized(settings, outline), **_facts(outline)))
    if codebook is not None:
        codebook_file.store(codebook, folder)
    if workdir.is_writer():
        files.write(folder / "flags.txt", parsing.flag_lines(settings))


def _facts(outline: Outline) -> dict[str, Any]:
    """Returns what a run records of its data set, as arguments of `record`."""
    return {
        "class_names": outline.class_names,
        "channels": outline.channels,
        "data": outline.data,
    }


def _sized(settings: Settings, outline: Outline) -> Settings:
    """Returns the settings with the actual size of the images, given or by default."""
    return Settings(**vars(settings) | {"image_size": outline.image_size})


def restore(
    settings: Settings, *, codebook: Codebook | None, devices: list[jax.Device]
) -> tuple[models.Network, models.Variables]:
    """Returns the network of the run in the folder and its variables of `checkpoint`.

    Args:
      settings: from `of_run`; no data set is needed.
      codebook: from `codebook_of`.
      devices: devices that hold the variables.

    Raises:
      ValueError: if there is no such checkpoint or it can't be read.
    """
    folder, size = folder_of(settings), settings.image_size
    number, channels = len(class_names_of(folder)), channels_of(folder)
    network = network_of(settings, num_classes=number, channels=channels, codebook=codebook)
    variables = restore_variables(
        folder,
        network,
        which=settings.checkpoint,
        image_size=size,
        devices=devices,
        averaged=settings.average > 0,
    )
    return network, variables


def keep_details(
    settings: Settings,
    judge: Judge,
    variables: models.Variables,
    evaluation: Evaluation,
    *,
    version: str,
) -> str:
    """Writes `evaluation.npz` if this evaluation is that of the run's result.

    Older runs don't have it, and a report of another checkpoint, split or data set would not agree
    with its table.

    Args:
      settings: from `of_run`, of the evaluation.
      judge: from `judge_of`.
      variables: from `restore`.
      evaluation: of the variables, from the judge.
      version: of the data set, `Outline.data`.

    Returns:
      A line that says what came of it; "" if it is another evaluation.
    """
    folder = folder_of(settings)
    step, split = workdir.step_and_split(folder)
    checkpoints = ("latest", str(step))
    if settings.flip_test or split != settings.split or settings.checkpoint not in checkpoints:
        return ""
    path = folder / "evaluation.npz"
    # An older run does not say which data it had.
    if (workdir.read_config(folder).get("data", version) or "") != version:
        return f"note: these are not the files that the run was judged by, so {path} stays as it is"
    try:
        workdir.write_arrays(path, details.collect(judge, variables, split, evaluation))
    except OSError as error:
        reason = error.strerror or error
        return f"note: {path} can't be written ({reason}), so a report can't show the errors"
    return f"the errors that a report shows are in {path}"
