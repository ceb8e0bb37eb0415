"""A network and a run small enough to train many times in a test.

python -m tests.tiny FOLDER EPOCHS WEIGHTING trains one, to be killed from outside, and
python -m tests.tiny FOLDER EPOCHS WEIGHTING PORT INDEX is one of two processes that train it.
"""

import sys
import time
from collections.abc import Callable, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from mtl_jax import data, faults, models, parallel, tasks
from mtl_jax.data import make_feed
from mtl_jax.models import resnet, unet
from mtl_jax.runs import lock, workdir
from mtl_jax.training import loop, optimizer
from mtl_jax.training.evaluation import Judge, make_judge
from mtl_jax.training.step import Recipe, Steps, TrainState, init_state, make_steps
from mtl_jax.weighting import METHODS, Weighting
from tests import fakes

TASKS = tasks.select(["segmentation", "depth", "normals"])
OPTIONS = {"uw": {"classification": [True, False, False]}}
IMAGE_SIZE = (32, 48)
SCHEDULE = optimizer.learning_rate_schedule(1e-2, steps=100, steps_per_epoch=5)


class Trunk(nn.Module):
    """Two convolutions with normalisation."""

    dtype: Any = jnp.float32
    norm: str = "batch"

    @nn.compact
    def __call__(self, image: jax.Array, *, train: bool) -> jax.Array:
        x = image.astype(self.dtype)
        norm = resnet.normalization(
            self.norm, train=train, axis_name=parallel.AXIS, dtype=self.dtype
        )
        for name in ("a", "b"):
            x = nn.Conv(8, (3, 3), padding=1, dtype=self.dtype, name=f"conv_{name}")(x)
            x = norm(name=f"bn_{name}")(x)
            x = nn.relu(x)
        return x


def network(
    chosen: Sequence[tasks.Task] = TASKS, *, dtype: Any = jnp.float32, norm: str = "batch"
) -> models.Network:
    """The tiny trunk with real heads."""
    kwargs = {"dtype": dtype, "axis_name": parallel.AXIS, "norm": norm}
    heads = {
        task.name: unet.Head(task.channels or len(fakes.CLASSES), hidden=4, **kwargs)
        for task in chosen
    }
    return models.Network(Trunk(dtype, norm), heads, tuple(chosen))


def model(*, dtype: Any, axis_name: str | None) -> tuple[nn.Module, Callable[[int], nn.Module]]:
    """An entry of `models.MODELS`: the tiny trunk and the heads that go with it."""
    return Trunk(dtype), partial(unet.Head, hidden=4, dtype=dtype, axis_name=axis_name)


def recipe(
    method: str | Weighting = "nash",
    optimizer_: optax.GradientTransformation | None = None,
    *,
    average: float | None = None,
) -> Recipe:
    """The tiny network with a method, by name or as an object, and Adam unless another is given."""
    if isinstance(method, str):
        method = METHODS[method](**OPTIONS.get(method, {}))
    adam = optimizer.make_optimizer("adam", learning_rate=1e-2, schedule=SCHEDULE)
    return Recipe(network(), method, optimizer_ or adam, average=average)


@cache
def steps(
    method: str | Weighting = "nash",
    optimizer_: optax.GradientTransformation | None = None,
    *,
    average: float | None = None,
    **options: Any,
) -> Steps:
    """The steps of a `recipe`; those made before are used again, compiled."""
    made = recipe(method, optimizer_, average=average)
    return make_steps(made, image_size=IMAGE_SIZE, **options)


@cache
def _fresh_state(*arguments: Any, seed: int, **options: Any) -> TrainState:
    made = recipe(*arguments, **options)
    return jax.device_get(init_state(made, seed=seed, image_size=IMAGE_SIZE))


def fresh_state(*arguments: Any, seed: int = 0, **options: Any) -> TrainState:
    """The state before the first step of a `recipe`; traced once, and new each time."""
    return jax.tree.map(jnp.asarray, _fresh_state(*arguments, seed=seed, **options))


@cache
def judge(devices: tuple[jax.Device, ...]) -> Judge:
    """Judges the network on splits that it is given later; compiled once."""
    return make_judge(network(), {}, eval_batch_size=4, devices=devices)


def run(
    folder: Path,
    *,
    epochs: int,
    weighting: str = "nash",
    validation: int = 0,
    update: optax.GradientTransformation | None = None,
    devices: Sequence[jax.Device] | None = None,
    average: float | None = None,
    patience: int = 0,
) -> dict[str, Any]:
    """Trains in the folder, or resumes there; every second step computes weights."""
    devices = devices or jax.local_devices()[:1]
    splits = data.open_splits(fakes.builder(), validation=validation)
    config = {"tasks": [task.name for task in TASKS]}
    with lock.own(folder):
        workdir.check(folder, config)
        return loop.train(
            Path(folder),
            fresh_state(weighting, update, average=average),
            steps(
                weighting,
                update,
                average=average,
                batch_size=4,
                devices=tuple(devices),
                weigh_every=2,
            ),
            make_feed(
                splits["train"],
                TASKS,
                cache="none",
                batch_size=4,
                labelled_per_batch=None,
                seed=0,
                devices=devices,
            ),
            judge(tuple(devices))._replace(splits=splits),
            epochs=epochs,
            schedule=SCHEDULE,
            evaluations=loop.Evaluations(patience=patience),
            accepted=lambda: workdir.write(folder, config),
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
