"""From a data set to batches on the devices: splits, order, augmentation."""

from mtl_jax.data.augmentation import CROP_SCALES, Augment, augment
from mtl_jax.data.batches import (
    Chosen,
    batch_at,
    batch_of,
    chosen_at,
    decode,
    entries_of,
    evaluation_batches,
    evaluation_entries,
    in_memory,
    labelled_images,
    load,
    prefetch,
    steps_per_epoch,
    training_entries,
)
from mtl_jax.data.feed import CACHES, Feed, cached, make_feed
from mtl_jax.data.labelled import labels_found
from mtl_jax.data.splits import (
    Dataset,
    check_fraction,
    check_labels,
    common_images,
    count_labels,
    counted_images,
    open_splits,
    sample_labels,
    withhold_labels,
)
from mtl_jax.data.stream import Stream

__all__ = [
    "CACHES",
    "CROP_SCALES",
    "Augment",
    "Chosen",
    "Dataset",
    "Feed",
    "Stream",
    "augment",
    "batch_at",
    "batch_of",
    "cached",
    "check_fraction",
    "check_labels",
    "chosen_at",
    "common_images",
    "count_labels",
    "counted_images",
    "decode",
    "entries_of",
    "evaluation_batches",
    "evaluation_entries",
    "in_memory",
    "labelled_images",
    "labels_found",
    "load",
    "make_feed",
    "open_splits",
    "prefetch",
    "sample_labels",
    "steps_per_epoch",
    "training_entries",
    "withhold_labels",
]
