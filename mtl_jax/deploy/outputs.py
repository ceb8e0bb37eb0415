"""The files of a photo: one per task for other programs, one to look at, arrays and points."""

import io
import os
import zipfile
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, PngImagePlugin

from mtl_jax import files
from mtl_jax.deploy import point_cloud, view
from mtl_jax.deploy.bands import bands
from mtl_jax.deploy.photos import Photo
from mtl_jax.tasks import Task
from mtl_jax.tasks.images import in_colour

# Most bytes of a stem, so that the names of its files are not too long for file systems.
LONGEST_STEM = 200
# Stronger compression makes files 10 to 20 % smaller and takes several times as long.
COMPRESSION = 1
# Number of colours in a palette for indices of 8 bits.
PALETTE = 256


class Form(NamedTuple):
    """Which files are written.

    Attributes:
      folder: where.
      tasks: the predicted tasks.
      class_names: names of the classes of the data set.
      save_arrays: whether to write all predictions as one NumPy file.
      point_cloud: whether to write points in space.
      focal_length: in pixels, of all photos; None if those of the files count.
      usual_focal_length: of photos whose files don't state it, as a multiple of the photo's longer
        side, which holds for both orientations of a camera; None if it is not known.
    """

    folder: Path
    tasks: tuple[Task, ...]
    class_names: tuple[str, ...] = ()
    save_arrays: bool = False
    point_cloud: bool = False
    focal_length: float | None = None
    usual_focal_length: float | None = None

    def paths(self, stem: str) -> dict[str, Path]:
        """Returns what is written for a photo: the name of a task, or a kind of file -> path."""
        names = {task.name: f"{stem}_{task.name}.png" for task in self.tasks}
        names["view"] = f"{stem}_view.png"
        names |= {"arrays": f"{stem}.npz"} if self.save_arrays else {}
        names |= {"points": f"{stem}.ply"} if self.point_cloud else {}
        return {kind: self.folder / name for kind, name in names.items()}


def stems_of(paths: Sequence[Path]) -> list[str]:
    """Returns different names for the files of photos: their stems, with more where two agree.

    Names that differ only in case are the same to some file systems.
    """
    stems = [path.stem for path in paths]
    for longer in (lambda path: path.name, lambda path: f"{path.parent.name}_{path.name}"):
        often = Counter(stem.casefold() for stem in stems)
        stems = [
            longer(path) if often[stem.casefold()] > 1 else stem
            for stem, path in zip(stems, paths, strict=True)
        ]
    used: set[str] = set()
    short = (os.fsencode(stem)[:LONGEST_STEM].decode("utf-8", "ignore") for stem in stems)
    return [_unused(stem, used) for stem in short]


def _unused(stem: str, used: set[str]) -> str:
    """Returns the stem, with a number after it if it is used, and adds it to those used."""
    numbered = (f"{stem}-{number}" if number > 1 else stem for number in range(1, len(used) + 2))
    found = next(name for name in numbered if name.casefold() not in used)
    used.add(found.casefold())
    return found


def existing(form: Form, stems: Iterable[str]) -> list[Path]:
    """Returns the files that would be overwritten."""
    return [path for stem in stems for path in form.paths(stem).values() if os.path.lexists(path)]


class Written(NamedTuple):
    """What a user should know of the files of a photo.

    Attributes:
      notes: sentences.
      lost: what does not fit into a file -> number of its pixels.
    """

    notes: list[str]
    lost: Counter[str]


def write(photo: Photo, stem: str, results: Mapping[str, np.ndarray], form: Form) -> Written:
    """Writes the files of a photo.

    Args:
      photo: the photo.
      stem: what the names of its files begin with.
      results: task name -> prediction [H, W, ...].
      form: which files.

    Raises:
      OSError: if a file can't be written.
    """
    paths, notes, lost = form.paths(stem), list(photo.notes), Counter[str]()
    for task in form.tasks:
        files.write(paths[task.name], png(results[task.name], task, form.class_names))
        lost[task.stored.lost_text] += task.stored.lost(results[task.name])
    files.write(paths["view"], view.png(in_colour(photo.pixels), results, form.class_names))
    if form.save_arrays:
        write_arrays(paths["arrays"], results)
    if form.point_cloud:
        notes.append(write_points(paths["points"], photo, results, form))
    return Written(notes, +lost)


def png(prediction: np.ndarray, task: Task, class_names: Sequence[str]) -> bytes:
    """Returns a prediction [H, W, ...] as a PNG file, whose metadata say what the numbers mean."""
    names = view.names_of(task, class_names)
    parts = [prediction[rows] for rows in bands(prediction.shape)]
    encoded = np.concatenate([task.stored.encode(part, len(names)) for part in parts])
    image = Image.fromarray(encoded)
    text = PngImagePlugin.PngInfo()
    text.add_text("Title", task.name)
    text.add_text("Description", task.stored.text)
    if task.stored.palette is not None:
        text.add_itxt("Classes", ", ".join(f"{i} {name}" for i, name in enumerate(names)))
        if encoded.dtype == np.uint8:
            # Indices have 8 bits only with a palette of more than 16 colours.
            colours = task.stored.palette(len(names)).tobytes()
            image.putpalette(colours.ljust(3 * PALETTE, b"\0"))
    buffer = io.BytesIO()
    image.save(buffer, format="png", pnginfo=text, compress_level=COMPRESSION)
    return buffer.getvalue()


def write_arrays(path: Path, results: Mapping[str, np.ndarray]) -> None:
    """Writes predictions as `numpy.load` reads them, array by array."""
    with files.replacing(path) as file, zipfile.ZipFile(file, "w") as archive:
        for name, array in results.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array, allow_pickle=False)


def write_points(path: Path, photo: Photo, results: Mapping[str, np.ndarray], form: Form) -> str:
    """Writes a photo's points unless its focal length is unknown; returns a note on the length."""
    found = focal_length_of(photo, form)
    if found is None:
        return "no focal length is known, so there are no points: give `focal_length`"
    depth = next(results[task.name] for task in form.tasks if task.stored.is_distance)
    with files.replacing(path) as file:
        point_cloud.write_ply(file, depth, photo.pixels, found[0])
    return f"points with the focal length {found[1]}"


def focal_length_of(photo: Photo, form: Form) -> tuple[float, str] | None:
    """Returns a photo's focal length in pixels and where it comes from; None if it is unknown."""
    if form.focal_length is not None:
        return form.focal_length, f"of `focal_length`={form.focal_length:g} pixels"
    if photo.focal_length is not None:
        return photo.focal_length, "of their EXIF data"
    if form.usual_focal_length is not None:
        return form.usual_focal_length * max(photo.pixels.shape[:2]), (
            f"of the training images, {form.usual_focal_length:.3f} times the longer side"
        )
    return None
