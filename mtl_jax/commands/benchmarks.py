"""Runs a benchmark, or a comparison with PyTorch, from the settings of a command."""

import itertools
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from tqdm import tqdm

from mtl_jax import data, files, models, parallel
from mtl_jax.bench import feeding, speed
from mtl_jax.bench import inference as bench
from mtl_jax.commands import assembly
from mtl_jax.data.outline import Outline
from mtl_jax.report.baseline import listed
from mtl_jax.runs import grid
from mtl_jax.runs.settings import Settings, folder_of, method
from mtl_jax.weighting import options

# Values that the PyTorch side supports; networks are named without their options.
KNOWN_TO_PREDICT = {
    "models": ("resnet_unet", "segnet"),
    "segmentation_loss": ("ce",),
    "depth_loss": ("l1",),
    "normals_loss": ("cosine",),
}
KNOWN_TO_TRAIN = {
    "model": ("resnet_unet", "segnet"),
    "segmentation_loss": ("ce",),
    "depth_loss": ("l1",),
    "normals_source": ("labels",),
    "normals_loss": ("cosine",),
    "precision": ("float32",),
    "optimizer": ("adam",),
    "weigh_every": (1,),
    "gradients": ("parameters",),
    "accumulate": (1,),
    "average": (0.0,),
}
METHODS = ("equal", "uw", "nash")
# The networks of a benchmark of inference by default.
MODELS = [*(f"resnet_unet:backbone=resnet{depth}" for depth in (18, 34, 50)), "segnet"]


