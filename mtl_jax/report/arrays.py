"""Reads the arrays that runs left for pictures; missing or broken files do not stop it.

Each function adds phrases to `missing`, which say what is not there.
"""

import io
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mtl_jax.tasks import TASKS, codebook


class Extremes(NamedTuple):
    """The images with the smallest and the largest mean errors of a task.

    Attributes:
      samples: the images, labels and predictions, as in samples.npz: the best ones first.
      best: number of the best ones.
      places: of the images in the evaluated split.
      errors: mean error of each.
    """

    samples: dict[str, np.ndarray]
    best: int
    places: list[int]
    errors: list[float]


class Details(NamedTuple):
    """The content of evaluation.npz.

    Attributes:
      charts: `task/chart` -> array, see `tasks.charts`.
      extremes: by task.
    """

    charts: dict[str, np.ndarray]
    extremes: dict[str, Extremes]


def read_samples(path: Path, missing: list[str]) -> dict[str, np.ndarray]:
    """Returns the images, labels and predictions of samples.npz that can be drawn."""
    arrays = _read(path, missing, "no pictures")
    if arrays is None:
        missing.append(f"no {path.name} (no pictures)")
    return _drawable(arrays, path.name, missing) if arrays else {}


def read_details(path: Path, missing: list[str]) -> Details | None:
    """Returns what can be drawn of evaluation.npz; None if there is no such file."""
    arrays = _read(path, missing, "no charts of errors")
    if arrays is None:
        return None
    charts, extremes = {}, {}
    for task in TASKS.values():
        for chart in task.charts:
            key = f"{task.name}/{chart.name}"
            if key in arrays and chart.fits(arrays[key]):
                charts[key] = arrays[key]
            elif key in arrays:
                missing.append(f"{path.name} has {key} in another form than its chart")
        if f"{task.name}/image" in arrays:
            extremes[task.name] = _extremes(arrays, task.name, path.name, missing)
    return Details(charts, {name: found for name, found in extremes.items() if found})


def read_codebook(path: Path, missing: list[str]) -> codebook.Codebook | None:
    """Returns the codebook that a run stored, if it can be read."""
    try:
        return codebook.triangulate(_unit_vectors(np.load(io.BytesIO(path.read_bytes()))))
    except FileNotFoundError:
        return None
    # As in `_read`, and directions that span no triangulation fail in Qhull.
    except Exception:
        missing.append(f"{path.name} can't be read (no picture of the codebook)")
        return None


def _read(path: Path, missing: list[str], consequence: str) -> dict[str, np.ndarray] | None:
    """Returns the arrays of an archive, none of a broken one; None if there is no such file."""
    try:
        # NumPy leaves a file open that is not an archive.
        with np.load(io.BytesIO(path.read_bytes())) as archive:
            return {name: archive[name] for name in archive.files}
    except FileNotFoundError:
        return None
    # A broken archive fails in as many ways as it has layers: zip, deflate, header and array.
    except Exception:
        missing.append(f"{path.name} can't be read ({consequence})")
        return {}


def _drawable(
    arrays: Mapping[str, np.ndarray], file: str, missing: list[str]
) -> dict[str, np.ndarray]:
    """Returns the images, and the labels and predictions of the known tasks that go with them."""
    image = arrays.get("image", np.zeros(0))
    if image.ndim != 4 or image.shape[-1] != 3 or not image.size or image.dtype != np.uint8:
        missing.append(f"{file} has no images (no pictures)")
        return {}
    shapes = {"image": image.shape}
    for name, task in TASKS.items():
        shape = task.picture.shape(image.shape)
        shapes |= {name: shape, f"predicted_{name}": shape}
    known = {name: array for name, array in arrays.items() if name in shapes}
    odd = [name for name, array in known.items() if array.shape != shapes[name]]
    if odd:
        missing.append(f"{file} has {', '.join(odd)} in another shape than its images")
    strange = [name for name in known if name not in odd and not _can_paint(name, known[name])]
    if strange:
        missing.append(f"{file} has {', '.join(strange)} of another type or range")
    return {name: array for name, array in known.items() if name not in odd + strange}


def _extremes(
    arrays: Mapping[str, np.ndarray], task: str, file: str, missing: list[str]
) -> Extremes | None:
    """Returns the best and worst images of a task, if all that belongs to them is there."""
    keys = {"image": "image", "true": task, "predicted": f"predicted_{task}"}
    held = {
        name: arrays[f"{task}/{key}"] for key, name in keys.items() if f"{task}/{key}" in arrays
    }
    samples = _drawable(held, file, missing)
    ends = [arrays.get(f"{task}/{end}", np.zeros(0)) for end in ("best", "worst")]
    errors = arrays.get(f"{task}/errors", np.zeros(0))
    if any(x.ndim != 1 or x.dtype.kind not in "iu" for x in ends) or errors.ndim != 1:
        places = np.zeros(0, int)
    else:
        places = np.concatenate(ends)
    fits = samples.keys() == set(keys.values()) and len(samples["image"]) == len(places)
    if not fits or errors.dtype.kind != "f" or not np.all((places >= 0) & (places < len(errors))):
        missing.append(f"{file} has not all of the best and worst images of {task}")
        return None
    return Extremes(samples, len(ends[0]), places.tolist(), errors[places].tolist())


def _can_paint(name: str, array: np.ndarray) -> bool:
    task = TASKS.get(name.removeprefix("predicted_"))
    return array.dtype.kind in "iuf" if task is None else task.picture.can_draw(array)


def _unit_vectors(array: np.ndarray) -> np.ndarray:
    lengths = np.linalg.norm(array, axis=-1)
    if array.ndim != 2 or array.shape[1] != 3 or not np.all(np.abs(lengths - 1) < 1e-3):
        raise ValueError("no directions")
    return array
