"""How many images of a data set have labels."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from mtl_jax.data.splits import Dataset
from mtl_jax.runs.labels import IMAGES
from mtl_jax.tasks import Entry, Task


def labels_found(
    splits: Mapping[str, Dataset], split: str, tasks: Sequence[Task]
) -> dict[str, dict[str, int]]:
    """Counts the images with labels.

    Args:
      splits: with `train`, whose withheld labels are marked.
      split: the one that is evaluated.
      tasks: tasks to count for.

    Returns:
      `trained`: the number of images of `train`, as `images`, and for each task the number of those
        that it learns from, which show something of all that its loss reads. If images are made
        while training, the numbers are those of an epoch.
      `present`: the same with the labels by which a task is judged, withheld ones included.
      `judged`: the same of `split`.
    """
    entries = {entry.name: entry for task in tasks for entry in (*task.reads, *task.labels)}
    labels = {task.name: task.labels for task in tasks}
    train = splits["train"]
    known = _known(train, entries)
    trained = _count(known, {task.name: task.reads for task in tasks})
    if train.labelled is not None:
        shown = {name: known[name] & train.labelled for name in entries if entries[name].withheld}
        trained = _count(known | shown, {task.name: task.reads for task in tasks})
    if train.stream is not None:
        trained = dict.fromkeys(trained, train.stream.images)
    present = _count(known, labels)
    judged = present if split == "train" else _count(_known(splits[split], entries), labels)
    return {"trained": trained, "present": present, "judged": judged}


def _known(dataset: Dataset, entries: Mapping[str, Entry]) -> dict[str, np.ndarray]:
    """Returns whether each image of a split shows something known of each entry, bool[N] by name.

    A source that has them as `lacking`, entry -> numbers of the images without it, isn't read.
    """
    lacking = getattr(dataset.source, "lacking", None)
    if lacking is not None and entries.keys() <= lacking.keys():
        return {name: ~np.isin(dataset.indices, lacking[name]) for name in entries}
    examples = (dataset.source[int(index)] for index in dataset.indices)
    known = [
        [bool(np.any(example[name] != entry.missing)) for name, entry in entries.items()]
        for example in examples
    ]
    columns = np.array(known, bool).reshape(len(dataset), len(entries)).T
    return dict(zip(entries, columns, strict=True))


def _count(
    known: Mapping[str, np.ndarray], wanted: Mapping[str, Iterable[Entry]]
) -> dict[str, int]:
    """Returns the number of the images, and of those with all that is wanted for each task."""
    images = len(next(iter(known.values())))
    counts = {
        name: int(np.count_nonzero(np.all([known[entry.name] for entry in entries], axis=0)))
        for name, entries in wanted.items()
    }
    return {IMAGES: images, **counts}
