"""This library and its PyTorch twin compared on the same weights and batches."""

import io
import statistics
import time
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import matplotlib
import numpy as np
import torch
from matplotlib.figure import Figure

from mtl_jax import data, files, models, parallel
from mtl_jax.bench import page
from mtl_jax.bench.torch_twin import bargain, convert, training
from mtl_jax.bench.torch_twin.network import Twin
from mtl_jax.bench.torch_twin.segnet import SegNetTwin
from mtl_jax.models.segnet import SegNet
from mtl_jax.models.unet import UNet
from mtl_jax.report.figures import STYLE
from mtl_jax.tasks import Batch, Task
from mtl_jax.training import passes
from mtl_jax.training.optimizer import make_optimizer
from mtl_jax.training.step import Recipe, init_state, make_steps
from mtl_jax.weighting import Weighting
from mtl_jax.weighting.contract import PyTree

# Steps of each side that are not timed: the first compiles, and the second may wait for memory.
UNTIMED = 2


class Difference(NamedTuple):
    """How far apart one quantity is at the first batch, relative to its largest value or length.

    Attributes:
      what: the quantity.
      between: distance of both sides in float32.
      ours: distance of our side from PyTorch in float64.
      theirs: distance of PyTorch in float32 from PyTorch in float64.
    """

    what: str
    between: float
    ours: float
    theirs: float


class Comparison(NamedTuple):
    """Both sides of a comparison.

    Attributes:
      tasks: names of the tasks, in the order of K.
      start: differences at the first batch.
      ours: losses of each step, K each.
      theirs: the same, of PyTorch.
      milliseconds: per step of `ours` and `theirs`, medians over the steps of `timed`.
    """

    tasks: list[str]
    start: list[Difference]
    ours: list[list[float]]
    theirs: list[list[float]]
    milliseconds: dict[str, float]


def compare(
    batches: Sequence[Mapping[str, np.ndarray]],
    network: models.Network,
    weighting: Weighting,
    *,
    method: str,
    learning_rate: float,
    seed: int,
) -> Comparison:
    """Trains both sides from the same weights on the same batches, without augmentation.

    Args:
      batches: batches in stored types, one per step.
      network: network built with `axis_name=parallel.AXIS`, of tasks that the twin supports.
      method: its name in PyTorch: "equal", "uw" or "nash".
      learning_rate: learning rate of Adam.
      seed: seed of the initial weights.
    """
    devices = jax.local_devices()[:1]
    size = batches[0]["image"].shape[1:3]
    recipe = Recipe(network, weighting, make_optimizer("adam", learning_rate=learning_rate))
    state = init_state(recipe, seed=seed, image_size=size)
    module = twin_of(network, size)
    convert.load(module, state.variables)
    start = first_step(network, state.variables, module, batches[0], devices)
    convert.load(module, state.variables)
    theirs = training.Training(module, network.tasks, learning_rate=learning_rate, method=method)
    step = make_steps(
        recipe,
        image_size=size,
        batch_size=len(batches[0]["image"]),
        devices=devices,
        augment=None,
    ).update
    state = parallel.replicate(state, devices)
    decode = jax.jit(partial(data.decode, tasks=network.tasks))
    losses: dict[str, list[list[float]]] = {"ours": [], "theirs": []}
    times: dict[str, list[float]] = {"ours": [], "theirs": []}
    for batch in batches:
        shards = parallel.shard(dict(batch), devices)
        decoded = training.to_torch(jax.device_get(decode(dict(batch))))
        began = time.perf_counter()
        state, shown = step(state, shards)
        losses["ours"].append(np.asarray(shown["losses"], np.float64).tolist())
        between = time.perf_counter()
        losses["theirs"].append(theirs(decoded).double().tolist())
        times["ours"].append(between - began)
        times["theirs"].append(time.perf_counter() - between)
    milliseconds = {name: 1000 * statistics.median(timed(taken)) for name, taken in times.items()}
    names = [task.name for task in network.tasks]
    return Comparison(names, start, **losses, milliseconds=milliseconds)


def timed(steps: Sequence[Any]) -> Sequence[Any]:
    """Returns the steps after the first `UNTIMED`, or all where there are no others."""
    return steps[UNTIMED:] or steps


def twin_of(network: models.Network, image_size: tuple[int, int]) -> Twin | SegNetTwin:
    """Makes a network of the same layers in PyTorch.

    Raises:
      ValueError: for a network that has no twin.
    """
    channels = {name: head.channels for name, head in network.heads.items()}
    trunk = network.trunk
    if isinstance(trunk, UNet) and not trunk.frozen:
        return Twin(trunk.backbone, channels, image_size)
    if isinstance(trunk, SegNet) and not trunk.stages:
        return SegNetTwin(channels)
    raise ValueError("`model`: only resnet_unet and segnet have a twin in PyTorch")


