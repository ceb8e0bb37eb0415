"""The cost of a training step with each weighting, and its lower bound.

The batch is synthetic and lies on the device, so that only the step is measured. Steps of all
weightings are timed in turn, so that noise affects all alike; medians are reported.
"""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mtl_jax import data, models, parallel
from mtl_jax.bench import page
from mtl_jax.bench.torch_twin.bargain import Published
from mtl_jax.tasks import Batch, Task
from mtl_jax.training import passes
from mtl_jax.training.step import Recipe, TrainState, init_state, make_steps
from mtl_jax.weighting import Signals, combine
from mtl_jax.weighting.contract import PyTree
from mtl_jax.weighting.methods.nash import nash

SOLVER_SIZES = (3, 10, 40)
SOLVER_REPEATS = 20


def synthetic_batch(
    tasks: Sequence[Task], *, image_size: tuple[int, int], batch_size: int, num_classes: int
) -> dict[str, np.ndarray]:
    """Makes a batch of noise in the types in which data sets are stored, every pixel labelled."""
    rng = np.random.default_rng(0)
    known = data.entries_of(tasks)
    shape = (batch_size, *image_size)
    return {
        name: known[name].example(rng, shape, num_classes) for name in data.training_entries(tasks)
    }


class Row(NamedTuple):
    """The cost of a step with one weighting.

    Attributes:
      weighting: its name.
      milliseconds: per step.
      images_per_second: over all devices.
      ratio_to_equal: of the milliseconds; None if `equal` was not measured.
      megabytes: arguments, outputs and temporaries of the compiled step, in MiB.
      compile_seconds: of its step; None if JAX keeps compiled programs.
      diagnostics: means such as `iterations` and `residual`, of a weighting that has them.
    """

    weighting: str
    milliseconds: float
    images_per_second: float
    ratio_to_equal: float | None
    megabytes: float
    compile_seconds: float | None
    diagnostics: dict[str, float]


class Benchmark(NamedTuple):
    """What was measured.

    Attributes:
      rows: of each weighting.
      passes: milliseconds of forward, forward and one backward, and forward and K backward passes
        of the trunk.
      others: milliseconds of other functions that were timed, by name.
      missing: why other rows could not be measured, by name.
      rounds: number of timed steps of each.
      batch_size: images per step.
      num_tasks: K.
      trunk_megabytes: of one gradient of the trunk, in MiB.
    """

    rows: list[Row]
    passes: dict[str, float]
    others: dict[str, float]
    missing: dict[str, str]
    rounds: int
    batch_size: int
    num_tasks: int
    trunk_megabytes: float


def compare_weightings(
    recipes: Mapping[str, Recipe],
    batch: Mapping[str, np.ndarray],
    *,
    devices: Sequence[jax.Device],
    rounds: int,
    others: Mapping[str, Callable[[], PyTree]] | None = None,
    missing: Mapping[str, str] | None = None,
    **how: Any,
) -> Benchmark:
    """Times the training step of each weighting, and the passes that it is made of.

    Args:
      recipes: what is trained, by the name of its weighting, the only part in which they differ.
      batch: a batch in stored types.
      devices: devices to run on.
      rounds: number of timed steps of each.
      others: further functions to time in turn, by name, such as another framework's steps.
      missing: why others can't be timed, by name.
      **how: further arguments of `make_steps`.
    """
    size, batch_size = batch["image"].shape[1:3], len(batch["image"])
    shards = parallel.shard(dict(batch), devices)
    runners: dict[str, Callable[[], PyTree]] = {}
    facts, steppers = {}, {}
    network = next(iter(recipes.values())).network
    for name, recipe in recipes.items():
        state = parallel.replicate(init_state(recipe, seed=0, image_size=size), devices)
        steps = make_steps(recipe, image_size=size, batch_size=batch_size, devices=devices, **how)
        compiled, seconds = compile_ahead(steps.update, state, shards)
        facts[name] = {"compile_seconds": seconds, "megabytes": megabytes(compiled)}
        runners[name] = steppers[name] = Stepper(compiled, state, shards)
    variables = parallel.replicate(models.init(network, jax.random.key(0), size), devices)
    bare = pass_functions(network, devices)
    for name, function in bare.items():
        compiled, _ = compile_ahead(function, variables, shards)
        runners[name] = partial(compiled, variables, shards)
    runners |= others or {}
    milliseconds = take_turns(runners, rounds)
    equal = milliseconds["equal"] if "equal" in recipes else None
    return Benchmark(
        rows=[
            Row(
                weighting=name,
                milliseconds=milliseconds[name],
                images_per_second=1000 * batch_size / milliseconds[name],
                ratio_to_equal=milliseconds[name] / equal if equal else None,
                diagnostics=steppers[name].diagnostics(),
                **facts[name],
            )
            for name in recipes
        ],
        passes={name: milliseconds[name] for name in bare},
        others={name: milliseconds[name] for name in others or {}},
        missing=dict(missing or {}),
        rounds=rounds,
        batch_size=batch_size,
        num_tasks=len(network.tasks),
        trunk_megabytes=sum(x.nbytes for x in jax.tree.leaves(variables.params["trunk"])) / 2**20,
    )


