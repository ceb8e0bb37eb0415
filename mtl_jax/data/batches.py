"""From a split to batches; the order is a pure function of (seed, step)."""

import collections
import functools
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mtl_jax.data.splits import Dataset
from mtl_jax.tasks import IMAGE, INTRINSICS, Entry, Task
from mtl_jax.tasks.task import StoredBatch

Arrays = dict[str, np.ndarray]
# See `prefetch`.
AHEAD = 2
# Reading is mostly decompression, during which Python runs other threads. They start when needed.
_READERS = ThreadPoolExecutor(min(16, os.cpu_count() or 1), "read")


class Chosen(NamedTuple):
    """The images of a batch.

    Attributes:
      places: numbers of the images in the source, i64[B].
      shown: whether each shows its withheld labels, bool[B].
    """

    places: np.ndarray
    shown: np.ndarray


def entries_of(tasks: Sequence[Task]) -> dict[str, Entry]:
    """Returns all entries that the tasks read or are judged by, by name, image and camera first."""
    known = [IMAGE, INTRINSICS, *(x for task in tasks for x in (*task.reads, *task.labels))]
    return {entry.name: entry for entry in known}


def training_entries(tasks: Sequence[Task]) -> tuple[str, ...]:
    """Returns the names of a training batch's entries: images and what the tasks' losses read."""
    read = [IMAGE, INTRINSICS, *(entry for task in tasks for entry in task.reads)]
    return tuple(dict.fromkeys(entry.name for entry in read))


def evaluation_entries(tasks: Sequence[Task]) -> tuple[str, ...]:
    """Returns the names of an evaluation batch's entries: those of training and the labels."""
    judged_by = [entry.name for task in tasks for entry in task.labels]
    return tuple(dict.fromkeys([*training_entries(tasks), *judged_by]))


def steps_per_epoch(dataset: Sized, batch_size: int) -> int:
    """Returns the number of whole batches in the split; the images left over vary by epoch.

    Published PyTorch code keeps them as a smaller batch: 795 images in batches of 2 make 398 steps
    there and 397 here.

    Raises:
      ValueError: for a batch size that gives none.
    """
    if not 0 < batch_size <= len(dataset):
        raise ValueError(
            f"`batch_size`={batch_size}: must be 1 to {len(dataset)}, the images to train on"
        )
    return len(dataset) // batch_size


def labelled_images(
    tasks: Sequence[Task], *, batch_size: int, labelled_per_batch: int | None = None
) -> int:
    """Returns how many images of each batch have the labels that may be withheld.

    Args:
      labelled_per_batch: the number asked for; None for half of the batch. It has no effect if all
        tasks read only labels that may be withheld, because every image must then have them, or if
        no task reads any.

    Raises:
      ValueError: for a number that is not in 1 to `batch_size`, or half of a single image.
    """
    read = [[entry.withheld for entry in task.reads] for task in tasks]
    if all(each and all(each) for each in read) or not any(any(each) for each in read):
        return batch_size
    if labelled_per_batch is None and batch_size == 1:
        raise ValueError(
            "`batch_size`=1: half of it can't be labelled: set at least 2, or "
            "`labelled_per_batch`=1 to train on labelled images alone"
        )
    count = batch_size // 2 if labelled_per_batch is None else labelled_per_batch
    if not 1 <= count <= batch_size:
        raise ValueError(
            f"`labelled_per_batch`={count}: must be 1 to {batch_size}, the images of a batch"
        )
    return count


def chosen_at(
    dataset: Dataset,
    tasks: Sequence[Task],
    *,
    batch_size: int,
    seed: int,
    step: int,
    labelled_per_batch: int | None = None,
) -> Chosen:
    """Returns the images of a training step, as a pure function of the arguments.

    Args:
      dataset: the split to draw from.
      seed: seed of the order.
      step: number of the step, from 0.
      labelled_per_batch: if labels were withheld, how many images of each batch show them; see
        `labelled_images`. Images with and without labels are shuffled separately, so the labelled
        ones come more often for every task: seven times as often as the others, if they are an
        eighth of the images and half of each batch.

    Returns:
      The labelled images first. Tasks that read no withheld labels see all images alike.
    """
    reads_withheld = any(entry.withheld for task in tasks for entry in task.reads)
    if dataset.labelled is None or not reads_withheld:
        epoch, index = divmod(step, steps_per_epoch(dataset, batch_size))
        order = _order((seed, epoch), len(dataset))
        places = dataset.indices[order[index * batch_size : (index + 1) * batch_size]]
        return Chosen(places, np.ones(batch_size, bool))
    count = labelled_images(tasks, batch_size=batch_size, labelled_per_batch=labelled_per_batch)
    with_labels = _round_robin(dataset.indices[dataset.labelled], (seed, 1), step, count)
    without = _round_robin(dataset.indices[~dataset.labelled], (seed, 2), step, batch_size - count)
    return Chosen(np.array(with_labels + without), np.arange(batch_size) < count)


