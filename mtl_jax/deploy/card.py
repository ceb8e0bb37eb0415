"""The model card of an exported folder, its README.md."""

import shlex
import textwrap
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mtl_jax.deploy import program
from mtl_jax.deploy.origin import Origin
from mtl_jax.deploy.predictor import CONTENT, Predictor
from mtl_jax.runs import grid, settings, terminal, workdir
from mtl_jax.tasks import Scale
from mtl_jax.version import __version__

CARD = """\
# {title}

A network that predicts {tasks}, trained with mtl_jax {version} on `{dataset}`.

## How to use it

Without mtl_jax, `example.py` needs JAX and NumPy, and Pillow for pictures:

    pip install jax flatbuffers pillow
    python example.py PHOTO RESULTS.npz

It resizes a photo to {height}x{width} pixels, even if that distorts it. With mtl_jax, photos of any
size keep their aspect ratio and give results of their own size:

    predictor = mtl_jax.load("FOLDER")
    results = predictor(photo)  # uint8[H, W, {channels}], in {content}

| file | content |
|:--|:--|
{files}

## Input and output

The input is uint8[batch, {height}, {width}, {channels}]: {content} from 0 to 255. The network
normalises them itself.{camera}

| result | type | meaning |
|:--|:--|:--|
{outputs}
{ranges}{classes}
## Quality

{quality}

## What it is not good for

{limits}

## How it was trained

This command repeats the run, of which the network is the state at step {step}:

    {command}

Versions: {versions}.

## Licence

mtl_jax is under Apache-2.0. {licence}
"""
FILES = {
    "model.stablehlo": "the network for `jax.export.deserialize`, for any number of photos, on a "
    "CPU, a CUDA GPU or a TPU; batch normalisation is folded into the convolutions",
    "model.onnx": "the same network for ONNX Runtime and other programs",
    "weights.safetensors": "all parameters and running statistics by PyTorch's names, not folded, "
    "for `mtl_jax.load` and `--pretrained`",
    "model.json": "sizes, classes, palette, units, settings, metrics and versions",
    "example.py": "prediction without mtl_jax",
}
# Settings that are paths.
PATHS = ("folder", "pretrained")
# Takes the place of a space inside a flag, where a line must not break.
UNBROKEN = "\N{NO-BREAK SPACE}"
ALWAYS = (
    "The results don't say how certain they are. Don't use them where an error can hurt anyone."
)


def card(predictor: Predictor, origin: Origin, *, files: Collection[str]) -> str:
    """Returns the text of the model card.

    Args:
      files: names of the folder's other files.
    """
    model, _, _ = origin.config["model"].partition(":")
    height, width, channels = predictor.image_shape
    cautions = [task.caution for task in predictor.network.tasks if task.caution]
    limits = [*origin.limits, *cautions, ALWAYS]
    versions = [f"{name} {version}" for name, version in origin.versions.items()]
    return CARD.format(
        title=f"{model} for {listed(predictor.tasks)}",
        tasks=listed(predictor.tasks),
        version=__version__,
        dataset=grid.short(origin.config["dataset"]),
        files="\n".join(f"| `{name}` | {FILES[name]} |" for name in FILES if name in files),
        height=height,
        width=width,
        channels=channels,
        content=CONTENT[channels],
        camera=_camera(predictor),
        outputs=_outputs(predictor),
        ranges=_ranges(predictor, origin),
        classes=_classes(predictor),
        quality=_quality(predictor, origin),
        limits="\n".join(f"- {line}" for line in limits),
        step=origin.step,
        command=command(origin),
        versions=", ".join(versions) or "not known",
        licence=origin.licence,
    )


def command(origin: Origin) -> str:
    """Returns the command that repeats a run, with the names of its files but not their folders."""
    flags = [
        shlex.quote(f"--{name}={_without_folders(name, value)}").replace(" ", UNBROKEN)
        for name, value in sorted(origin.config.items())
        if name not in settings.FACTS and value is not None
    ]
    lines = textwrap.wrap(
        " ".join(["python launch.py", *flags]), 90, break_long_words=False, break_on_hyphens=False
    )
    return " \\\n        ".join(lines).replace(UNBROKEN, " ")


def _without_folders(name: str, value: Any) -> str:
    """Returns the value of a setting as it is written on the command line, without folders."""
    text = grid.short(workdir.shown(name, value))
    return Path(text).name if name in PATHS else text


def listed(words: Sequence[str]) -> str:
    """Returns words as a list in a sentence, such as `a, b and c`."""
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def _camera(predictor: Predictor) -> str:
    if predictor.focal_length is None:
        return ""
    angle = np.degrees(2 * np.arctan(0.5 / predictor.focal_length))
    return f" The training images have a horizontal field of view of {angle:.0f} degrees."


def _outputs(predictor: Predictor) -> str:
    rows = []
    for name, output in program.outputs_of(predictor).items():
        sizes = ", ".join(["batch", *map(str, output.shape)])
        rows.append(f"| `{name}` | {output.dtype}[{sizes}] | {predictor.units[name]} |")
    return "\n".join(rows)


def _ranges(predictor: Predictor, origin: Origin) -> str:
    """Returns the ranges of labels on a scale, in the images that the run kept."""
    lines = []
    for task in predictor.network.tasks:
        labels = np.asarray(origin.samples.get(task.name, np.zeros(0)), np.float64)
        known = labels[labels > 0]
        if isinstance(task.picture, Scale) and known.size:
            lines.append(
                f"\n`{task.name}` ranges from {known.min():.2f} to {known.max():.2f} in the labels "
                f"of {len(labels)} test images.\n"
            )
    return "".join(lines)


def _classes(predictor: Predictor) -> str:
    rows = [
        f"| {index} | {name} | #{bytes(colour).hex()} |"
        for index, (name, colour) in enumerate(
            zip(predictor.class_names, predictor.palette, strict=True)
        )
    ]
    head = ["", "| class | name | colour in pictures |", "|--:|:--|:--|"]
    return "\n".join([*head, *rows, ""]) if rows else ""


def _quality(predictor: Predictor, origin: Origin) -> str:
    """Returns a table of the metrics, next to those of the trivial predictor."""
    if not origin.result:
        return "This state of the network has not been evaluated."
    found, floor = origin.result["metrics"], origin.result["floor"]
    rows = [
        f"| {metric.head} | {terminal.cell(found, metric)} | {terminal.cell(floor, metric)} |"
        for task in predictor.network.tasks
        for metric in task.metrics
    ]
    constants = listed([task.trivial.words for task in predictor.network.tasks])
    head = ["| metric | this network | trivial predictor |", "|:--|--:|--:|"]
    lines = [f"On the {origin.result['split']} split of the data set:", "", *head, *rows]
    note = f"The trivial predictor gives every pixel {constants} of the training images."
    return "\n".join([*lines, "", note])
