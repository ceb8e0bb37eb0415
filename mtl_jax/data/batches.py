"""From a TFDS data source to batches; the order is a pure function of (seed, step)."""

import collections
import hashlib
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mtl_jax.tasks import Task, losses

# The held-out images are the same whatever the seed of a run, so that runs can be compared.
VALIDATION_SEED = 0
# Apart from the seeds of the order, lest the same images come first and keep their labels.
LABEL_SEED = 2**16


class Dataset(NamedTuple):
    """One split.

    Attributes:
      source: random access to examples, dicts of arrays (see `batch_of`).
      indices: which of them belong to the split, i64[n].
      class_names: of the segmentation's classes, by index.
      labelled: whether each of them may show its segmentation, bool[n]; None if all do.
    """

    source: Sequence[dict[str, np.ndarray]]
    indices: np.ndarray
    class_names: tuple[str, ...]
    labelled: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width of the images in pixels."""
        return self.source[0]["image"].shape[:2]


def open_splits(builder: Any, *, validation: int = 0) -> dict[str, Dataset]:
    """Splits `train`, `test` and, held out of train, `validation` of a prepared TFDS builder.

    Args:
      builder: a prepared `tfds.core.DatasetBuilder` of the two splits train and test, whose
        metadata holds `class_names`.
      validation: number of training images to hold out; 0 gives no such split.

    Raises:
      ValueError: if that many can't be held out.
    """
    names = tuple(builder.info.metadata["class_names"])
    train, test = (builder.as_data_source(split=split) for split in ("train", "test"))
    if not 0 <= validation < len(train):
        raise ValueError(
            f"--validation={validation}: 0 to {len(train) - 1} of the {len(train)} training images "
            "can be held out"
        )
    held_out, kept = np.split(
        np.random.default_rng(VALIDATION_SEED).permutation(len(train)), [validation]
    )
    splits = {
        "train": Dataset(train, np.sort(kept), names),
        "test": Dataset(test, np.arange(len(test)), names),
    }
    if validation:
        splits["validation"] = Dataset(train, np.sort(held_out), names)
    return splits


def withhold_labels(dataset: Dataset, *, fraction: float, seed: int = 0) -> Dataset:
    """The split with the segmentation of only a part of its images; depth and normals stay.

    The parts of one seed are nested: the images of an eighth are among those of a quarter. They are
    drawn at random, since whoever chooses images to label doesn't know their classes yet.

    Args:
      dataset: to learn from.
      fraction: of the images that keep their segmentation, rounded to whole images, at least one.
      seed: which of them.

    Raises:
      ValueError: for a fraction that is not in 0 (excluded) to 1.
    """
    if not 0 < fraction <= 1:
        raise ValueError(f"--label_fraction={fraction}: must be more than 0 and at most 1")
    count = max(1, round(fraction * len(dataset)))
    if count == len(dataset):
        return dataset
    order = np.random.default_rng((LABEL_SEED, seed)).permutation(len(dataset))
    labelled = np.zeros(len(dataset), bool)
    labelled[order[:count]] = True
    return Dataset(dataset.source, dataset.indices, dataset.class_names, labelled)


def sample_normals(
    dataset: Dataset, *, images: int = 200, pixels: int = 500, seed: int = 0
) -> np.ndarray:
    """Unit normals f64[n, 3] of random pixels of random images of a split."""
    generator = np.random.default_rng(seed)
    sampled = []
    for index in generator.permutation(dataset.indices)[:images]:
        normals = dataset.source[int(index)]["normals"].reshape(-1, 3).astype(np.float64)
        normals = generator.permutation(normals[np.any(normals != 0, axis=-1)])[:pixels]
        sampled.append(normals / np.linalg.norm(normals, axis=-1, keepdims=True))
    return np.concatenate(sampled)


def check_labels(entries: Container[str], tasks: Sequence[Task]) -> None:
    """Makes sure that the data set has what the tasks learn from, and are judged by.

    Args:
      entries: what an example of the data set holds.
      tasks: to learn.

    Raises:
      ValueError: if it has none for one of them.
    """
    for task in tasks:
        for name in (*task.reads, task.name):
            if name not in entries:
                instead = " or set --depth_loss=l1" if name in ("image_right", "baseline") else ""
                raise ValueError(
                    f"the data set has no {name}: leave {task.name} out of --tasks{instead}"
                )


def steps_per_epoch(dataset: Dataset, batch_size: int) -> int:
    """Whole batches in the split; the images left over differ from epoch to epoch.

    The loaders of published PyTorch code keep them as a smaller batch, so that 795 images in
    batches of 2 are 398 steps there and 397 here.

    Raises:
      ValueError: for a batch size that gives none.
    """
    if not 0 < batch_size <= len(dataset):
        raise ValueError(
            f"--batch_size={batch_size}: must be 1 to {len(dataset)}, the images to train on"
        )
    return len(dataset) // batch_size


def labelled_images(tasks: Sequence[Task], *, batch_size: int, labelled: int | None = None) -> int:
    """How many images of each batch show their segmentation, where it was withheld from others.

    Args:
      tasks: to learn.
      batch_size: number of images.
      labelled: the number asked for; None for half of the batch. Segmentation as the only task
        takes labelled images alone, and without segmentation it does not matter which these are.

    Raises:
      ValueError: for a number that is not in 1 to `batch_size`, or half of a single image.
    """
    if all(task.reads == ("segmentation",) for task in tasks) or not _reads_segmentation(tasks):
        return batch_size
    if labelled is None and batch_size == 1:
        raise ValueError(
            "--batch_size=1: half of it can't be labelled: set at least 2, or "
            "--labelled_per_batch=1 to train on labelled images alone"
        )
    count = batch_size // 2 if labelled is None else labelled
    if not 1 <= count <= batch_size:
        raise ValueError(
            f"--labelled_per_batch={count}: must be 1 to {batch_size}, the images of a batch"
        )
    return count


def _reads_segmentation(tasks: Sequence[Task]) -> bool:
    return any("segmentation" in task.reads for task in tasks)


class Chosen(NamedTuple):
    """The images of a batch.

    Attributes:
      places: of the examples in the source, i64[B].
      shown: whether each shows its segmentation, bool[B].
    """

    places: np.ndarray
    shown: np.ndarray


def chosen_at(
    dataset: Dataset,
    tasks: Sequence[Task],
    *,
    batch_size: int,
    seed: int,
    step: int,
    labelled: int | None = None,
) -> Chosen:
    """The images of a training step, a pure function of its arguments.

    Args:
      dataset: to draw from.
      tasks: to learn.
      batch_size: number of images.
      seed: of the order.
      step: the number of the step.
      labelled: where segmentation was withheld, how many images of each batch show it, see
        `labelled_images`. Those with and those without labels come round in orders of their own,
        so that for every task the labelled images come more often: with half of each batch and an
        eighth of the images, seven times as often as the others.

    Returns:
      The labelled images first. Tasks that read no segmentation see all images alike.
    """
    if dataset.labelled is None or not _reads_segmentation(tasks):
        epoch, index = divmod(step, steps_per_epoch(dataset, batch_size))
        order = np.random.default_rng((seed, epoch)).permutation(len(dataset))
        places = dataset.indices[order[index * batch_size : (index + 1) * batch_size]]
        return Chosen(places, np.ones(batch_size, bool))
    count = labelled_images(tasks, batch_size=batch_size, labelled=labelled)
    with_labels = _round_robin(dataset.indices[dataset.labelled], (seed, 1), step, count)
    without = _round_robin(dataset.indices[~dataset.labelled], (seed, 2), step, batch_size - count)
    return Chosen(np.array(with_labels + without), np.arange(batch_size) < count)


def load(dataset: Dataset, chosen: Chosen, entries: Sequence[str]) -> dict[str, np.ndarray]:
    """These entries of chosen images, void where their segmentation is not shown."""
    batch = batch_of([dataset.source[int(place)] for place in chosen.places], entries)
    if "segmentation" in batch:
        batch["segmentation"][~chosen.shown] = -1
    return batch


def batch_at(dataset: Dataset, tasks: Sequence[Task], **which: Any) -> dict[str, np.ndarray]:
    """The training batch of a step, of the images that `chosen_at` names."""
    return load(dataset, chosen_at(dataset, tasks, **which), training_entries(tasks))


def in_memory(dataset: Dataset, entries: Sequence[str]) -> Dataset:
    """The split with these entries of all its examples read once and kept."""
    examples = [dataset.source[int(place)] for place in dataset.indices]
    kept = [{name: np.asarray(example[name]) for name in entries} for example in examples]
    return Dataset(kept, np.arange(len(kept)), dataset.class_names, dataset.labelled)


def _round_robin(
    indices: np.ndarray, seed: tuple[int, ...], step: int, count: int
) -> list[np.ndarray]:
    """The `count` images of a step; each image comes once before any comes again."""
    places = range(step * count, (step + 1) * count)
    rounds = {place // len(indices) for place in places}
    orders = {n: np.random.default_rng((*seed, n)).permutation(indices) for n in rounds}
    return [orders[place // len(indices)][place % len(indices)] for place in places]


def common_images(first: Dataset, second: Dataset) -> int:
    """How many images of the second split occur in the first one, byte by byte."""

    def digests(dataset: Dataset) -> list[bytes]:
        images = (dataset.source[int(i)]["image"] for i in dataset.indices)
        return [hashlib.sha256(np.ascontiguousarray(image)).digest() for image in images]

    known = set(digests(first))
    return sum(digest in known for digest in digests(second))


def evaluation_batches(
    dataset: Dataset, tasks: Sequence[Task], *, batch_size: int
) -> Iterator[dict[str, np.ndarray]]:
    """Every example once, in order; the last batch is filled up with images without labels."""
    for start in range(0, len(dataset), batch_size):
        chosen = dataset.indices[start : start + batch_size]
        examples = [dataset.source[int(i)] for i in chosen]
        entries = evaluation_entries(tasks)
        blank = {name: np.zeros_like(examples[0][name]) for name in entries}
        # Intrinsics of zero say that there is no image.
        blank["image"] = examples[0]["image"]
        for task in tasks:
            blank[task.name] = np.full_like(examples[0][task.name], task.missing)
        yield batch_of(examples + [blank] * (batch_size - len(examples)), entries)


def training_entries(tasks: Sequence[Task]) -> tuple[str, ...]:
    """What a training batch holds: the images and what the tasks' losses read."""
    return tuple(dict.fromkeys(["image", "intrinsics", *(x for task in tasks for x in task.reads)]))