def _round_robin(
    indices: np.ndarray, seed: tuple[int, ...], step: int, count: int
) -> list[np.ndarray]:
    """Returns the `count` images of a step; each image comes once before any comes again."""
    places = range(step * count, (step + 1) * count)
    rounds = {place // len(indices) for place in places}
    orders = {n: indices[_order((*seed, n), len(indices))] for n in rounds}
    return [orders[place // len(indices)][place % len(indices)] for place in places]


# A step needs up to four orders: two epochs of the labelled images, and two of the others. Without
# the cache each step would shuffle the whole split.
@functools.lru_cache(maxsize=4)
def _order(seed: tuple[int, ...], count: int) -> np.ndarray:
    """Returns the numbers 0 to `count` - 1 in a random order."""
    order = np.random.default_rng(seed).permutation(count)
    order.flags.writeable = False
    return order


def read(dataset: Dataset, places: np.ndarray) -> Iterator[Mapping[str, np.ndarray]]:
    """Reads the examples of these numbers in the source, several at a time, in order."""
    return _READERS.map(dataset.source.__getitem__, map(int, places))


def load(dataset: Dataset, tasks: Sequence[Task], chosen: Chosen) -> Arrays:
    """Reads the entries that the tasks learn from; labels that are not shown are missing."""
    examples = list(read(dataset, chosen.places))
    batch = batch_of(examples, training_entries(tasks))
    for entry in entries_of(tasks).values():
        if entry.withheld and entry.name in batch:
            batch[entry.name][~chosen.shown] = entry.missing
    return batch


def batch_at(
    dataset: Dataset,
    tasks: Sequence[Task],
    *,
    batch_size: int,
    seed: int,
    step: int,
    labelled_per_batch: int | None = None,
) -> Arrays:
    """Reads the training batch of a step, see `chosen_at`."""
    chosen = chosen_at(
        dataset,
        tasks,
        batch_size=batch_size,
        seed=seed,
        step=step,
        labelled_per_batch=labelled_per_batch,
    )
    return load(dataset, tasks, chosen)


def in_memory(dataset: Dataset, entries: Sequence[str]) -> Dataset:
    """Returns the split with these entries of all its examples in memory, each read once."""
    examples = read(dataset, dataset.indices)
    kept = [{name: np.asarray(example[name]) for name in entries} for example in examples]
    facts = dataset.class_names, dataset.labelled, dataset.stream
    return Dataset(kept, np.arange(len(kept)), *facts)


def evaluation_batches(
    dataset: Dataset, tasks: Sequence[Task], *, batch_size: int
) -> Iterator[Arrays]:
    """Yields all examples once, in order; images without labels fill up the last batch."""
    known = entries_of(tasks)
    for start in range(0, len(dataset), batch_size):
        examples = list(read(dataset, dataset.indices[start : start + batch_size]))
        # Intrinsics of zero mark an image that only fills up the batch.
        blank = {
            name: np.full_like(examples[0][name], entry.missing) for name, entry in known.items()
        }
        blank[IMAGE.name] = examples[0][IMAGE.name]
        yield batch_of(examples + [blank] * (batch_size - len(examples)), tuple(known))


def batch_of(examples: Sequence[Mapping[str, np.ndarray]], entries: Sequence[str]) -> Arrays:
    """Stacks these entries of the examples, such as `image` u8[B, H, W, 3], several at a time.

    It must not be called by a thread that reads, which would wait for the others.
    """

    def stacked(name: str) -> np.ndarray:
        return np.stack([example[name] for example in examples])

    return dict(zip(entries, _READERS.map(stacked, entries), strict=True))


def decode(batch: StoredBatch, tasks: Sequence[Task]) -> dict[str, jax.Array]:
    """Decodes a stored batch: float32, images in 0..1, unit normals; for use in jit."""
    known = entries_of(tasks)
    arrays = {name: jnp.asarray(x) for name, x in batch.items()}
    return {name: known[name].decode(x) if name in known else x for name, x in arrays.items()}


def prefetch(items: Iterable[Any], transform: Callable[[Any], Any]) -> Iterator:
    """Yields `transform(item)` for each item, computed by a thread up to `AHEAD` items in advance.

    An exception in the thread is raised here, after all items before it. The thread ends with this
    generator, at the latest before Python exits, since a computation that outlives the interpreter
    crashes it.
    """
    items, end = iter(items), object()

    def make() -> Any:
        item = next(items, end)
        return end if item is end else transform(item)

    with ThreadPoolExecutor(1) as pool:
        ahead = collections.deque(pool.submit(make) for _ in range(AHEAD))
        while (made := ahead.popleft().result()) is not end:
            ahead.append(pool.submit(make))
            yield made
