"""How many images of a data set have labels."""

from collections.abc import Mapping, Sequence

import numpy as np

from mtl_jax.data.splits import Dataset
from mtl_jax.tasks import Entry, Task

# Number of the images of a split, next to those with labels of each task.
IMAGES = "images"


def labels_found(
    splits: Mapping[str, Dataset], split: str, tasks: Sequence[Task]
) -> dict[str, dict[str, int]]:
    """Counts the images with labels.

    Args:
      splits: with `train`, whose withheld labels are marked.
      split: the one that is evaluated.
      tasks: tasks to count for.

    Returns:
      `trained`: number of the images of `train`, as `images`, and of those that each task learns
        from: that show something of all that its loss reads.
      `present`: the same with the labels by which a task is judged, withheld ones included.
      `judged`: the same of `split`.
    """
    train = splits["train"]
    reads, labels = ({task.name: getattr(task, x) for task in tasks} for x in ("reads", "labels"))
    visible = np.ones(len(train), bool) if train.labelled is None else train.labelled
    trained, present = (dict.fromkeys((IMAGES, *labels), 0) for _ in range(2))
    for index, shown in zip(train.indices, visible, strict=True):
        example = train.source[int(index)]
        for name in labels:
            hidden = not shown and any(entry.withheld for entry in reads[name])
            trained[name] += not hidden and _has(example, reads[name])
            present[name] += _has(example, labels[name])
    trained[IMAGES] = present[IMAGES] = len(train)
    judged = present if split == "train" else _count(splits[split], labels)
    return {"trained": trained, "present": present, "judged": judged}


def _count(dataset: Dataset, wanted: Mapping[str, Sequence[Entry]]) -> dict[str, int]:
    counts = {IMAGES: len(dataset)} | dict.fromkeys(wanted, 0)
    for index in dataset.indices:
        example = dataset.source[int(index)]
        for name, entries in wanted.items():
            counts[name] += _has(example, entries)
    return counts


def _has(example: Mapping[str, np.ndarray], entries: Sequence[Entry]) -> bool:
    """Returns whether an example holds something known of each entry."""
    return all(bool(np.any(example[entry.name] != entry.missing)) for entry in entries)
