"""Predicts photos or a video with a trained network."""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path

import numpy as np

from mtl_jax import files
from mtl_jax.commands import sensors
from mtl_jax.commands.loading import load
from mtl_jax.deploy import outputs, photos, prediction, tiles
from mtl_jax.deploy.predictor import Predictor
from mtl_jax.runs.settings import Settings, folder_of
from mtl_jax.tasks import TASKS

# Settings of photos that make no sense for a video.
OF_PHOTOS = ("save_arrays", "point_cloud")
MOST_NAMES = 3


def predict(settings: Settings) -> Iterator[str]:
    """Predicts the photos or the video `input` and writes files to the folder `out`.

    Yields:
      Lines on what was done.

    Raises:
      ValueError: for settings that make no sense, files that would be overwritten, or, at the end,
        files that could not be read.
    """
    if not settings.input:
        raise ValueError(
            "`input`: give a photo, a folder, a pattern such as 'photos/*.jpg', or a video"
        )
    paths, others = photos.find(settings.input)
    out = Path(settings.out or folder_of(settings) / "predictions").expanduser()
    check_out(out, paths)
    predictor = load(folder_of(settings), checkpoint=settings.checkpoint)
    run = partial(tiled, predictor, settings)
    if len(paths) == 1 and photos.is_video(paths[0]):
        sensors.check_without(predictor, "a video")
        yield from predict_video(settings, run, predictor, paths[0], out)
        return
    if others:
        what = "no photo by its suffix" if len(others) == 1 else "no photos by their suffixes"
        yield f"note: left out {listed(others)}, {what}"
    read, form = sensors.reader_of(settings, predictor), form_of(settings, predictor, out)
    check_existing(outputs.existing(form, outputs.stems_of(paths)), settings)
    out.mkdir(parents=True, exist_ok=True)
    try:
        size = settings.eval_batch_size
        log = prediction.predict_photos(run, paths, form, batch_size=size, read=read)
    except KeyboardInterrupt as error:
        raise ValueError("interrupted; the same command with `overwrite` starts again") from error
    yield from describe(log, out)
    if log.unreadable:
        raise ValueError(
            f"`input`={settings.input}: {len(log.unreadable)} of {counted(len(paths), 'file')} "
            "can't be read, see above; the others are done"
        )


def check_out(out: Path, paths: list[Path]) -> None:
    """Refuses a folder that can't be written to, or that holds the photos.

    Raises:
      ValueError: naming the folder.
    """
    files.check_writable("`out`", out)
    if any(path.parent.resolve() == out.resolve() for path in paths):
        raise ValueError(
            f"`out`={out}: the photos are there, and the next command would take the predictions "
            "for photos: give another folder"
        )


def form_of(settings: Settings, predictor: Predictor, out: Path) -> outputs.Form:
    """Returns which files are written.

    Raises:
      ValueError: for points in space without a task that predicts distances, or a focal length
        without points.
    """
    if settings.focal_length is not None and not settings.point_cloud:
        raise ValueError("`focal_length` has no effect: it needs `point_cloud`")
    tasks = tuple(TASKS[name] for name in predictor.tasks)
    if settings.point_cloud and not any(task.stored.is_distance for task in tasks):
        raise ValueError("`point_cloud`: no task of this run predicts distances")
    return outputs.Form(
        out,
        tasks,
        class_names=predictor.class_names,
        save_arrays=settings.save_arrays,
        point_cloud=settings.point_cloud,
        focal_length=settings.focal_length,
        usual_focal_length=usual_focal_length(predictor),
    )


def usual_focal_length(predictor: Predictor) -> float | None:
    """Returns the focal length of the training images in their longer sides; None if unknown."""
    if predictor.focal_length is None:
        return None
    height, width = predictor.image_size
    return predictor.focal_length * width / max(height, width)


def check_existing(existing: list[Path], settings: Settings) -> None:
    """Refuses to overwrite files unless that is asked for.

    Raises:
      ValueError: if there are any.
    """
    if existing and not settings.overwrite:
        raise ValueError(
            f"{counted(len(existing), 'file')} would be overwritten: {listed(existing)}: give "
            "`overwrite` or another `out`"
        )


def tiled(predictor: Predictor, settings: Settings, images: np.ndarray) -> Mapping[str, np.ndarray]:
    """Returns the predictions of images uint8[B, H, W, C], in tiles if they are large enough."""
    size = images.shape[1], images.shape[2]
    number = tiles.number_for(size, predictor.image_size, settings.tile)
    one = partial(predictor, flip_test=settings.flip_test)
    if number == 1:
        return one(images)
    tasks = {name: TASKS[name] for name in predictor.tasks}
    found = [tiles.predict(one, image, tasks, tiles=number) for image in images]
    return {name: np.stack([x[name] for x in found]) for name in tasks}


def most_detailed(
    predictor: Predictor, settings: Settings, size: tuple[int, int]
) -> tuple[int, int]:
    """Returns the height and width beyond which `tiled` sees no more details of a photo."""
    height, width = predictor.network_size(size)
    return settings.tile * height, settings.tile * width


def predict_video(
    settings: Settings,
    run: Callable[[np.ndarray], Mapping[str, np.ndarray]],
    predictor: Predictor,
    path: Path,
    out: Path,
) -> Iterator[str]:
    """Writes a video next to its predictions.

    Yields:
      Lines on what was done.

    Raises:
      ValueError: for settings of photos, a file that would be overwritten, or no video.
    """
    for name in OF_PHOTOS:
        if getattr(settings, name):
            raise ValueError(f"`{name}` goes with photos, and {path} is a video")
    try:
        # Here, because it imports a package of an extra.
        from mtl_jax.deploy import video
    except ImportError as error:
        raise ValueError(
            f"`input`={path}: videos need imageio-ffmpeg ({error}): run pip install -e '.[video]' "
            "in the clone"
        ) from error
    target = out / f"{path.stem}_view.mp4"
    check_existing([target] if target.exists() else [], settings)
    out.mkdir(parents=True, exist_ok=True)
    line = video.write(
        run,
        path,
        target,
        seen=partial(most_detailed, predictor, settings),
        tasks=[TASKS[name] for name in predictor.tasks],
        class_names=predictor.class_names,
        batch_size=settings.eval_batch_size,
    )
    yield f"{target}: {line}"


def describe(log: prediction.Log, out: Path) -> Iterator[str]:
    """Yields lines on the outcome: notes, lost pixels, and the speed."""
    for note, about in log.notes.items():
        yield f"note: {listed(about)}: {note}"
    for what, number in log.lost.items():
        verb = "is" if number == 1 else "are"
        yield f"note: {counted(number, 'pixel')} {verb} {what}, more than the file can hold"
    yield f"{counted(log.done, 'photo')} predicted, see {out}: {log.speed()}"


def listed(paths: list[Path]) -> str:
    """Returns the first names of a list, and how many there are if it has more."""
    names = ", ".join(prediction.shown(path) for path in paths[:MOST_NAMES])
    return names if len(paths) <= MOST_NAMES else f"{names} and {len(paths) - MOST_NAMES} more"


def counted(number: int, noun: str) -> str:
    """Returns a number with its noun."""
    return f"{number} {noun}{'s' * (number != 1)}"