def first_step(
    network: models.Network,
    variables: models.Variables,
    module: Twin | SegNetTwin,
    batch: Mapping[str, np.ndarray],
    devices: Sequence[jax.Device],
) -> list[Difference]:
    """Returns differences at one batch between both sides, and of each from PyTorch in float64.

    The distances to float64 show what rounding explains: a network with batch statistics of few
    pixels amplifies it a thousandfold in its gradients, in either framework.
    """
    tasks = network.tasks

    def ours(variables: models.Variables, stored: Batch) -> PyTree:
        decoded = data.decode(stored, tasks)
        pullback, backward = passes.differentiate(network, variables, decoded)
        raw = models.predict(network, variables, decoded)
        return raw, backward.losses, passes.trunk_gradients(pullback, backward)

    mapped = parallel.data_parallel(ours, devices)
    predicted, losses, each = jax.device_get(
        mapped(variables, parallel.shard(dict(batch), devices))
    )
    mine = {f"prediction of {task.name}": predicted[task.name] for task in tasks}
    mine["losses"] = losses
    flat = [
        np.concatenate([np.ravel(x[i]).astype(np.float64) for x in jax.tree.leaves(each)])
        for i in range(len(tasks))
    ]
    mine |= {f"gradient of {task.name}": x for task, x in zip(tasks, flat, strict=True)}
    decode = jax.jit(partial(data.decode, tasks=tasks))
    decoded = training.to_torch(jax.device_get(decode(dict(batch))))
    single = theirs_at(module, tasks, decoded, variables)
    convert.load(module, variables)
    doubled = {k: x.double() if x.is_floating_point() else x for k, x in decoded.items()}
    double = theirs_at(module.double(), tasks, doubled, variables)
    module.float()
    for values in (mine, single, double):
        rows = np.stack([values[f"gradient of {task.name}"] for task in tasks])
        values["Gram matrix"] = rows @ rows.T
        values["Nash weights"] = bargain.exact(values["Gram matrix"])
    return [
        Difference(
            what=name,
            between=_apart(mine[name], single[name]),
            ours=_apart(mine[name], double[name]),
            theirs=_apart(single[name], double[name]),
        )
        for name in mine
    ]


def theirs_at(
    module: Twin | SegNetTwin,
    tasks: Sequence[Task],
    batch: training.Batch,
    variables: models.Variables,
) -> dict[str, np.ndarray]:
    """Returns the twin's predictions with running statistics, losses and trunk gradients."""
    with torch.no_grad():
        raw = module.eval()(batch["image"])
    found = {}
    for task in tasks:
        last = raw[task.name].permute(0, 2, 3, 1).numpy()
        with jax.numpy_dtype_promotion("standard"):
            found[f"prediction of {task.name}"] = np.asarray(task.activation(last, {}))
    names = [task.name for task in tasks]
    run = training.Training(module, tasks, learning_rate=0.0, method="equal")
    losses, per_task, _ = run.task_gradients(batch)
    found["losses"] = losses.detach().numpy()
    leaves = [name for name, _ in module.trunk.named_parameters()]
    for name, gradient in zip(names, per_task, strict=True):
        named = zip(leaves, gradient, strict=True)
        found[f"gradient of {name}"] = convert.flat_like_flax(variables.params["trunk"], named)
    return found


def _apart(one: np.ndarray, other: np.ndarray) -> float:
    """Returns the largest difference relative to the largest value; of long vectors, by lengths."""
    one, other = np.asarray(one, np.float64), np.asarray(other, np.float64)
    if one.ndim == 1 and one.size > 100:
        return float(np.linalg.norm(one - other) / np.linalg.norm(other))
    return float(np.abs(one - other).max() / np.abs(other).max())


def write(comparison: Comparison, folder: Path, *, what: str) -> str:
    """Writes `compare.json`, `compare.md` and `compare.png`; returns the text of the second.

    Args:
      comparison: from `compare`.
      folder: created if it does not exist.
      what: describes what was compared.

    Raises:
      OSError: if a file can't be written, naming it.
    """
    facts = {
        **comparison._asdict(),
        "start": [row._asdict() for row in comparison.start],
        "what": what,
    }
    text = to_markdown(comparison, what=what)
    page.write(folder, "compare", text, facts)
    picture = io.BytesIO()
    loss_figure(comparison).savefig(picture, dpi=110)
    files.write(folder / "compare.png", picture.getvalue())
    return text


def to_markdown(comparison: Comparison, *, what: str) -> str:
    """Returns the tables of `compare.md`."""
    lines = [
        f"{what}. Relative differences at the first batch, in float32:\n",
        "| | JAX – PyTorch | JAX – float64 | PyTorch – float64 |",
        "|:--|--:|--:|--:|",
    ]
    for row in comparison.start:
        lines.append(f"| {row.what} | {row.between:.1e} | {row.ours:.1e} | {row.theirs:.1e} |")
    ours, theirs = comparison.milliseconds["ours"], comparison.milliseconds["theirs"]
    lines += [
        "",
        f"A step takes {ours:.0f} ms in JAX and {theirs:.0f} ms in PyTorch, {theirs / ours:.2f} "
        f"times as long (medians of {len(timed(comparison.ours))} steps, taken in turn).\n",
        "| step | " + " | ".join(f"{t}, JAX | {t}, PyTorch" for t in comparison.tasks) + " |",
        "|--:" + "|--:|--:" * len(comparison.tasks) + "|",
    ]
    for number in _shown(len(comparison.ours)):
        pairs = zip(comparison.ours[number], comparison.theirs[number], strict=True)
        lines.append(f"| {number} | " + " | ".join(f"{a:.4f} | {b:.4f}" for a, b in pairs) + " |")
    return "\n".join(lines) + "\n"


def _shown(count: int) -> Iterable[int]:
    return sorted({0, 1, 2, *np.linspace(0, count - 1, 8).astype(int)} & set(range(count)))


@matplotlib.rc_context(STYLE)
def loss_figure(comparison: Comparison) -> Figure:
    """Draws both trajectories of each task's loss."""
    tasks = comparison.tasks
    figure = Figure(figsize=(3.6 * len(tasks), 3.0), layout="constrained")
    panels = np.atleast_1d(figure.subplots(1, len(tasks)))
    sides = (("JAX", comparison.ours, "-", 1.6), ("PyTorch", comparison.theirs, "--", 1.2))
    for index, (task, axes) in enumerate(zip(tasks, panels, strict=True)):
        for label, losses, style, width in sides:
            values = [each[index] for each in losses]
            axes.plot(values, style, label=label, linewidth=width)
        axes.set(title=f"{task} loss", xlabel="step")
    panels[0].legend()
    return figure
