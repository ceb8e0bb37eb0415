"""What a training step costs with each weighting, and what bounds it.

The batch is made up and lies on the device, so that nothing but the step is measured. All steps
take turns, one of each after the other, so that a machine's moods meet all alike; medians are told.
"""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from mtl_jax import data, models, parallel
from mtl_jax.bench.torch_twin.bargain import Published
from mtl_jax.tasks import Task
from mtl_jax.training import passes
from mtl_jax.training.step import init_state, make_train_step
from mtl_jax.weighting import Signals, Weighting, gradients
from mtl_jax.weighting.methods.nash import nash

SOLVER_SIZES = (3, 10, 40)
SOLVER_REPEATS = 20


def synthetic_batch(
    tasks: Sequence[Task], *, image_size: tuple[int, int], batch_size: int, num_classes: int
) -> dict[str, np.ndarray]:
    """A batch of noise in the types in which data sets are stored, every pixel labelled."""
    rng = np.random.default_rng(0)
    height, width = image_size
    shape = (batch_size, height, width)
    normals = rng.normal(size=(*shape, 3))
    focal = np.array([width, width, (width - 1) / 2, (height - 1) / 2], np.float32)
    entries = {
        "image": rng.integers(0, 256, (*shape, 3), np.uint8),
        "image_right": rng.integers(0, 256, (*shape, 3), np.uint8),
        "segmentation": rng.integers(0, num_classes, shape, np.int8),
        "depth": rng.uniform(0.5, 8.0, shape).astype(np.float16),
        "normals": (normals / np.linalg.norm(normals, axis=-1, keepdims=True)).astype(np.float16),
        "intrinsics": np.tile(focal, (batch_size, 1)),
        "baseline": np.full(batch_size, 0.1, np.float32),
    }
    return {name: entries[name] for name in data.training_entries(tasks)}


def compare_weightings(
    weightings: Mapping[str, Weighting],
    tasks: Sequence[Task],
    network: models.Network,
    optimizer: optax.GradientTransformation,
    batch: Mapping[str, np.ndarray],
    *,
    devices: Sequence[jax.Device],
    rounds: int,
    others: Mapping[str, Callable[[], Any]] | None = None,
    **options: Any,
) -> dict[str, Any]:
    """Times the training step of each weighting, and the passes that it is made of.

    Args:
      weightings: by name.
      tasks: to learn.
      network: built with `axis_name=parallel.AXIS`.
      optimizer: over its parameters.
      batch: in stored types.
      devices: on which to run.
      rounds: steps of each that are timed.
      others: what else takes its turn and is timed by name, such as another framework's steps.
      options: of `make_train_step`.

    Returns:
      `rows`, of each weighting `weighting`, `milliseconds` a step, `images_per_second`,
      `ratio_to_equal` (None without equal), `megabytes` (arguments, outputs and temporaries of the
      compiled step), `compile_seconds` and its mean diagnostics such as `iterations`; `passes`,
      milliseconds of forward, forward and one backward, and forward and K backward passes of the
      trunk; `others`, milliseconds by name; `trunk_megabytes`, of one gradient of the trunk.
    """
    size, batch_size = batch["image"].shape[1:3], len(batch["image"])
    shards = parallel.shard(dict(batch), devices)
    runners, rows = {}, {}
    for name, weighting in weightings.items():
        state = init_state(network, tasks, weighting, optimizer, seed=0, image_size=size)
        state = parallel.replicate(state, devices)
        step = make_train_step(
            network, tasks, weighting, optimizer, image_size=size, batch_size=batch_size,
            devices=devices, **options,
        )[True]  # fmt: skip
        compiled, seconds = compile_ahead(step, state, shards)
        rows[name] = {"weighting": name, "compile_seconds": seconds} | memory(compiled)
        runners[name] = Stepper(compiled, state, shards)
    variables = parallel.replicate(models.init(network, jax.random.key(0), size), devices)
    for name, function in pass_functions(network, tasks, devices).items():
        compiled, _ = compile_ahead(function, variables, shards)
        runners[name] = partial(compiled, variables, shards)
    runners |= others or {}
    milliseconds = take_turns(runners, rounds)
    for name, row in rows.items():
        row["milliseconds"] = milliseconds[name]
        row["images_per_second"] = 1000 * batch_size / milliseconds[name]
        equal = milliseconds.get("equal") if "equal" in rows else None
        row["ratio_to_equal"] = milliseconds[name] / equal if equal else None
        row |= runners[name].diagnostics()
    trunk = jax.tree.leaves(variables.params["trunk"])
    return {
        "rows": list(rows.values()),
        "passes": {name: milliseconds[name] for name in pass_functions(network, tasks, devices)},
        "others": {name: milliseconds[name] for name in others or {}},
        "trunk_megabytes": sum(leaf.nbytes for leaf in trunk) / 2**20,
    }


