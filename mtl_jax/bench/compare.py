"""This library and its PyTorch twin side by side: same weights, same batches, what differs?"""

import statistics
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax
import matplotlib
import numpy as np
import torch
from matplotlib.figure import Figure

from mtl_jax import data, models, parallel
from mtl_jax.bench.torch_twin import bargain, convert, training
from mtl_jax.report.figures import STYLE
from mtl_jax.tasks import Task
from mtl_jax.training import passes
from mtl_jax.training.optimizer import adam
from mtl_jax.training.step import init_state, make_train_step
from mtl_jax.weighting import Weighting


def compare(
    batches: Sequence[Mapping[str, np.ndarray]],
    tasks: Sequence[Task],
    network: models.Network,
    weighting: Weighting,
    *,
    method: str,
    model: str,
    backbone: str,
    learning_rate: float,
    seed: int,
) -> dict[str, Any]:
    """Trains both from the same weights on the same batches, without augmentation.

    Args:
      batches: in stored types, one a step.
      tasks: in the forms that the twin knows: labels, vectors.
      network: built with `axis_name=parallel.AXIS`.
      weighting: of the tasks.
      method: its name in PyTorch: "equal", "uw" or "nash".
      model: of the network, "resnet_unet" or "segnet".
      backbone: of the ResNet-U-Net.
      learning_rate: Adam's.
      seed: of the weights.

    Returns:
      `start`, the largest differences at the first batch (see `first_step`); `ours` and `theirs`,
      losses f64[steps, K]; `milliseconds` a step of both, medians without the first two.
    """
    devices = jax.local_devices()[:1]
    size = batches[0]["image"].shape[1:3]
    optimizer = adam(lambda step: learning_rate)
    state = init_state(network, tasks, weighting, optimizer, seed=seed, image_size=size)
    channels = {
        name: int(head["output"]["bias"].shape[0])
        for name, head in state.variables.params["heads"].items()
    }
    module = training.build(model, backbone, channels, size)
    convert.load(module, state.variables)
    start = first_step(network, tasks, state.variables, module, batches[0], devices)
    convert.load(module, state.variables)
    theirs = training.Training(
        module, [task.name for task in tasks], learning_rate=learning_rate, method=method
    )
    step = make_train_step(
        network, tasks, weighting, optimizer,
        image_size=size, batch_size=len(batches[0]["image"]), devices=devices, augment=False,
    )[True]  # fmt: skip
    state = parallel.replicate(state, devices)
    losses: dict[str, list] = {"ours": [], "theirs": []}
    times: dict[str, list[float]] = {"ours": [], "theirs": []}
    for batch in batches:
        shards = parallel.shard(dict(batch), devices)
        decoded = training.to_torch(jax.device_get(jax.jit(data.decode)(dict(batch))))
        began = time.perf_counter()
        state, shown = step(state, shards)
        losses["ours"].append(np.asarray(shown["losses"], np.float64).tolist())
        between = time.perf_counter()
        losses["theirs"].append(theirs(decoded).double().tolist())
        times["ours"].append(between - began)
        times["theirs"].append(time.perf_counter() - between)
    milliseconds = {
        name: 1000 * statistics.median(taken[2:] or taken) for name, taken in times.items()
    }
    return {"start": start, **losses, "milliseconds": milliseconds}


def first_step(
    network: models.Network,
    tasks: Sequence[Task],
    variables: models.Variables,
    module: torch.nn.Module,
    batch: Mapping[str, np.ndarray],
    devices: Sequence[jax.Device],
) -> list[dict[str, Any]]:
    """Relative differences at one batch: between both, and of each from PyTorch in float64.

    What float32 itself leaves open is the distance to float64: a network with batch statistics of
    few pixels amplifies rounding in its gradients a thousandfold, in either framework.

    Returns:
      Rows `what`, `between`, `ours` and `theirs` (from float64).
    """

    def ours(variables: models.Variables, stored: Any) -> Any:
        decoded = data.decode(stored)
        pullback, backward = passes.differentiate(network, tasks, variables, decoded)
        raw = models.predict(network, tasks, variables, decoded)
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
    decoded = training.to_torch(jax.device_get(jax.jit(data.decode)(dict(batch))))
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
        {
            "what": name,
            "between": _apart(mine[name], single[name]),
            "ours": _apart(mine[name], double[name]),
            "theirs": _apart(single[name], double[name]),
        }
        for name in mine
    ]


