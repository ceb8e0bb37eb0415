"""Evaluations of two tasks, as a run writes them down."""

import math

from mtl_jax.tasks import select

DEPTH_AND_CLASSES = select(["depth", "segmentation"])


def evaluation(miou, absolute):
    """All metrics of the two tasks: those that count here, and tenths."""
    names = [metric.name for task in DEPTH_AND_CLASSES for metric in task.metrics]
    return {name: 0.1 for name in names} | {
        "segmentation/miou": miou,
        "depth/absolute_error": absolute,
        "class_iou/0": 0.25,
        "class_iou/1": math.nan,
    }
