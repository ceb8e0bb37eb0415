"""How many images had labels, in words; from the `labels` of a result (see `data.labels_found`)."""

from collections.abc import Mapping

# Key of the number of all images of a split, next to the numbers of labelled images per task.
IMAGES = "images"
Counts = Mapping[str, int]


def sentence(labels: Mapping[str, Counts], split: str) -> str:
    """Returns a line about the labels that a run learned from and was judged by.

    Args:
      labels: `trained` and `judged`: number of the images, and of those with labels of each task.
      split: name of the evaluated split.
    """
    parts = [_part(labels["trained"], "training")]
    # An evaluation on the training images may use labels from which the run did not learn.
    if split != "train" or labels["judged"] != labels["trained"]:
        parts.append(_part(labels["judged"], "evaluated" if split == "train" else split))
    return f"labels: {'; '.join(parts)}"


def none_of(labels: Mapping[str, Counts], split: str) -> dict[str, str]:
    """Returns, for tasks without metrics, why they have none, as a clause."""
    judged = labels.get("judged", {})
    return {
        task: f"none of the {judged[IMAGES]:,} {split} images has {task} labels"
        for task, count in judged.items()
        if not count
    }


def _part(counts: Counts, noun: str) -> str:
    images = counts[IMAGES]
    tasks = {task: count for task, count in counts.items() if task != IMAGES}
    if all(count == images for count in tasks.values()):
        return f"all {images:,} {noun} images"
    listed = ", ".join(f"{task} {count:,}" for task, count in tasks.items())
    return f"{listed} of {images:,} {noun} images"
