"""How many images have labels."""

import numpy as np

from mtl_jax import data
from mtl_jax.tasks import select
from tests import fakes


def splits():
    """Ten training images, of which the even ones have no mask, and four test images."""
    made = data.open_splits(fakes.builder(train=10, test=4))
    for index, example in enumerate(made["train"].source):
        if index % 2 == 0:
            example["segmentation"][:] = -1
        if index == 3:
            example["depth"][:] = 0
    for example in made["test"].source[1:]:
        example["normals"][:] = 0
    return made


def test_images_with_labels_are_counted():
    found = data.labels_found(splits(), "test", select(["segmentation", "depth", "normals"]))
    train = {"images": 10, "segmentation": 5, "depth": 9, "normals": 10}
    assert found["trained"] == found["present"] == train
    assert found["judged"] == {"images": 4, "segmentation": 4, "depth": 4, "normals": 1}
    assert all(type(n) is int for counts in found.values() for n in counts.values())


def test_labels_that_are_withheld_are_present_but_not_learned_from():
    made = splits()
    few = data.withhold_labels(made["train"], label_fraction=0.4)
    made = made | {"train": few}
    found = data.labels_found(made, "train", select(["segmentation", "depth"]))
    shown = sum(bool(few.labelled[i]) for i in range(1, 10, 2))
    assert found["trained"] == {"images": 10, "segmentation": shown, "depth": 9}
    assert found["present"] == found["judged"] == {"images": 10, "segmentation": 5, "depth": 9}


def test_a_task_learns_from_what_its_loss_reads():
    """Depth is judged by its labels but learned from the pairs, normals are learned from depth."""
    made = splits()
    for index, example in enumerate(made["train"].source):
        example["image_right"] = example["image"]
        example["baseline"] = np.float32(0.1 if index < 3 else 0)
    found = data.labels_found(made, "train", select(["depth"], depth_loss="stereo"))
    assert found["trained"] == {"images": 10, "depth": 3}
    assert found["present"] == {"images": 10, "depth": 9}
    found = data.labels_found(made, "train", select(["normals"], normals_source="depth"))
    assert found["trained"] == {"images": 10, "normals": 9}
    assert found["present"] == {"images": 10, "normals": 10}


def test_images_held_out_count_in_their_own_split():
    made = data.open_splits(fakes.builder(train=10, test=4), validation=3)
    found = data.labels_found(made, "validation", select(["depth"]))
    assert found["trained"] == {"images": 7, "depth": 7}
    assert found["judged"] == {"images": 3, "depth": 3}
