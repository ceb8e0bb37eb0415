"""What the photometric loss asks for, and where networks trained with it are right.

python docs/stereo_fit.py              fits depth maps to single stereo pairs, without a network
python docs/stereo_fit.py RUN [RUN...] measures the networks of runs on rooms, on test rooms
"""

import argparse
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
import optax

import mtl_jax
from datasets.rooms.render import render_batch
from datasets.rooms.rooms_dataset_builder import FIRST_TEST_INDEX
from mtl_jax import tasks
from mtl_jax.tasks import Batch, Task, stereo

ROOMS, TEST_ROOMS, SIZE = 8, 200, (96, 128)
SCALES = (0.8, 0.9, 1.0, 1.1, 1.25)
OPTIONS = (
    "",
    "smoothness=0.1",
    "smoothness=0.1,edges=10",
    "smoothness=0.3,edges=10",
    "smoothness=0.1,edges=10,order=2",
    "smoothness=0.3,edges=10,order=2",
    "smoothness=0.3,edges=10,order=2,fill=true",
    "smoothness=1,edges=10,order=2,fill=true",
)


def main() -> None:
    """Prints the tables of the loss and of fitted depth maps, or that of trained networks."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="*", help="folders of runs on rooms of 96x128")
    runs = parser.parse_args().runs
    if runs:
        measure(runs)
    else:
        examine()


def examine() -> None:
    """Prints how the loss depends on the depth, and how good depth maps fitted to pairs are."""
    batch = pairs(np.arange(ROOMS), SIZE)
    print(f"| pixels | {' | '.join(f'× {scale:g}' for scale in SCALES)} |")
    for name, row in dissimilarities(batch, SCALES).items():
        print(f"| {name} | {' | '.join(f'{loss:.4f}' for loss in row)} |")
    for text in OPTIONS:
        (task,) = tasks.select(["depth"], depth_loss=f"stereo:{text}" if text else "stereo")
        print(f"| {text} | {' | '.join(f'{x:.1f}' for x in accuracies(fit(task, batch), batch))} |")


def measure(runs: Sequence[str]) -> None:
    """Prints how good the predictions of trained networks are, and their errors."""
    batch = pairs(FIRST_TEST_INDEX + np.arange(TEST_ROOMS), SIZE)
    images = np.uint8(np.rint(255 * batch["image"]))
    for run in runs:
        predictor = mtl_jax.load(run)
        depth = jnp.stack([predictor(image)["depth"] for image in images])
        close = " | ".join(f"{x:.1f}" for x in accuracies(depth, batch))
        off = " | ".join(f"{x:.3f}" for x in relative_errors(depth, batch))
        print(f"| {run} | δ<1.25 % | {close} |\n| {run} | RelErr | {off} |")


def pairs(indices: np.ndarray, size: tuple[int, int]) -> dict[str, jax.Array]:
    """Returns rooms as a batch that a network would see, with `depth`."""
    height, width = size
    views = render_batch(0, indices.astype(np.int32), height=height, width=width)
    images = {name: views[name] / 255.0 for name in ("image", "image_right")}
    return {**{name: views[name] for name in ("depth", "intrinsics", "baseline")}, **images}


def groups(batch: Batch) -> dict[str, jax.Array]:
    """Returns pixels bool[B, H, W]: visible in both views and in which quarter of texture, or not.

    The texture of a pixel is the variance of the colours in a window of 3x3 pixels.
    """
    shift = stereo.disparity(batch["depth"], batch["intrinsics"], batch["baseline"])
    _, in_view = jax.vmap(stereo.warp)(batch["image_right"], shift)
    seen = in_view & ~jax.vmap(stereo.occluded)(shift)
    image = batch["image"]
    variance = jnp.mean(stereo.box(image**2) - stereo.box(image) ** 2, axis=-1)
    variance = jnp.pad(variance, ((0, 0), (1, 1), (1, 1)), mode="edge")
    limits = jnp.quantile(variance, jnp.array([0.25, 0.5, 0.75]))
    quarter = jnp.searchsorted(limits, variance)
    names = ("least texture", "little texture", "some texture", "most texture")
    return {**{name: seen & (quarter == i) for i, name in enumerate(names)}, "unseen": ~seen}


def dissimilarities(batch: Batch, scales: Sequence[float]) -> Mapping[str, list[float]]:
    """Returns the mean dissimilarity of the views for multiples of the true depth, by group."""
    maps = []
    for scale in scales:
        depth = scale * batch["depth"]
        shift = stereo.disparity(depth, batch["intrinsics"], batch["baseline"])
        rebuilt, _ = jax.vmap(stereo.warp)(batch["image_right"], shift)
        maps.append(stereo.dissimilarity(rebuilt, batch["image"]))
    return {
        name: [float(jnp.mean(one, where=chosen[:, 1:-1, 1:-1])) for one in maps]
        for name, chosen in groups(batch).items()
    }


def fit(task: Task, batch: Batch, *, steps: int = 300, rate: float = 0.1) -> jax.Array:
    """Returns depth maps f32[B, H, W] that minimise the task's loss, by Adam.

    A map is the sum of maps of 1/2, 1/4, ... 1/32 of the resolution, so that it can be found from
    coarse to fine, as by a network.
    """
    number, height, width = batch["depth"].shape
    shape = (number, height, width, 1)
    parts = [jnp.zeros((number, height // k, width // k, 1)) for k in (2, 4, 8, 16, 32)]
    optimizer = optax.adam(optax.cosine_decay_schedule(rate, steps))

    def depth(parts: list[jax.Array]) -> jax.Array:
        return task.activation(sum(jax.image.resize(x, shape, "bilinear") for x in parts), batch)

    def loss(parts: list[jax.Array]) -> jax.Array:
        total, pixels = task.loss(depth(parts), batch)
        return total / pixels

    @jax.jit
    def minimise(parts: list[jax.Array]) -> jax.Array:
        def step(carry, _):
            parts, state = carry
            updates, state = optimizer.update(jax.grad(loss)(parts), state)
            return (optax.apply_updates(parts, updates), state), None

        (parts, _), _ = jax.lax.scan(step, (parts, optimizer.init(parts)), None, length=steps)
        return depth(parts)

    return minimise(parts)


def accuracies(depth: jax.Array, batch: Batch) -> list[float]:
    """Returns the share of pixels with δ<1.25, of all and of each of the `groups`, in percent."""
    truth = batch["depth"]
    close = jnp.maximum(depth / truth, truth / depth) < 1.25
    return by_group(jnp.where(close, 100.0, 0.0), batch)


def relative_errors(depth: jax.Array, batch: Batch) -> list[float]:
    """Returns the mean relative error of all pixels and of each of the `groups`."""
    return by_group(jnp.abs(depth - batch["depth"]) / batch["depth"], batch)


def by_group(values: jax.Array, batch: Batch) -> list[float]:
    """Returns the mean of values f32[B, H, W] over all pixels and over each of the `groups`."""
    means = [jnp.mean(values, where=chosen) for chosen in groups(batch).values()]
    return [float(mean) for mean in (jnp.mean(values), *means)]


if __name__ == "__main__":
    main()
