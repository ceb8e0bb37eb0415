"""The splits of a data set, and which of their labels are visible."""

import hashlib
from collections.abc import Container, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol

import numpy as np

from mtl_jax.data.stream import Stream
from mtl_jax.tasks import TASKS, Entry, Task

# The held-out images are the same for every seed of a run, so that runs can be compared.
VALIDATION_SEED = 0
# Differs from the seeds of the order, so that the images that keep their labels are not always the
# first ones.
LABEL_SEED = 2**16
# See `sample_labels`.
SAMPLED_IMAGES, SAMPLED_PIXELS = 200, 500
# See `counted_images`.
COUNTED_IMAGES = 10_000
NO_ADVICE: Mapping[str, str] = MappingProxyType({})


class Dataset(NamedTuple):
    """One split of a data set.

    Attributes:
      source: random access to examples, dicts of arrays (see `batch_of`).
      indices: which of them belong to the split, i64[n].
      class_names: of the classes in its labels, by index.
      labelled: whether each of them may show the labels that `withhold_labels` hides, bool[n]; None
        if all may.
      stream: images that a training run makes and takes in their place; None if it takes these.
    """

    source: Sequence[dict[str, np.ndarray]]
    indices: np.ndarray
    class_names: tuple[str, ...]
    labelled: np.ndarray | None = None
    stream: Stream | None = None

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def image_size(self) -> tuple[int, int]:
        """Returns height and width of the images in pixels."""
        return self.source[0]["image"].shape[:2]


class Builder(Protocol):
    """The part of a prepared `tfds.core.DatasetBuilder` that is used here."""

    @property
    def info(self) -> Any:
        """Returns the facts about the data set; its `metadata` holds `class_names`."""

    def as_data_source(self, *, split: str) -> Any:
        """Returns random access to the examples of a split."""


def open_splits(
    builder: Builder, *, validation: int = 0, stream: Stream | None = None
) -> dict[str, Dataset]:
    """Returns the splits `train`, `test` and, held out of train, `validation` of a data set.

    Args:
      builder: builder of a data set with the splits train and test.
      validation: number of training images to hold out; 0 gives no such split.
      stream: images that a training run makes and takes in place of those of `train`.

    Raises:
      ValueError: if that many images can't be held out.
    """
    names = tuple(builder.info.metadata["class_names"])
    train, test = (builder.as_data_source(split=split) for split in ("train", "test"))
    if not 0 <= validation < len(train):
        raise ValueError(
            f"`validation`={validation}: 0 to {len(train) - 1} of the {len(train)} training images "
            "can be held out"
        )
    held_out, kept = np.split(
        np.random.default_rng(VALIDATION_SEED).permutation(len(train)), [validation]
    )
    splits = {
        "train": Dataset(train, np.sort(kept), names, stream=stream),
        "test": Dataset(test, np.arange(len(test)), names),
    }
    if validation:
        splits["validation"] = Dataset(train, np.sort(held_out), names)
    return splits


def withhold_labels(dataset: Dataset, *, label_fraction: float, label_seed: int = 0) -> Dataset:
    """Returns the split with the costly labels of only a part of its images.

    `Entry.withheld` marks the labels that are hidden: those that people draw by hand, such as
    classes. The parts of one seed are nested: the images of an eighth are among those of a quarter.
    They are drawn at random, because the classes of an image are not known before it is labelled.

    Args:
      dataset: the split to learn from.
      label_fraction: part of the images that keep their labels, rounded to at least one image.
      label_seed: seed of their choice.

    Raises:
      ValueError: for a `label_fraction` outside of 0 (excluded) to 1, or one below 1 where images
        are made while training.
    """
    check_fraction(label_fraction, dataset.stream)
    count = max(1, round(label_fraction * len(dataset)))
    if count == len(dataset):
        return dataset
    order = np.random.default_rng((LABEL_SEED, label_seed)).permutation(len(dataset))
    labelled = np.zeros(len(dataset), bool)
    labelled[order[:count]] = True
    return Dataset(dataset.source, dataset.indices, dataset.class_names, labelled)