class Stepper:
    """A compiled training step and the state that it goes on from."""

    def __init__(self, compiled: Callable, state: Any, batch: Any):
        self.compiled, self.state, self.batch = compiled, state, batch

    def __call__(self) -> Any:
        self.state, shown = self.compiled(self.state, self.batch)
        return shown

    def diagnostics(self) -> dict[str, float]:
        """Means over the steps taken of what the weighting says of its solution."""
        sums = jax.device_get(self.state.sums)
        wanted = ("iterations", "residual", "fallback")
        found = {name: sums.get(f"diagnostic/{name}") for name in wanted}
        steps = max(float(sums["steps"]), 1.0)
        return {name: float(value) / steps for name, value in found.items() if value is not None}


def compile_ahead(function: Callable, *arguments: Any) -> tuple[Callable, float]:
    """The compiled function and the seconds that took."""
    start = time.perf_counter()
    compiled = function.lower(*arguments).compile()
    return compiled, time.perf_counter() - start


def memory(compiled: Any) -> dict[str, float]:
    """`megabytes` that a compiled function takes at most, by XLA's own account."""
    facts = compiled.memory_analysis()
    total = facts.argument_size_in_bytes + facts.output_size_in_bytes + facts.temp_size_in_bytes
    return {"megabytes": (total - facts.alias_size_in_bytes) / 2**20}


def pass_functions(
    network: models.Network, tasks: Sequence[Task], devices: Sequence[jax.Device]
) -> dict[str, Callable]:
    """The passes that bound a step: (variables, sharded batch) -> gradients, by name."""

    def forward(variables: models.Variables, batch: Any) -> jax.Array:
        return passes.forward_losses(network, tasks, variables, data.decode(batch))

    def one(variables: models.Variables, batch: Any) -> Any:
        pullback, backward = passes.differentiate(network, tasks, variables, data.decode(batch))
        total = gradients.combine(backward.cotangents, jnp.ones(len(tasks)))
        gradient = jax.lax.psum(pullback(total)[0], parallel.AXIS)
        return gradient, backward.gradients

    def each(variables: models.Variables, batch: Any) -> Any:
        pullback, backward = passes.differentiate(network, tasks, variables, data.decode(batch))
        return passes.trunk_gradients(pullback, backward), backward.gradients

    functions = {"forward": forward, "forward + 1": one, f"forward + {len(tasks)}": each}
    return {name: parallel.data_parallel(f, devices) for name, f in functions.items()}


