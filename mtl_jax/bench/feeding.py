"""How many images per second files, caches and augmentation give, next to what a step takes.

Batches are made in advance, while the devices work, as in a training run. The rows run in turn,
each for several batches at a time. The first batch isn't timed: functions are compiled for it.
"""

import contextlib
import itertools
import statistics
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax

from mtl_jax import data, parallel
from mtl_jax.bench import page
from mtl_jax.bench.speed import Stepper, compile_ahead
from mtl_jax.data.batches import Arrays
from mtl_jax.tasks import Batch
from mtl_jax.training.step import Recipe, init_state, make_steps

# Number of measurements of each row, and the least seconds of each; see `take_turns`.
PASSES = 3
SHORTEST = 0.5

Results = Generator[Any, None, None]


class Input(NamedTuple):
    """What was measured.

    Attributes:
      images_per_second: of each row, by its text.
      step: text of the row of the step alone.
      rounds: least number of batches in each of `PASSES` measurements of a row.
      megabytes: of an image and its labels: `files`, None where that is not known, and `batch`.
    """

    images_per_second: dict[str, float]
    step: str
    rounds: int
    megabytes: dict[str, float | None]


def measure(
    dataset: data.Dataset,
    recipe: Recipe,
    *,
    step: str,
    batch_size: int,
    devices: Sequence[jax.Device],
    rounds: int,
    augment: data.Augment | None,
    **how: Any,
) -> Input:
    """Times reading, augmentation, a step, and training from each cache.

    Args:
      dataset: the split to train on, of which few images are used.
      recipe: what is trained.
      step: name of its step.
      batch_size: images per step.
      devices: devices to train on.
      rounds: least number of batches in each of `PASSES` measurements of a row.
      augment: see `make_steps`. If it is None, `data.augment` is timed all the same.
      **how: further arguments of `make_steps`.
    """
    images = min(len(dataset), max(1, rounds) * batch_size)
    dataset = data.Dataset(dataset.source, dataset.indices[:images], dataset.class_names)
    tasks, size = recipe.network.tasks, dataset.image_size
    chosen = {"batch_size": batch_size, "seed": 0}
    feeds = {
        cache: data.make_feed(
            dataset, tasks, cache=cache, labelled_per_batch=None, devices=devices, **chosen
        )
        for cache in data.CACHES
    }
    steps = make_steps(
        recipe,
        image_size=size,
        batch_size=batch_size,
        devices=devices,
        augment=augment,
        **how,
    )
    state = parallel.replicate(init_state(recipe, seed=0, image_size=size), devices)
    batch = feeds["none"].at(0)
    compiled, _ = compile_ahead(steps.update, state, batch)
    stepper = Stepper(compiled, state, batch)
    stored = data.batch_at(dataset, tasks, step=0, **chosen)
    rows: dict[str, Callable[[], Results]] = {
        "reading, one thread": partial(_one_by_one, dataset, batch_size),
        "reading batches": lambda: (
            data.batch_at(dataset, tasks, step=number, **chosen) for number in itertools.count()
        ),
        **{f"batches on the device, --cache={x}": partial(_ahead, y) for x, y in feeds.items()},
        "augmentation": partial(_augmented, stored, recipe, augment or data.augment),
        step: lambda: (stepper() for _ in itertools.count()),
        **{f"training, --cache={x}": partial(_trained, stepper, y) for x, y in feeds.items()},
    }
    seconds = take_turns(rows, rounds)
    return Input(
        {name: batch_size / taken for name, taken in seconds.items()},
        step,
        rounds,
        {
            "files": _file_megabytes(dataset),
            "batch": sum(x.nbytes for x in stored.values()) / batch_size / 1e6,
        },
    )


def take_turns(rows: Mapping[str, Callable[[], Results]], rounds: int) -> dict[str, float]:
    """Returns median seconds per result of each generator, from its second result on.

    Args:
      rows: functions that make generators, by name.
      rounds: least number of results that are timed at once; fast ones take `SHORTEST` seconds.
    """
    times: dict[str, list[float]] = {name: [] for name in rows}
    for _ in range(PASSES):
        for name, make in rows.items():
            with contextlib.closing(make()) as results:
                times[name].append(_seconds(results, rounds))
    return {name: statistics.median(taken) for name, taken in times.items()}


def _seconds(results: Results, rounds: int) -> float:
    """Returns seconds per result; one is waited for when the next one is on its way."""
    last, count = jax.block_until_ready(next(results)), 0
    start = time.perf_counter()
    while count < rounds or time.perf_counter() - start < SHORTEST:
        result = next(results)
        jax.block_until_ready(last)
        last, count = result, count + 1
    jax.block_until_ready(last)
    return (time.perf_counter() - start) / count


def write(measured: Input, folder: Path, *, what: str) -> str:
    """Writes `input.json` and `input.md`, and returns the text of the latter.

    Args:
      measured: from `measure`.
      folder: created if it does not exist.
      what: describes what was measured.

    Raises:
      OSError: if a file can't be written, naming it.
    """
    text = to_markdown(measured, what=what)
    page.write(folder, "input", text, {**measured._asdict(), "what": what})
    return text


def to_markdown(measured: Input, *, what: str) -> str:
    """Returns the table of `input.md`; see `write`."""
    rates, size = measured.images_per_second, measured.megabytes
    takes = rates[measured.step]
    parts = [
        f"{what}. Medians of {PASSES} measurements of each row, in turn, of "
        f"{measured.rounds} batches or more.\n",
        "| | images/s | × the step alone |",
        "|:--|--:|--:|",
    ]
    parts += [
        f"| {name} | {_short(rate)} | {_short(rate / takes)} |" for name, rate in rates.items()
    ]
    memory = f"An image and its labels take {size['batch']:.3f} MB in memory"
    if size["files"] is not None:
        memory += (
            f" and {size['files']:.3f} MB in files: for {_short(takes)} images/s, a disk must give "
            f"{_short(takes * size['files'])} MB/s where the files are not in memory"
        )
    return "\n".join([*parts, "", f"{memory}."]) + "\n"


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _file_megabytes(dataset: data.Dataset) -> float | None:
    size = getattr(dataset.source, "bytes_per_example", None)
    return None if size is None else size / 1e6


def _one_by_one(dataset: data.Dataset, batch_size: int) -> Results:
    places = itertools.cycle(map(int, dataset.indices))
    while True:
        yield [dataset.source[next(places)] for _ in range(batch_size)]


def _ahead(feed: data.Feed) -> Results:
    yield from data.prefetch(itertools.count(), feed.at)


def _augmented(stored: Arrays, recipe: Recipe, augment: data.Augment) -> Results:
    """Augments a batch on one device again and again, as the step does."""
    tasks = recipe.network.tasks

    @jax.jit
    def augmented(keys: jax.Array, batch: Batch) -> Batch:
        batch = data.decode(batch, tasks)
        return augment(keys, batch, tasks)

    keys = jax.random.split(jax.random.key(0), len(stored["image"]))
    batch = jax.device_put(stored)
    while True:
        yield augmented(keys, batch)


def _trained(stepper: Stepper, feed: data.Feed) -> Results:
    for stepper.batch in data.prefetch(itertools.count(), feed.at):
        yield stepper()
