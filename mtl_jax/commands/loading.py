"""Trained networks from the folder of a run, or from one that was exported."""

import os
from pathlib import Path
from typing import Any

import jax
import numpy as np

from mtl_jax.commands import assembly, one_run
from mtl_jax.deploy import export, weights
from mtl_jax.deploy.predictor import Predictor
from mtl_jax.runs import settings, workdir
from mtl_jax.runs.settings import Settings
from mtl_jax.tasks import INTRINSICS
from mtl_jax.tasks.codebook import triangulate

# What the description of an export must have.
NEEDED = {"settings", "step", "codebook", "class_names", "image_size", "focal_length"}


def load(folder: str | os.PathLike, *, checkpoint: str | int = "latest") -> Predictor:
    """Loads a trained network for predictions.

        predictor = mtl_jax.load("runs/rooms-nash-0")
        depth = predictor(photo)["depth"]  # metres, of the photo's height and width

    Args:
      folder: folder of a run, or one that `mode`=export wrote.
      checkpoint: which state of a run to use: "latest", "best" or the number of a step. An exported
        folder holds a single one.

    Raises:
      ValueError: in one line, for a folder or a checkpoint that can't be used.
      OSError: in one line, for files that can't be read.
    """
    path = Path(folder).expanduser()
    if (path / export.DESCRIPTION).is_file():
        return of_export(path, checkpoint=str(checkpoint))
    if not (path / "config.json").exists():
        raise ValueError(
            f"{path} is neither a run's folder (no config.json in it) nor an exported one (no "
            f"{export.DESCRIPTION}): give one of these, on the command line as `workdir`"
        )
    return of_run(settings.of_folder(path, checkpoint=str(checkpoint)))


def of_run(run: Settings) -> Predictor:
    """Returns the predictor of the run in a folder; see `one_run.restore` for what it raises."""
    codebook, devices = assembly.codebook_of(run), jax.local_devices()[:1]
    network, variables = one_run.restore(run, codebook=codebook, devices=devices)
    folder = settings.folder_of(run)
    return Predictor(
        network,
        variables,
        class_names=settings.class_names_of(folder),
        image_size=run.image_size,
        focal_length=focal_length(workdir.read_samples(folder)),
    )


def dataset_of(folder: Path) -> str:
    """Returns the text of the data set of a run or an exported network."""
    exported = folder / export.DESCRIPTION
    if exported.is_file():
        return workdir.read_json(exported)["settings"]["dataset"]
    return workdir.read_config(folder)["dataset"]


def of_export(folder: Path, *, checkpoint: str = "latest") -> Predictor:
    """Returns the predictor of an exported folder.

    Raises:
      ValueError: if it is damaged, of another version, or asked for another state.
      OSError: if it can't be read.
    """
    about = workdir.read_json(folder / export.DESCRIPTION)
    if about.get("format") != export.FORMAT:
        raise ValueError(
            f"{folder / export.DESCRIPTION} is of another version of mtl_jax "
            f"({about.get('mtl_jax')}): use that one, or export the run again"
        )
    missing = sorted(NEEDED - about.keys())
    if missing:
        raise ValueError(
            f"{folder / export.DESCRIPTION} is damaged: there is no {missing[0]} in it; export the "
            "run again"
        )
    if checkpoint not in ("latest", str(about["step"])):
        raise ValueError(
            f"`checkpoint`={checkpoint}: {folder} is an export of step {about['step']} alone"
        )
    codewords = about["codebook"]
    network = assembly.network_of(
        Settings(**settings.IDLE | about["settings"]),
        num_classes=len(about["class_names"]),
        # An older export does not say it.
        channels=about.get("channels", 3),
        codebook=None if codewords is None else triangulate(np.array(codewords, np.float32)),
    )
    height, width = about["image_size"]
    path = folder / export.WEIGHTS
    variables = weights.variables_of(weights.read(path), network, (height, width), source=str(path))
    return Predictor(
        network,
        jax.device_put(variables),
        class_names=about["class_names"],
        image_size=(height, width),
        focal_length=about["focal_length"],
    )


def focal_length(samples: dict[str, np.ndarray]) -> float | None:
    """Returns the median focal length of images in their widths; None if it is not known."""
    intrinsics: Any = samples.get(INTRINSICS.name)
    if intrinsics is None or "image" not in samples:
        return None
    # They are zero where the camera is not known.
    known = intrinsics[intrinsics[:, 0] > 0, 0]
    return float(np.median(known) / samples["image"].shape[2]) if known.size else None