class Stepper:
    """A compiled training step with its batch and the state that the next call starts from."""

    def __init__(self, compiled: jax.stages.Compiled, state: TrainState, batch: Batch):
        self.compiled, self.state, self.batch = compiled, state, batch

    def __call__(self) -> dict[str, jax.Array]:
        self.state, shown = self.compiled(self.state, self.batch)
        return shown

    def diagnostics(self) -> dict[str, float]:
        """Returns means over the steps taken of what the weighting reports of its solution."""
        sums = jax.device_get(self.state.sums)
        wanted = ("iterations", "residual", "fallback")
        found = {name: sums.get(f"diagnostic/{name}") for name in wanted}
        steps = max(float(sums["steps"]), 1.0)
        return {name: float(value) / steps for name, value in found.items() if value is not None}


def compile_ahead(
    function: jax.stages.Wrapped, *arguments: PyTree
) -> tuple[jax.stages.Compiled, float | None]:
    """Compiles a function; returns it and the seconds that it took.

    None in place of the seconds if JAX keeps compiled programs, of which this may be one.
    """
    start = time.perf_counter()
    compiled = function.lower(*arguments).compile()
    seconds = time.perf_counter() - start
    kept = jax.config.jax_compilation_cache_dir  # pyrefly: ignore[missing-attribute]
    return compiled, None if kept else seconds


def megabytes(compiled: jax.stages.Compiled) -> float:
    """Returns the largest memory of a compiled function in MiB, as XLA estimates it."""
    facts: Any = compiled.memory_analysis()
    total = facts.argument_size_in_bytes + facts.output_size_in_bytes + facts.temp_size_in_bytes
    return (total - facts.alias_size_in_bytes) / 2**20


def pass_functions(
    network: models.Network, devices: Sequence[jax.Device]
) -> dict[str, jax.stages.Wrapped]:
    """Returns the passes that bound a step by name: (variables, sharded batch) -> gradients."""

    def forward(variables: models.Variables, batch: Batch) -> jax.Array:
        return passes.forward_losses(network, variables, data.decode(batch, network.tasks))

    def one(variables: models.Variables, batch: Batch) -> PyTree:
        decoded = data.decode(batch, network.tasks)
        pullback, backward = passes.differentiate(network, variables, decoded)
        total = combine(backward.cotangents, jnp.ones(len(network.tasks)))
        gradient = jax.lax.psum(pullback(total)[0], parallel.AXIS)
        return gradient, backward.gradients

    def each(variables: models.Variables, batch: Batch) -> PyTree:
        decoded = data.decode(batch, network.tasks)
        pullback, backward = passes.differentiate(network, variables, decoded)
        return passes.trunk_gradients(pullback, backward), backward.gradients

    functions = {"forward": forward, "forward + 1": one, f"forward + {len(network.tasks)}": each}
    return {name: parallel.data_parallel(f, devices) for name, f in functions.items()}


