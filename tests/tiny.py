"""A network and a run small enough to train many times in a test.

python -m tests.tiny FOLDER EPOCHS WEIGHTING trains one, to be killed from outside, and
python -m tests.tiny FOLDER EPOCHS WEIGHTING PORT INDEX is one of two processes that train it.
"""

import sys
import time
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import optax

from mtl_jax import data, faults, models, parallel, tasks
from mtl_jax.models import unet
from mtl_jax.runs import workdir
from mtl_jax.training import loop, optimizer
from mtl_jax.weighting import METHODS
from tests import fakes

TASKS = tasks.select(["segmentation", "depth", "normals"])
OPTIONS = {"uw": {"classification": [True, False, False]}}


class Trunk(nn.Module):
    """Two strided convolutions with batch normalisation."""

    @nn.compact
    def __call__(self, image: jax.Array, *, train: bool) -> jax.Array:
        for name in ("a", "b"):
            image = nn.Conv(8, (3, 3), padding=1, name=f"conv_{name}")(image)
            image = unet.batch_norm(train, parallel.AXIS, image.dtype)(name=f"bn_{name}")(image)
            image = nn.relu(image)
        return image


def network(names: tuple[str, ...] = ("segmentation", "depth", "normals")) -> models.Network:
    """The tiny trunk with real heads."""
    channels = {"segmentation": len(fakes.CLASSES), "depth": 1, "normals": 3}
    heads = {n: unet.Head(channels[n], hidden=4, axis_name=parallel.AXIS) for n in names}
    return models.Network(Trunk(), heads)


def run(
    folder: Path,
    *,
    epochs: int,
    weighting: str = "nash",
    validation: int = 0,
    update: optax.GradientTransformation | None = None,
    **options: Any,
) -> dict[str, Any]:
    """Trains in the folder, or goes on there."""
    splits = data.open_splits(fakes.builder(), validation=validation)
    options = {"devices": jax.local_devices()[:1], **options}
    schedule = optimizer.learning_rate_schedule(1e-2, steps=100, steps_per_epoch=5)
    options = {"weighting_every": 2, "batch_size": 4, "evaluation_batch_size": 4, **options}
    config = {"tasks": [task.name for task in TASKS]}
    with workdir.own(folder):
        workdir.check(folder, config, new=True)
        return loop.train(
            Path(folder),
            splits,
            TASKS,
            network(),
            METHODS[weighting](**OPTIONS.get(weighting, {})),
            update or optimizer.adam(schedule),
            schedule,
            epochs=epochs,
            accepted=lambda: workdir.write(folder, config),
            **options,
        )


if __name__ == "__main__":
    jax.config.update("jax_numpy_dtype_promotion", "strict")
    # Slow enough to be killed in the middle of an epoch.
    slowly = fakes.example

    def example(*args: Any, **kwargs: Any) -> Any:
        time.sleep(0.002)
        return slowly(*args, **kwargs)

    fakes.example = example
    options = {}
    if len(sys.argv) > 4:
        parallel.join(f"127.0.0.1:{sys.argv[4]}", 2, int(sys.argv[5]))
        options |= {"devices": jax.devices(), "update": optax.sgd(0.1)}
    try:
        run(Path(sys.argv[1]), epochs=int(sys.argv[2]), weighting=sys.argv[3], **options)
    except faults.Stopped as stopped:
        print(stopped)
