"""The classes of Cityscapes: ids in the files -> 19 classes -> 7 categories; KITTI has the same."""

from collections.abc import Iterable

import numpy as np

NUM_IDS = 34
# The id -1, of a licence plate, in 8 bits.
NO_ID = 255

# Id in the files and name of each of the 19 classes that the benchmark evaluates, in its order.
IDS_19 = {
    7: "road", 8: "sidewalk", 11: "building", 12: "wall", 13: "fence", 17: "pole",
    19: "traffic light", 20: "traffic sign", 21: "vegetation", 22: "terrain", 23: "sky",
    24: "person", 25: "rider", 26: "car", 27: "truck", 28: "bus", 31: "train", 32: "motorcycle",
    33: "bicycle",
}  # fmt: skip

# Each category with the classes that the benchmark evaluates it by.
CATEGORIES = {
    "flat": ("road", "sidewalk"),
    "construction": ("building", "wall", "fence"),
    "object": ("pole", "traffic light", "traffic sign"),
    "nature": ("vegetation", "terrain"),
    "sky": ("sky",),
    "human": ("person", "rider"),
    "vehicle": ("car", "truck", "bus", "train", "motorcycle", "bicycle"),
}


def class_names(num_classes: int) -> tuple[str, ...]:
    """Returns the names of the 7 or 19 classes in their order."""
    return {7: tuple(CATEGORIES), 19: tuple(IDS_19.values())}[num_classes]


def check_number(num_classes: int, allowed: Iterable[int] = (7, 19)) -> None:
    """Refuses another number of classes.

    Raises:
      ValueError: naming the numbers that there are.
    """
    numbers = tuple(allowed)
    if num_classes not in numbers:
        raise ValueError(f"classes must be one of {numbers}, got {num_classes}")


def class_of_id(num_classes: int) -> np.ndarray:
    """Returns a table int8[256] from id to class, -1 = void.

    Void are the pixels without a class, such as the border that rectification leaves and the
    vehicle with the camera, and the rare classes that the benchmark does not evaluate.
    """
    classes = np.full(256, -1, np.int8)
    classes[list(IDS_19)] = np.arange(len(IDS_19))
    if num_classes == len(IDS_19):
        return classes
    category = {name: i for i, names in enumerate(CATEGORIES.values()) for name in names}
    of_19 = np.array([category[name] for name in IDS_19.values()] + [-1], np.int8)
    return of_19[classes]  # -1 picks the last entry, which is void


def id_values(ids: np.ndarray) -> list[str]:
    """Returns phrases for what is wrong with ids uint8[H, W]."""
    outside = ids[(ids >= NUM_IDS) & (ids != NO_ID)]
    if outside.size:
        return [f"has the label {outside.max()} outside 0..{NUM_IDS - 1}: are these its labelIds?"]
    return []