def take_turns(runners: Mapping[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Returns median milliseconds of functions called in turn, after one call of each."""
    times: dict[str, list[float]] = {name: [] for name in runners}
    for number in range(rounds + 1):
        for name, run in runners.items():
            start = time.perf_counter()
            jax.block_until_ready(run())
            if number:
                times[name].append(time.perf_counter() - start)
    return {name: 1000 * statistics.median(taken) for name, taken in times.items()}


def compare_solvers() -> list[dict[str, float | None]]:
    """Times the Nash bargain alone: ours inside jit, and by cvxpy and ECOS if installed.

    Returns:
      For each number of tasks the milliseconds of one solution and the largest residual
      |a_i (G a)_i - 1| in float64 over random Gram matrices, `ours` and `published`.
    """
    rows = []
    for size in SOLVER_SIZES:
        rng = np.random.default_rng(size)
        grams = []
        for _ in range(SOLVER_REPEATS):
            vectors = rng.normal(size=(size, 3 * size)) + 0.3 * rng.normal(size=3 * size)
            scales = np.exp(rng.uniform(-1.5, 1.5, size))
            grams.append((vectors @ vectors.T * np.outer(scales, scales)).astype(np.float32))
        row: dict[str, float | None] = {"tasks": size}
        for name, solve in (("ours", our_solver(size)), ("published", published_solver(size))):
            milliseconds, residual = time_solver(solve, grams) if solve else (None, None)
            row |= {f"{name}_milliseconds": milliseconds, f"{name}_residual": residual}
        rows.append(row)
    return rows


def time_solver(
    solve: Callable[[np.ndarray], np.ndarray], grams: Sequence[np.ndarray]
) -> tuple[float, float]:
    """Returns median milliseconds and the largest residual over some Gram matrices."""
    times, residuals = [], []
    for gram in grams:
        start = time.perf_counter()
        weights = solve(gram)
        times.append(time.perf_counter() - start)
        exact = np.asarray(weights, np.float64)
        residuals.append(np.max(np.abs(exact * (gram.astype(np.float64) @ exact) - 1)))
    return 1000 * statistics.median(times), float(max(residuals))


def our_solver(size: int) -> Callable[[np.ndarray], np.ndarray]:
    """Compiles `nash` without a limit on the norm: gram -> weights."""
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
    """Returns gram -> weights as the paper's own code finds them; None without cvxpy and ECOS."""
    try:
        published = Published(size)
    except ImportError:
        return None

    def solve(gram: np.ndarray) -> np.ndarray:
        # In a training run it starts from the last weights; these problems are unrelated.
        published.last = np.ones(size, np.float32)
        return published.solve(gram)

    # The first solution takes longer, since cvxpy compiles the program.
    solve(np.eye(size))
    return solve


def write(
    benchmark: Benchmark, solvers: Sequence[Mapping[str, Any]], folder: Path, *, what: str
) -> str:
    """Writes `benchmark.json` and `benchmark.md`, and returns the text of the latter.

    Args:
      benchmark: from `compare_weightings`.
      solvers: from `compare_solvers`.
      folder: created if it does not exist.
      what: describes what was measured.

    Raises:
      OSError: if a file can't be written, naming it.
    """
    rows = [{**row._asdict(), **row.diagnostics} for row in benchmark.rows]
    for row in rows:
        del row["diagnostics"]
    facts = {**benchmark._asdict(), "rows": rows, "what": what, "solvers": solvers}
    text = to_markdown(benchmark, solvers, what=what)
    page.write(folder, "benchmark", text, facts)
    return text


def to_markdown(benchmark: Benchmark, solvers: Sequence[Mapping[str, Any]], *, what: str) -> str:
    """Returns the tables of `benchmark.md`; see `write`."""
    parts = [
        f"{what}. Medians of {benchmark.rounds} steps of each, taken in turn.\n",
        "| weighting | ms per step | images/s | × equal | MiB | compile s | iterations "
        "| residual |",
        "|:--|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for row in benchmark.rows:
        parts.append(
            f"| {row.weighting} | {row.milliseconds:.1f} | {row.images_per_second:.1f} "
            f"| {_number(row.ratio_to_equal, '.2f')} | {row.megabytes:.0f} "
            f"| {_number(row.compile_seconds, '.1f')} "
            f"| {_number(row.diagnostics.get('iterations'), '.1f')} "
            f"| {_number(row.diagnostics.get('residual'), '.1e')} |"
        )
    parts += ["", "| passes | ms |", "|:--|--:|"]
    parts += [f"| {name} | {value:.1f} |" for name, value in benchmark.passes.items()]
    if benchmark.others or benchmark.missing:
        parts += ["", "| for comparison | ms per step | images/s | × nash |", "|:--|--:|--:|--:|"]
        nash_row = next((row for row in benchmark.rows if row.weighting == "nash"), None)
        for name, value in benchmark.others.items():
            ratio = value / nash_row.milliseconds if nash_row else None
            speed = 1000 * benchmark.batch_size / value
            parts.append(f"| {name} | {value:.1f} | {speed:.1f} | {_number(ratio, '.2f')} |")
        for name, reason in benchmark.missing.items():
            parts.append(f"| {name} | not measured ({reason}) | – | – |")
    parts += ["", *bounds(benchmark)]
    parts += [
        "",
        "| tasks | ours, ms | residual | cvxpy + ECOS, ms | residual |",
        "|--:|--:|--:|--:|--:|",
    ]
    for row in solvers:
        parts.append(
            f"| {row['tasks']} | {row['ours_milliseconds']:.3f} | {row['ours_residual']:.1e} "
            f"| {_number(row['published_milliseconds'], '.1f')} "
            f"| {_number(row['published_residual'], '.1e')} |"
        )
    return "\n".join(parts) + "\n"


def bounds(benchmark: Benchmark) -> list[str]:
    """Returns the cost of nash relative to its passes alone, if it and equal were measured."""
    rows = {row.weighting: row for row in benchmark.rows}
    if not {"nash", "equal"} <= rows.keys():
        return []
    _, one, each = benchmark.passes.values()
    ratio, bound = rows["nash"].milliseconds / rows["equal"].milliseconds, each / one
    extra = rows["nash"].megabytes - rows["equal"].megabytes
    gradients_size = benchmark.num_tasks * benchmark.trunk_megabytes
    return [
        f"- nash / equal is {ratio:.2f}; the passes alone, (forward + K backward) / (forward + "
        f"1 backward), give {bound:.2f}: {100 * (ratio / bound - 1):+.0f} %.",
        f"- nash takes {extra:.0f} MiB more than equal, {extra / gradients_size:.2f} times the K "
        f"gradients of the trunk ({gradients_size:.0f} MiB).",
    ]


def _number(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)