def theirs_at(
    module: torch.nn.Module,
    tasks: Sequence[Task],
    batch: training.Batch,
    variables: models.Variables,
) -> dict[str, np.ndarray]:
    """Predictions with running statistics, losses and trunk gradients of the twin."""
    with torch.no_grad():
        raw = module.eval()(batch["image"])
    found = {}
    for task in tasks:
        last = raw[task.name].permute(0, 2, 3, 1).numpy()
        with jax.numpy_dtype_promotion("standard"):
            found[f"prediction of {task.name}"] = np.asarray(task.activation(last, {}))
    names = [task.name for task in tasks]
    run = training.Training(module, names, learning_rate=0.0, method="equal")
    losses, per_task, _ = run.task_gradients(batch)
    found["losses"] = losses.detach().numpy()
    leaves = [name for name, _ in module.trunk.named_parameters()]
    for name, gradient in zip(names, per_task, strict=True):
        named = zip(leaves, gradient, strict=True)
        found[f"gradient of {name}"] = convert.flat_like_flax(variables.params["trunk"], named)
    return found


def _apart(one: np.ndarray, other: np.ndarray) -> float:
    """Largest difference as a part of the largest value; of long vectors, of their lengths."""
    one, other = np.asarray(one, np.float64), np.asarray(other, np.float64)
    if one.ndim == 1 and one.size > 100:
        return float(np.linalg.norm(one - other) / np.linalg.norm(other))
    return float(np.abs(one - other).max() / np.abs(other).max())


def to_markdown(result: Mapping[str, Any]) -> str:
    """The tables of `compare.md`."""
    lines = [
        f"{result['what']}. Relative differences at the first batch, in float32:\n",
        "| | JAX – PyTorch | JAX – float64 | PyTorch – float64 |",
        "|:--|--:|--:|--:|",
    ]
    for row in result["start"]:
        lines.append(
            f"| {row['what']} | {row['between']:.1e} | {row['ours']:.1e} | {row['theirs']:.1e} |"
        )
    ours, theirs = result["milliseconds"]["ours"], result["milliseconds"]["theirs"]
    lines += [
        "",
        f"A step takes JAX {ours:.0f} ms and PyTorch {theirs:.0f} ms, {theirs / ours:.2f} times as "
        f"long (medians of {len(result['ours'])} steps in turn).\n",
        "| step | " + " | ".join(f"{t}, JAX | {t}, PyTorch" for t in result["tasks"]) + " |",
        "|--:" + "|--:|--:" * len(result["tasks"]) + "|",
    ]
    for number in _shown(len(result["ours"])):
        pairs = zip(result["ours"][number], result["theirs"][number], strict=True)
        lines.append(f"| {number} | " + " | ".join(f"{a:.4f} | {b:.4f}" for a, b in pairs) + " |")
    return "\n".join(lines) + "\n"


def _shown(count: int) -> Iterable[int]:
    return sorted({0, 1, 2, *np.linspace(0, count - 1, 8).astype(int)} & set(range(count)))


@matplotlib.rc_context(STYLE)
def loss_figure(result: Mapping[str, Any]) -> Figure:
    """Both trajectories of each task's loss."""
    tasks = result["tasks"]
    figure = Figure(figsize=(3.6 * len(tasks), 3.0), layout="constrained")
    panels = np.atleast_1d(figure.subplots(1, len(tasks)))
    for index, (task, axes) in enumerate(zip(tasks, panels, strict=True)):
        for name, style in (("ours", "-"), ("theirs", "--")):
            values = [losses[index] for losses in result[name]]
            label = {"ours": "JAX", "theirs": "PyTorch"}[name]
            axes.plot(values, style, label=label, linewidth=1.6 if style == "-" else 1.2)
        axes.set(title=f"{task} loss", xlabel="step")
    panels[0].legend()
    return figure
