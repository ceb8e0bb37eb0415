"""Warnings about the outcome of training or evaluation, some before it begins."""

import math
import sys
from collections.abc import Mapping
from typing import Any

from mtl_jax import data
from mtl_jax.runs import labels, results
from mtl_jax.weighting import Weighting


def warn_of_leak(splits: Mapping[str, data.Dataset], split: str) -> None:
    """Warns if evaluation images are also training images, except for the split `train`."""
    count = 0 if split == "train" else data.common_images(splits["train"], splits[split])
    if count:
        print(
            f"WARNING: {count} of the {len(splits[split])} {split} images are training images too: "
            "the results on them say nothing about new images",
            file=sys.stderr,
        )


def warn_of_warmup(weighting: Weighting, name: str, steps: int) -> None:
    """Warns if a run ends before its weighting has weights of its own.

    Args:
      name: name of the weighting.
      steps: steps of the whole run.
    """
    if 0 < steps <= weighting.warmup:
        print(
            f"WARNING: {name} only measures losses in its first {weighting.warmup} steps, and this "
            f"run has {steps}: it never has weights of its own; train for more epochs"
        )


def warn_of_failures(result: Mapping[str, Any]) -> None:
    """Warns of skipped steps and of metrics that are not finite.

    Args:
      result: `metrics`; the `skipped_steps` of a training run; and, if labels were counted,
        `labels` and `split`.
    """
    skipped = result.get("skipped_steps")
    if skipped:
        print(f"WARNING: {skipped} steps were skipped because their gradients were not finite")
    without = labels.none_of(result.get("labels", {}), result.get("split", ""))
    for task, reason in without.items():
        print(f"WARNING: no {task} metrics, since {reason}")
    # A class that does not occur has no IoU, which is no failure.
    values = results.without_classes(result["metrics"]).items()
    unknown = [
        name
        for name, value in values
        if (value is None or not math.isfinite(value)) and name.split("/")[0] not in without
    ]
    if unknown:
        print(
            f"WARNING: no numbers for {', '.join(unknown)}: the split has no such labels, or the "
            "network's predictions are not finite"
        )