def take_turns(runners: Mapping[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Median milliseconds of functions that are called in turn, after one call of each."""
    times: dict[str, list[float]] = {name: [] for name in runners}
    for number in range(rounds + 1):
        for name, run in runners.items():
            start = time.perf_counter()
            jax.block_until_ready(run())
            if number:
                times[name].append(time.perf_counter() - start)
    return {name: 1000 * statistics.median(taken) for name, taken in times.items()}


def compare_solvers(sizes: Sequence[int] = SOLVER_SIZES) -> list[dict[str, float | None]]:
    """The Nash bargain alone: ours in the jit, and as published by cvxpy and ECOS if installed.

    Returns:
      For each number of tasks the milliseconds of one solution and the largest residual
      |a_i (G a)_i - 1| in float64 over random Gram matrices, `ours` and `published`.
    """
    rows = []
    for size in sizes:
        rng = np.random.default_rng(size)
        grams = []
        for _ in range(SOLVER_REPEATS):
            vectors = rng.normal(size=(size, 3 * size)) + 0.3 * rng.normal(size=3 * size)
            scales = np.exp(rng.uniform(-1.5, 1.5, size))
            grams.append((vectors @ vectors.T * np.outer(scales, scales)).astype(np.float32))
        row: dict[str, float | None] = {"tasks": size}
        for name, solve in (("ours", our_solver(size)), ("published", published_solver(size))):
            times, residuals = [], []
            for gram in grams if solve else []:
                start = time.perf_counter()
                weights = solve(gram)
                times.append(time.perf_counter() - start)
                exact = np.asarray(weights, np.float64)
                residuals.append(np.max(np.abs(exact * (gram.astype(np.float64) @ exact) - 1)))
            row[f"{name}_milliseconds"] = 1000 * statistics.median(times) if times else None
            row[f"{name}_residual"] = float(max(residuals)) if residuals else None
        rows.append(row)
    return rows


def our_solver(size: int) -> Callable[[np.ndarray], np.ndarray]:
    """gram -> weights by `nash` without a limit on the norm, compiled."""
    method = nash(max_norm=np.inf)
    state = method.init(size, None)

    @jax.jit
    def solve(gram: jax.Array) -> jax.Array:
        signals = Signals(
            losses=jnp.ones(size),
            gram=gram,
            step=jnp.zeros((), jnp.int32),
            key=jax.random.key(0),
            labelled=jnp.ones(size, bool),
        )
        return method.update(signals, state)[0].shared

    jax.block_until_ready(solve(jnp.eye(size)))
    return lambda gram: np.asarray(solve(gram))


def published_solver(size: int) -> Callable[[np.ndarray], np.ndarray] | None:
    """gram -> weights as the paper's own code finds them; None without cvxpy and ECOS."""
    try:
        Published(size)
    except ImportError:
        return None
    return lambda gram: Published(size).solve(gram)


def to_markdown(result: Mapping[str, Any]) -> str:
    """The tables of `benchmark.md`."""
    parts = [
        f"{result['what']}. Medians of {result['rounds']} steps of each, taken in turn.\n",
        "| weighting | ms a step | images/s | × equal | MB | compile s | iterations | residual |",
        "|:--|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for row in result["rows"]:
        parts.append(
            f"| {row['weighting']} | {row['milliseconds']:.1f} | {row['images_per_second']:.1f} "
            f"| {_number(row['ratio_to_equal'], '.2f')} | {row['megabytes']:.0f} "
            f"| {row['compile_seconds']:.1f} | {_number(row.get('iterations'), '.1f')} "
            f"| {_number(row.get('residual'), '.1e')} |"
        )
    parts += ["", "| passes | ms |", "|:--|--:|"]
    parts += [f"| {name} | {value:.1f} |" for name, value in result["passes"].items()]
    if result["others"]:
        parts += ["", "| beside them | ms a step | × nash |", "|:--|--:|--:|"]
        times = {row["weighting"]: row["milliseconds"] for row in result["rows"]}
        for name, value in result["others"].items():
            ratio = value / times["nash"] if "nash" in times else None
            parts.append(f"| {name} | {value:.1f} | {_number(ratio, '.2f')} |")
    parts += ["", *bounds(result)]
    parts += [
        "",
        "| tasks | ours, ms | residual | cvxpy + ECOS, ms | residual |",
        "|--:|--:|--:|--:|--:|",
    ]
    for row in result["solvers"]:
        parts.append(
            f"| {row['tasks']} | {row['ours_milliseconds']:.3f} | {row['ours_residual']:.1e} "
            f"| {_number(row['published_milliseconds'], '.1f')} "
            f"| {_number(row['published_residual'], '.1e')} |"
        )
    return "\n".join(parts) + "\n"


def bounds(result: Mapping[str, Any]) -> list[str]:
    """What nash costs beside what its passes alone would, if it and equal were measured."""
    rows = {row["weighting"]: row for row in result["rows"]}
    if not {"nash", "equal"} <= rows.keys():
        return []
    _, one, each = result["passes"].values()
    ratio, bound = rows["nash"]["ratio_to_equal"], each / one
    extra = rows["nash"]["megabytes"] - rows["equal"]["megabytes"]
    gradients_size = result["num_tasks"] * result["trunk_megabytes"]
    return [
        f"- nash / equal is {ratio:.2f}; the passes alone, (forward + K backward) / (forward + 1), "
        f"give {bound:.2f}: {100 * (ratio / bound - 1):+.0f} %.",
        f"- nash takes {extra:.0f} MB more than equal, {extra / gradients_size:.2f} times the K "
        f"gradients of the trunk ({gradients_size:.0f} MB).",
    ]


def _number(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)
