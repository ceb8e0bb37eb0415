"""Photos in, files out: reading, network and writing run at the same time."""

import time
import warnings
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from mtl_jax.deploy import outputs, photos
from mtl_jax.deploy.photos import Photo

# Threads that read photos, and photos that are read ahead.
READERS, AHEAD = 2, 4
# Most pixels that wait for the network, or to be written: this bounds the memory.
MOST_WAITING = 16_000_000

# Photos uint8[B, H, W, C] -> task name -> predictions [B, H, W, ...].
Predict = Callable[[np.ndarray], Mapping[str, np.ndarray]]
# A photo, or what is wrong with its file.
Read = Photo | photos.Unreadable


class Log:
    """The outcome of a prediction of photos.

    Attributes:
      done: number of photos whose files are written.
      unreadable: files that were skipped.
      notes: sentence -> files that it is about.
      lost: what does not fit into a file -> number of its pixels.
      seconds: seconds of work on reading, network and writing.
      elapsed: seconds in all.
    """

    def __init__(self) -> None:
        self.done = 0
        self.unreadable: list[Path] = []
        self.notes: dict[str, list[Path]] = {}
        self.lost: Counter[str] = Counter()
        self.seconds = dict.fromkeys(("reading", "network", "writing"), 0.0)
        self.elapsed = 0.0

    def add(self, path: Path, written: outputs.Written) -> None:
        """Adds a photo whose files are written."""
        self.done += 1
        self.lost += written.lost
        for note in written.notes:
            self.notes.setdefault(note, []).append(path)

    def speed(self) -> str:
        """Returns images per second and milliseconds per image of each part, in one line."""
        count = max(self.done, 1)
        parts = ", ".join(f"{name} {1e3 * x / count:.0f}" for name, x in self.seconds.items())
        rate = self.done / max(self.elapsed, 1e-9)
        return f"{rate:.2f} images/s; ms per image: {parts}; these overlap"


def predict_photos(
    predict: Predict,
    paths: Sequence[Path],
    form: outputs.Form,
    *,
    batch_size: int,
    read: Callable[[Path], Photo] = photos.read,
) -> Log:
    """Predicts photos and writes their files; those that can't be read are named and skipped.

    Args:
      predict: the network.
      paths: files of the photos.
      form: what is written.
      batch_size: the largest number of photos, all of one size, that the network sees at once.
      read: reads a photo, or raises `Unreadable`.

    Raises:
      OSError: if a file can't be written.
    """
    log, start = Log(), time.perf_counter()
    stems = dict(zip(paths, outputs.stems_of(paths), strict=True))
    readers, writer = ThreadPoolExecutor(READERS), ThreadPoolExecutor(1)
    waiting: deque[tuple[Photo, Future]] = deque()

    # A function, so that the arrays of a batch are not kept until the next one has its own.
    def start_writing(batch: list[Photo]) -> None:
        """Predicts a batch and hands it to the thread that writes."""
        results, seconds = timed(predict, np.stack([photo.pixels for photo in batch]))
        log.seconds["network"] += seconds
        for index, photo in enumerate(batch):
            found = {name: x[index] for name, x in results.items()}
            job = writer.submit(timed, outputs.write, photo, stems[photo.path], found, form)
            waiting.append((photo, job))

    def finish(room: int) -> None:
        """Logs what is written, and waits until at most `room` pixels are left to write."""
        while waiting and (waiting[0][1].done() or sum(pixels_of(x) for x, _ in waiting) > room):
            photo, job = waiting.popleft()
            written, seconds = job.result()
            log.seconds["writing"] += seconds
            log.add(photo.path, written)
            bar.update()

    bar = tqdm(total=len(paths), desc="photos", unit="photo", dynamic_ncols=True)
    with bar, warnings.catch_warnings():
        # Pillow warns of odd files that it can read nevertheless.
        warnings.filterwarnings("ignore", module="PIL")
        try:
            found = read_ahead(paths, readers, partial(read_if_possible, read))
            for batch in by_size(readable(found, log, bar), batch_size):
                start_writing(batch)
                finish(MOST_WAITING)
            finish(0)
        finally:
            for pool in (readers, writer):
                pool.shutdown(cancel_futures=True)
    log.elapsed = time.perf_counter() - start
    return log


def timed(function: Callable[..., Any], *arguments: Any) -> tuple[Any, float]:
    """Returns the result of a function and the seconds that it took."""
    start = time.perf_counter()
    return function(*arguments), time.perf_counter() - start


def pixels_of(photo: Photo) -> int:
    """Returns the number of pixels of a photo."""
    return photo.pixels.shape[0] * photo.pixels.shape[1]


def read_if_possible(read: Callable[[Path], Photo], path: Path) -> Read:
    """Returns a photo, or the reason why it can't be read."""
    try:
        return read(path)
    except photos.Unreadable as reason:
        return reason


def read_ahead(
    paths: Iterable[Path], readers: ThreadPoolExecutor, read: Callable[[Path], Read]
) -> Iterator[tuple[Path, Read, float]]:
    """Yields files in order, what was read of them, and the seconds that it took."""
    ahead: deque[tuple[Path, Future]] = deque()
    for path in paths:
        ahead.append((path, readers.submit(timed, read, path)))
        if len(ahead) > AHEAD:
            first, job = ahead.popleft()
            yield first, *job.result()
    for path, job in ahead:
        yield path, *job.result()


def readable(files: Iterable[tuple[Path, Read, float]], log: Log, bar: tqdm) -> Iterator[Photo]:
    """Yields the photos among what was read, and names the files that are none."""
    for path, found, seconds in files:
        log.seconds["reading"] += seconds
        if isinstance(found, Photo):
            yield found
        else:
            log.unreadable.append(path)
            bar.write(f"skipped {shown(path)}: {found}")
            bar.update()


def by_size(found: Iterable[Photo], batch_size: int) -> Iterator[list[Photo]]:
    """Yields batches of photos of one size, with few pixels in all those that wait for others."""
    groups: dict[tuple[int, ...], list[Photo]] = {}
    for photo in found:
        group = groups.setdefault(photo.pixels.shape, [])
        group.append(photo)
        if len(group) == batch_size:
            yield groups.pop(photo.pixels.shape)
        while sum(pixels_of(one) for group in groups.values() for one in group) > MOST_WAITING:
            most = max(groups, key=lambda shape: len(groups[shape]))
            yield groups.pop(most)
    yield from groups.values()


def shown(path: Path) -> str:
    """Returns a path on one line, with special characters escaped."""
    text = str(path)
    return text if text.isprintable() else repr(text)
