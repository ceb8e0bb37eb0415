"""A data set in memory, small enough to train on in a test."""

from types import SimpleNamespace

import numpy as np

from mtl_jax import tasks

# The tasks that `example` has labels of.
TASKS = {name: tasks.TASKS[name] for name in ("segmentation", "depth", "normals")}
CLASSES = ("bed", "floor", "wall")


def example(index: int, *, height: int = 32, width: int = 48) -> dict[str, np.ndarray]:
    """A random image of three stripes whose class, depth and normals follow from its colours."""
    rng = np.random.default_rng(index)
    edges = np.sort(rng.integers(4, height - 4, 2))
    row = np.digitize(np.arange(height), edges)  # 0, 1 or 2
    labels = np.broadcast_to(row[:, None], (height, width))
    colours = np.array([[200, 40, 40], [40, 200, 40], [40, 40, 200]])
    noise = rng.integers(-30, 30, (height, width, 3))
    normals = np.array([[0, -1, 0], [0, 0, -1], [-1, 0, 0]], np.float16)
    void = np.zeros((height, width), bool)
    void[:3, :5] = True
    return {
        "image": np.clip(colours[labels] + noise, 0, 255).astype(np.uint8),
        "segmentation": np.where(void, -1, labels).astype(np.int8),
        "depth": np.where(void, 0, 1.0 + labels).astype(np.float16),
        "normals": np.where(void[..., None], 0, normals[labels]).astype(np.float16),
        "intrinsics": np.array([50, 50, (width - 1) / 2, (height - 1) / 2], np.float32),
    }


def builder(*, train: int = 20, test: int = 7, **size: int) -> SimpleNamespace:
    """What is needed of a prepared TFDS builder."""
    sources = {
        "train": [example(i, **size) for i in range(train)],
        "test": [example(1000 + i, **size) for i in range(test)],
    }
    first = sources["train"][0]
    height, width = first["image"].shape[:2]
    return SimpleNamespace(
        info=SimpleNamespace(metadata={"class_names": list(CLASSES)}, features=first),
        builder_config=SimpleNamespace(height=height, width=width),
        split_sizes=lambda: {"train": train, "test": test},
        known_entries=lambda: tuple(first),
        advice=dict,
        version_of_data=str,
        stream=lambda: None,
        as_data_source=lambda split: sources[split],
    )
