"""Checks of numbers before a training, and of its outcome after it."""

import math
import sys
from collections.abc import Mapping
from typing import Any

from mtl_jax import data

# The state counts steps in 32 bits.
MOST_STEPS = 2**31 - 1
# The default of `eval_batch_size`, which serves smaller data sets, too.
USUAL_BATCH = 8


def check_sizes(
    *,
    train: int,
    test: int,
    validation: int,
    batch_size: int,
    eval_batch_size: int,
    epochs: int,
) -> int:
    """Makes sure that batches and epochs fit a data set.

    Args:
      train: number of training images, those held out included.
      test: number of test images.
      validation: number of training images to hold out.
      batch_size: images per step, over all devices.
      eval_batch_size: images per step of an evaluation.
      epochs: of the run.

    Returns:
      The steps per epoch.

    Raises:
      ValueError: if they don't.
    """
    if not 0 <= validation < train:
        raise ValueError(
            f"`validation`={validation}: 0 to {train - 1} of the {train} training images can be "
            "held out"
        )
    per_epoch = data.steps_per_epoch(range(train - validation), batch_size)
    if epochs * per_epoch > MOST_STEPS:
        raise ValueError(
            f"`epochs`={epochs}: {epochs * per_epoch} steps are more than can be counted "
            f"(at most {MOST_STEPS // per_epoch} epochs)"
        )
    largest = max(train, test, USUAL_BATCH)
    if eval_batch_size > largest:
        raise ValueError(
            f"`eval_batch_size`={eval_batch_size}: no split has more than {largest} images"
        )
    return per_epoch


def warn_of_leak(splits: Mapping[str, data.Dataset], split: str) -> None:
    """Warns if images to evaluate on are among those to train on, but for the split `train`."""
    count = 0 if split == "train" else data.common_images(splits["train"], splits[split])
    if count:
        print(
            f"WARNING: {count} of the {len(splits[split])} {split} images are training images too: "
            "the results on them say nothing about new images",
            file=sys.stderr,
        )


def warn_of_failures(result: Mapping[str, Any]) -> None:
    """Warns of steps that were skipped and of metrics that are no numbers.

    Args:
      result: with `metrics` and, of a training, `skipped_steps`.
    """
    skipped = result.get("skipped_steps")
    if skipped:
        print(f"WARNING: {skipped} steps were skipped, whose gradients were not finite")
    values = result["metrics"].items()
    unknown = [name for name, value in values if value is None or not math.isfinite(value)]
    if unknown:
        print(
            f"WARNING: no numbers for {', '.join(unknown)}: the split has no such labels, or the "
            "network's predictions are not finite"
        )