def evaluation_entries(tasks: Sequence[Task]) -> tuple[str, ...]:
    """What an evaluation batch holds: the same, and the labels by which the tasks are judged."""
    return tuple(dict.fromkeys([*training_entries(tasks), *(task.name for task in tasks)]))


def batch_of(
    examples: Sequence[dict[str, np.ndarray]], entries: Sequence[str]
) -> dict[str, np.ndarray]:
    """These entries of the examples stacked, such as `image` u8[B, H, W, 3]."""
    return {name: np.stack([example[name] for example in examples]) for name in entries}


def decode(batch: dict[str, jax.Array]) -> dict[str, jax.Array]:
    """A stored batch as the model sees it (inside jit): float32, images in 0..1, unit normals."""
    decoded = {**batch, "image": batch["image"].astype(jnp.float32) / 255.0}
    if "image_right" in batch:
        decoded["image_right"] = batch["image_right"].astype(jnp.float32) / 255.0
    if "segmentation" in batch:
        decoded["segmentation"] = batch["segmentation"].astype(jnp.int32)
    if "depth" in batch:
        decoded["depth"] = batch["depth"].astype(jnp.float32)
    if "normals" in batch:
        # Stored in half precision, whose rounding leaves lengths of one only to a thousandth.
        decoded["normals"] = losses.normalize(batch["normals"].astype(jnp.float32))
    return decoded


def prefetch(items: Iterable[Any], transform: Callable[[Any], Any], *, size: int = 2) -> Iterator:
    """Yields `transform(item)` of each item, made up to `size` ahead by a thread.

    An exception in the thread is raised here, after all items before it. The thread has ended when
    this has, and at the latest before Python does: what still computes then would crash it.
    """
    items, end = iter(items), object()

    def make() -> Any:
        item = next(items, end)
        return end if item is end else transform(item)

    with ThreadPoolExecutor(1) as pool:
        ahead = collections.deque(pool.submit(make) for _ in range(size))
        while (made := ahead.popleft().result()) is not end:
            ahead.append(pool.submit(make))
            yield made
