"""Work directories as training writes them, with any content."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from mtl_jax.report import pictures
from tests.report.literature import EQUAL, FLOOR, NASH, SINGLE, named, of_task

TASKS = ("segmentation", "depth", "normals")


def samples(tasks=TASKS, count=2, shape=(6, 8)) -> dict[str, np.ndarray]:
    """Small random arrays in the types of samples.npz."""
    rng = np.random.default_rng(0)
    size = (count, *shape)
    arrays = {"image": rng.integers(0, 256, (*size, 3), np.uint8)}
    for prefix in ("", "predicted_"):
        normals = rng.normal(size=(*size, 3))
        normals /= np.linalg.norm(normals, axis=-1, keepdims=True)
        made = {
            "segmentation": rng.integers(0, 13, size).astype(np.int8),
            "depth": rng.uniform(1, 5, size).astype(np.float16),
            "normals": normals.astype(np.float16),
        }
        arrays |= {prefix + task: made[task] for task in tasks}
    return arrays


def details(tasks=TASKS, count=4, best=2, seed=0) -> dict[str, np.ndarray]:
    """Small random arrays in the types of evaluation.npz."""
    rng = np.random.default_rng(seed)
    pixels = rng.integers(1, 90, 23)
    arrays = {
        "segmentation/confusion": rng.integers(0, 90, (13, 13)),
        "depth/over_distance": np.stack([pixels, 0.5 * pixels, 0.2 * pixels]),
        "normals/angles": rng.integers(0, 90, 720),
    }
    arrays = {name: x for name, x in arrays.items() if name.split("/")[0] in tasks}
    pictures = samples(tasks, count)
    for task in tasks:
        arrays |= {
            f"{task}/errors": np.linspace(0.1, 0.9, 9, dtype=np.float32),
            f"{task}/best": np.arange(best),
            f"{task}/worst": 8 - np.arange(count - best),
            f"{task}/image": pictures["image"],
            f"{task}/true": pictures[task],
            f"{task}/predicted": pictures[f"predicted_{task}"],
        }
    return arrays


def epoch(number: int, tasks=TASKS, **more) -> dict:
    """A line of metrics.jsonl."""
    losses = {f"{task}/loss": 1.0 / number for task in tasks}
    line = {
        "epoch": number, "step": 10 * number, "seconds": 360.0, "images_per_second": 20.0,
        "skipped_steps": 1, "learning_rate": 1e-4, "train": losses,
        "weights": {task: 1.0 + index for index, task in enumerate(tasks)},
        "diagnostics": {}, "evaluation": losses,
    }  # fmt: skip
    return line | more


@pytest.fixture(autouse=True)
def coarse(monkeypatch):
    """Saves figures of few pixels, which takes less time."""
    monkeypatch.setattr(pictures, "DPI", 20)


@pytest.fixture
def unarranged(monkeypatch):
    """Draws figures once, without arranging what is in them, where nobody looks at them."""
    monkeypatch.setattr(Figure, "get_layout_engine", lambda figure: None)


@pytest.fixture
def write_run(tmp_path: Path) -> Callable[..., Path]:
    """Writes the folder of a run.

    `result` is what result.json has besides `metrics`, None for a run without that file.
    """

    def write(
        name="run", *, tasks=TASKS, metrics=None, result=(), epochs=2, lines=None,
        pictures=False, errors=None, **config,
    ) -> Path:  # fmt: skip
        path = tmp_path / name
        path.mkdir(parents=True)
        config = {
            "dataset": "rooms", "tasks": list(tasks), "weighting": "equal", "seed": 0,
            "model": "resnet_unet:backbone=resnet18", "image_size": [96, 128], "epochs": epochs,
            "batch_size": 8,
            "class_names": [f"c{index}" for index in range(13)],
        } | config  # fmt: skip
        (path / "config.json").write_text(json.dumps(config))
        lines = [epoch(number + 1, tasks) for number in range(epochs)] if lines is None else lines
        (path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        if result is not None:
            content = {"split": "test", "epoch": epochs, "metrics": metrics or {}, **dict(result)}
            (path / "result.json").write_text(json.dumps(content))
        if pictures:
            np.savez_compressed(path / "samples.npz", **samples(tasks))
        if errors is not None:
            np.savez_compressed(path / "evaluation.npz", **errors)
        return path

    return write


@pytest.fixture
def make_samples() -> Callable[..., dict[str, np.ndarray]]:
    """The function `samples`."""
    return samples


@pytest.fixture
def make_details() -> Callable[..., dict[str, np.ndarray]]:
    """The function `details`."""
    return details


@pytest.fixture
def make_epoch() -> Callable[..., dict]:
    """The function `epoch`."""
    return epoch


@pytest.fixture
def literature(write_run):
    """The single-task runs, Nash-MTL and equal weights of the literature."""
    paths = [
        write_run(task, tasks=(task,), metrics=of_task(SINGLE, task))
        for task in ("segmentation", "depth", "normals")
    ]
    paths.append(write_run("equal", metrics=named(EQUAL), result={"floor": named(FLOOR)}))
    paths.append(write_run("nash", weighting="nash", metrics=named(NASH)))
    return paths
