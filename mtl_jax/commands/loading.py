"""From the folder of a run to a predictor."""

import os
from pathlib import Path

import jax

from mtl_jax.commands import assembly
from mtl_jax.deploy.predictor import Predictor
from mtl_jax.runs import settings


def load(folder: str | os.PathLike, *, checkpoint: str | int = "latest") -> Predictor:
    """Loads a trained network for predictions.

        predictor = mtl_jax.load("runs/rooms-nash-0")
        depth = predictor(photo)["depth"]  # metres, of the photo's height and width

    Args:
      folder: folder of a run.
      checkpoint: which state of a run to use: "latest", "best" or the number of a step.

    Raises:
      ValueError: in one line, for a folder or a checkpoint that can't be used.
    """
    run = settings.of_folder(Path(folder).expanduser(), checkpoint=str(checkpoint))
    network, variables = assembly.restore(
        run, codebook=assembly.codebook_of(run), devices=jax.local_devices()[:1]
    )
    return Predictor(
        network,
        variables,
        class_names=settings.class_names_of(settings.folder_of(run)),
        image_size=run.image_size,
    )