def training(settings: Settings, outline: Outline, weightings: Sequence[str]) -> str:
    """Times the training step of each weighting; returns what benchmark.md says, and where it is.

    Args:
      settings: settings of the command.
      outline: facts about the data set, whose images are replaced by synthetic ones.
      weightings: texts such as `fairgrad:alpha=2`.

    Raises:
      ValueError: for settings that can't be timed.
    """
    folder = _check(settings, outline, "weightings")
    if settings.compare_torch:
        check_twin(settings, KNOWN_TO_TRAIN, "`compare_torch`")
    number, channels = len(outline.class_names), outline.channels
    recipes, network = {}, assembly.network_of(settings, num_classes=number, channels=channels)
    devices = assembly.devices_of(settings, "batch_size")
    # The images are synthetic: a batch may have more than the data set.
    per_epoch = max(1, outline.images(validation=0) // settings.batch_size)
    for text in weightings:
        chosen = Settings(**vars(settings) | {"weighting": text})
        recipe = assembly.recipe_of(chosen, network, outline.image_size, steps_per_epoch=per_epoch)
        assembly.check_step(chosen, recipe, outline)
        recipes[text] = recipe
    batch = speed.synthetic_batch(
        network.tasks,
        image_size=outline.image_size,
        batch_size=settings.batch_size,
        num_classes=number,
    )
    rivals = _rivals(settings, network, batch) if settings.compare_torch else None
    others = dict(rivals.steps) if rivals else {}
    if outline.stream is not None:
        others |= _stream(outline.stream, network, settings.batch_size, devices)
    measured = speed.compare_weightings(
        recipes,
        batch,
        devices=devices,
        rounds=settings.benchmark_steps,
        others=others,
        missing=rivals.missing if rivals else None,
        augment=assembly.augmentation(settings),
        gradients=settings.gradients,
        accumulate=settings.accumulate,
    )
    what = f"{_setup(settings, network, outline)}, {settings.precision}, {parallel.kinds(devices)}"
    text = speed.write(measured, speed.compare_solvers(), folder, what=what)
    return f"{text}\nwritten to {folder / 'benchmark.md'}"


def inference(settings: Settings, outline: Outline) -> str:
    """Times predictions by each of `models`; returns what inference.md says, and where it is.

    Args:
      settings: settings of the command.
      outline: outline of the data set, whose images are replaced by synthetic ones.

    Raises:
      ValueError: for settings that can't be timed.
    """
    if settings.models is None:
        settings = Settings(**vars(settings) | {"models": MODELS})
    folder = _check(settings, outline, "networks")
    grid.check_different(models=settings.models)
    if settings.compare_torch:
        check_twin(settings, KNOWN_TO_PREDICT, "`compare_torch`")
    made, size, number = {}, outline.image_size, len(outline.class_names)
    for text in settings.models:
        chosen = Settings(**vars(settings) | {"model": text})
        made[text] = assembly.network_of(chosen, num_classes=number, channels=outline.channels)
        models.check_image_size(made[text], size)
    rows: list[bench.Row] = []
    for text, network in tqdm(made.items(), desc="networks", unit="network", dynamic_ncols=True):
        rows += bench.measure(
            partial(models.build, num_classes=number, model=text),
            network.tasks,
            model=text,
            image_size=size,
            rounds=settings.benchmark_steps,
            rivals=partial(_rivals_in_inference, settings, text, outline),
        )
    what = (
        f"Predictions of {listed(settings.tasks)} for images of {size[0]}x{size[1]}, "
        f"{jax.devices()[0].device_kind}"
    )
    text = bench.write(rows, folder, what=what, rounds=settings.benchmark_steps)
    if not any(row.form == bench.ONNX for row in rows):
        text += '\nONNX Runtime was not timed: pip install -e ".[onnx]" in the clone adds it'
    return f"{text}\nwritten to {folder / 'inference.md'}"


def feed(
    settings: Settings,
    outline: Outline,
    prepare: Callable[[], dict[str, data.Dataset]],
) -> str:
    """Times what feeds a step with images; returns what input.md says, and where it is.

    Args:
      settings: settings of the command.
      outline: facts about the data set.
      prepare: prepares the data set if necessary, and returns its splits.

    Raises:
      ValueError: for settings that can't be timed.
    """
    _check_files(settings, outline, "`benchmark`=input")
    recipe, _ = assembly.build(settings, outline)
    assembly.check_step(settings, recipe, outline)
    folder, devices = folder_of(settings), assembly.devices_of(settings, "batch_size")
    files.check_writable("`workdir`", folder)
    splits = prepare()
    recipe, _ = assembly.build(settings, outline, codebook=assembly.codebook_of(settings, splits))
    recipe = recipe._replace(network=assembly.fitted(recipe.network, splits["train"]))
    measured = feeding.measure(
        splits["train"],
        recipe,
        step=f"step of {method(settings)} alone",
        batch_size=settings.batch_size,
        devices=devices,
        rounds=settings.benchmark_steps,
        augment=assembly.augmentation(settings),
        gradients=settings.gradients,
        accumulate=settings.accumulate,
    )
    what = (
        f"{settings.dataset}, {_setup(settings, recipe.network, outline)}, {settings.precision}, "
        f"{parallel.kinds(devices)}, {os.cpu_count()} cores"
    )
    return f"{feeding.write(measured, folder, what=what)}\nwritten to {folder / 'input.md'}"


def compare(
    settings: Settings,
    outline: Outline,
    prepare: Callable[[], dict[str, data.Dataset]],
) -> str:
    """Trains the same network here and in PyTorch; returns what compare.md says, and where it is.

    Args:
      settings: settings of the command.
      outline: facts about the data set.
      prepare: prepares the data set if necessary, and returns its splits.

    Raises:
      ValueError: for settings that the PyTorch side does not support, or without PyTorch.
    """
    check_twin(settings, KNOWN_TO_TRAIN, "`mode`=compare")
    _check_channels(outline, "`mode`=compare")
    _check_files(settings, outline, "`mode`=compare")
    name = method(settings)
    if name not in METHODS:
        raise ValueError(f"`weighting`={name}: `mode`=compare supports {listed(METHODS)}")
    recipe, _ = assembly.build(settings, outline)
    assembly.check_step(settings, recipe, outline)
    folder = folder_of(settings)
    files.check_writable("`workdir`", folder)
    with needs_torch("`mode`=compare"):
        from mtl_jax.bench import compare as twins
    train, tasks = prepare()["train"], recipe.network.tasks
    size, seed = settings.batch_size, settings.seed
    batches = [
        data.batch_at(train, tasks, batch_size=size, seed=seed, step=number)
        for number in range(settings.benchmark_steps)
    ]
    compared = twins.compare(
        batches,
        recipe.network,
        recipe.weighting,
        method=name,
        learning_rate=settings.learning_rate,
        seed=seed,
    )
    what = f"{_setup(settings, recipe.network, outline)} of {settings.dataset}, {name}"
    text = twins.write(compared, folder, what=what)
    return f"{text}\nwritten to {folder / 'compare.md'} and compare.png"


def _check(settings: Settings, outline: Outline, what: str) -> Path:
    """Refuses what a benchmark can't compare `what` of; returns the folder to write to."""
    _check_channels(outline, "`mode`=benchmark")
    if len(settings.tasks) < 2:
        raise ValueError(f"`tasks`: a benchmark compares {what} of two tasks or more")
    for task in assembly.tasks_of(settings):
        if task.codewords or task.fit is not None:
            name = f"{task.name}_loss"
            text = getattr(settings, name)
            raise ValueError(f"`{name}`={text}: a benchmark has no labels to fit the loss to")
    files.check_writable("`workdir`", folder_of(settings))
    return folder_of(settings)


def _check_files(settings: Settings, outline: Outline, what: str) -> None:
    """Refuses images that are rendered while training."""
    if outline.stream is not None:
        raise ValueError(
            f"`dataset`={settings.dataset}: {what} takes images from files; leave out stream=true"
        )


def _check_channels(outline: Outline, flag: str) -> None:
    """Refuses images that are not red, green and blue."""
    if outline.channels != 3:
        raise ValueError(
            f"{flag} supports only images of 3 channels, and these have {outline.channels}: set "
            "another `dataset`"
        )


def check_twin(settings: Settings, known: Mapping[str, Sequence[Any]], flag: str) -> None:
    """Refuses settings that the PyTorch side does not support."""
    # A task without a setting for its loss is not supported.
    learned = [name.removesuffix("_loss") for name in known if name.endswith("_loss")]
    for name, values in {"tasks": learned, **known}.items():
        given = getattr(settings, name)
        for value in given if isinstance(given, list) else [given]:
            part = options.parts(value)[0] if name in ("model", "models") else value
            if part not in values:
                raise ValueError(
                    f"`{name}`={value}: {flag} supports {listed(list(map(str, values)))}"
                )
    for name in {"model", "models"} & known.keys():
        given = getattr(settings, name)
        for text in given if isinstance(given, list) else [given]:
            chosen = options.parts(text)[1]
            if name == "model" and "frozen=true" in chosen:
                raise ValueError(f"`model`={text}: {flag} trains the whole network")
            if any(option.startswith("norm=") for option in chosen):
                raise ValueError(f"`{name}`={text}: {flag} supports only norm=batch")


@contextmanager
def needs_torch(flag: str) -> Iterator[None]:
    """Raises an error that says how to install PyTorch, if it is missing."""
    try:
        yield
    except ImportError as error:
        raise ValueError(
            f"{flag} needs PyTorch ({error}): run pip install -e '.[torch]' in the clone"
        ) from error


def _rivals(settings: Settings, network: models.Network, batch: Mapping[str, np.ndarray]) -> Any:
    """Returns PyTorch's steps on the same batch, as `Rivals`."""
    with needs_torch("`compare_torch`"):
        from mtl_jax.bench.torch_twin import rivals as twins
    tasks = network.tasks
    decoded = jax.device_get(jax.jit(partial(data.decode, tasks=tasks))(dict(batch)))
    return twins.rivals(
        tasks,
        options.parts(settings.model)[0],
        getattr(network.trunk, "backbone", ""),
        {name: head.channels for name, head in network.heads.items()},
        decoded,
        learning_rate=settings.learning_rate,
    )


def _stream(
    stream: data.Stream, network: models.Network, batch_size: int, devices: Sequence[jax.Device]
) -> dict[str, Callable[[], Any]]:
    """Returns what makes the images of a training run in front of each step, by name."""
    make = stream.maker(data.training_entries(network.tasks), devices)
    epochs = itertools.count()
    return {"making the images": lambda: make(0, next(epochs), np.arange(batch_size))}


def _rivals_in_inference(
    settings: Settings,
    model: str,
    outline: Outline,
    network: models.Network,
    variables: models.Variables,
) -> dict[str, bench.Predict]:
    """Returns the same network in PyTorch, if that is compared, and in ONNX Runtime, by name."""
    size = outline.image_size
    found = bench.onnx_rivals(network, variables, class_names=outline.class_names, image_size=size)
    if not settings.compare_torch:
        return found
    with needs_torch("`compare_torch`"):
        from mtl_jax.bench.torch_twin import convert
        from mtl_jax.bench.torch_twin import inference as twins
        from mtl_jax.bench.torch_twin.training import build
    backbone = getattr(network.trunk, "backbone", "")
    channels = {name: head.channels for name, head in network.heads.items()}
    twin = build(options.parts(model)[0], backbone, channels, size)
    convert.load(twin, variables)
    return twins.rivals(twin, network.tasks) | found


def _setup(settings: Settings, network: models.Network, outline: Outline) -> str:
    height, width = outline.image_size
    name, _ = options.parts(settings.model)
    backbone = getattr(network.trunk, "backbone", "")
    name += f":backbone={backbone}" if backbone else ""
    return f"{name}, {settings.batch_size} images of {height}x{width}"