def check_fraction(label_fraction: float, stream: Stream | None) -> None:
    """Raises ValueError for a fraction that `withhold_labels` refuses."""
    if not 0 < label_fraction <= 1:
        raise ValueError(f"`label_fraction`={label_fraction}: must be more than 0 and at most 1")
    if label_fraction < 1 and stream is not None:
        raise ValueError(
            f"`label_fraction`={label_fraction}: images that are made while training have all "
            "labels; take a `dataset` without stream=true"
        )


def sample_labels(dataset: Dataset, entry: Entry) -> np.ndarray:
    """Returns labels f64[n, C] of random labelled pixels of random images of a split.

    They are at most `SAMPLED_PIXELS` pixels of each of at most `SAMPLED_IMAGES` images, the same
    ones in every call.

    Args:
      entry: vectors [H, W, C] in its examples, such as the normals.
    """
    generator = np.random.default_rng(0)
    sampled = []
    for index in generator.permutation(dataset.indices)[:SAMPLED_IMAGES]:
        labels = dataset.source[int(index)][entry.name]
        labels = labels.reshape(-1, labels.shape[-1]).astype(np.float64)
        known = labels[np.any(labels != entry.missing, axis=-1)]
        sampled.append(generator.permutation(known)[:SAMPLED_PIXELS])
    return np.concatenate(sampled)


def counted_images(indices: np.ndarray) -> np.ndarray:
    """Returns the images whose labels are counted: all, or `COUNTED_IMAGES` spread evenly.

    Shares of classes and means of a large set don't need all of its labels, which take minutes to
    read.
    """
    count = min(len(indices), COUNTED_IMAGES)
    return indices[np.linspace(0, len(indices) - 1, count).astype(int)]


def count_labels(dataset: Dataset, task: Task) -> np.ndarray:
    """Returns the sum of a task's `Trivial.count` over the labels that a split shows.

    Of a large split, only those of the `counted_images` count.
    """
    shown = dataset.indices
    if dataset.labelled is not None and any(entry.withheld for entry in task.labels):
        shown = shown[dataset.labelled]
    total = np.zeros(())
    for index in counted_images(shown):
        example = dataset.source[int(index)]
        stored = {entry.name: example[entry.name][None] for entry in task.labels}
        labels = np.asarray(task.label(stored))[0]
        total = total + task.trivial.count(labels, len(dataset.class_names))
    return total


def check_labels(
    entries: Container[str], tasks: Sequence[Task], *, advice: Mapping[str, str] = NO_ADVICE
) -> None:
    """Checks that a data set has the entries that the tasks learn from and are judged by.

    Args:
      entries: names of the entries of the data set's examples.
      advice: as in `Outline`.

    Raises:
      ValueError: if something is missing.
    """
    labelled = [
        task.name for task in TASKS.values() if all(entry.name in entries for entry in task.labels)
    ]
    fitting = ",".join(
        task.name
        for task in tasks
        if all(entry.name in entries for entry in (*task.reads, *task.labels))
    )
    for task in tasks:
        for entry in (*task.reads, *task.labels):
            if entry.name not in entries:
                default = next(iter(task.loss_labels))
                other = entry not in task.labels and task.loss_name != default
                instead = f" or set `{task.name}_loss`={default}" if other else ""
                as_in = f", as in `tasks`={fitting}" if fitting and entry in task.labels else ""
                raise ValueError(
                    f"the data set has no {entry.name}: leave {task.name} out of `tasks`{as_in}"
                    f"{instead}"
                    f"{', or ' * (entry.name in advice)}{advice.get(entry.name, '')} "
                    f"(it has labels for {', '.join(labelled) or 'no task'})"
                )


def image_digest(image: np.ndarray) -> bytes:
    """Returns 32 bytes that identify an image."""
    return hashlib.sha256(image.tobytes()).digest()


def common_images(first: Dataset, second: Dataset) -> int:
    """Returns how many images of the second split occur in the first one, byte for byte.

    A source that has them as `image_digests`, a list of `image_digest` of each of its images, isn't
    read.
    """

    def digests(dataset: Dataset) -> list[bytes]:
        stored = getattr(dataset.source, "image_digests", None)
        if stored is not None:
            return [stored[int(i)] for i in dataset.indices]
        return [image_digest(dataset.source[int(i)]["image"]) for i in dataset.indices]

    known = set(digests(first))
    return sum(digest in known for digest in digests(second))
