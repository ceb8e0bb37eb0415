"""A video next to its predictions, as an MP4 file; frames are read and written one batch at a time.

This needs imageio-ffmpeg, which brings its own ffmpeg.
"""

import contextlib
import itertools
import os
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import imageio_ffmpeg
import numpy as np
from tqdm import tqdm

from mtl_jax.deploy import view
from mtl_jax.tasks import Task

# A higher frame rate comes from a broken header.
MOST_FRAMES_PER_SECOND = 1000.0
# Otherwise ffmpeg repeats frames for a constant rate, which need not be that of the header.
EACH_FRAME = ["-fps_mode", "passthrough"]
# A video with at least this part of the frames that its header promises counts as complete.
COMPLETE = 0.9


class Video(NamedTuple):
    """A video that is being read.

    Attributes:
      size: height and width of its frames.
      fps: frames per second.
      count: expected number of frames, None if unknown.
      frames: uint8[H, W, 3] each, from first to last.
    """

    size: tuple[int, int]
    fps: float
    count: int | None
    frames: Generator[np.ndarray]


def open_video(path: Path) -> Video:
    """Opens a video for reading.

    Raises:
      ValueError: if it is no video that ffmpeg can read.
    """
    if not path.is_file() or not path.stat().st_size:
        raise ValueError(f"`input`={path}: no file, or an empty one")
    reader: Any = imageio_ffmpeg.read_frames(path, output_params=EACH_FRAME)
    try:
        facts = next(reader)
    # The reader searches the output of ffmpeg, and errors of many types can come of that.
    except (OSError, LookupError, ValueError, AttributeError, RuntimeError) as error:
        raise ValueError(f"`input`={path}: ffmpeg finds no video in this file") from error
    width, height = facts["size"]
    fps = float(facts["fps"])
    if not (width and height and 0 < fps < MOST_FRAMES_PER_SECOND):
        raise ValueError(
            f"`input`={path}: its header is damaged: it states {width}x{height} pixels at {fps:g} "
            "frames/s"
        )
    count = round(facts["duration"] * fps) or None
    return Video((height, width), fps, count, _frames(reader, (height, width)))


def _frames(reader: Any, size: tuple[int, int]) -> Generator[np.ndarray]:
    # Unless it is closed, ffmpeg waits for its output to be read.
    with contextlib.closing(reader):
        for frame in reader:
            yield np.frombuffer(frame, np.uint8).reshape(*size, 3)


def write(
    predict: Callable[[np.ndarray], Mapping[str, np.ndarray]],
    path: Path,
    out: Path,
    *,
    seen: Callable[[tuple[int, int]], tuple[int, int]],
    tasks: Sequence[Task],
    class_names: Sequence[str],
    batch_size: int,
) -> str:
    """Predicts all frames of a video and writes them next to it; sound is left out.

    The scales are those of the first frames.

    Args:
      predict: frames uint8[B, H, W, 3] -> task name -> predictions [B, H, W, ...].
      path: the video.
      out: the MP4 file.
      seen: height and width of a photo -> those beyond which the network sees no more details.
      tasks: tasks to show.
      class_names: names of the classes of the data set.
      batch_size: frames that the network sees at once.

    Returns:
      A line on how long it took.

    Raises:
      ValueError: if it is no video that ffmpeg can read.
      OSError: if the file can't be written.
    """
    video = open_video(path)
    start, shown = time.perf_counter(), view.size_of(video.size)
    size = smallest_size(video.size, shown=shown, seen=seen(video.size))
    network, done, frame = 0.0, 0, None
    writer: Any = None
    part = out.with_name(f"{out.stem}.part.mp4")
    bar = tqdm(total=video.count, desc="frames", unit="frame", dynamic_ncols=True)
    try:
        while batch := list(itertools.islice(video.frames, batch_size)):
            pixels = np.stack([view.shrink(one, size) for one in batch])
            before = time.perf_counter()
            results = predict(pixels)
            network += time.perf_counter() - before
            if frame is None:
                frame = view.make_frame(tasks, results, shown, class_names)
                writer = open_writer(part, frame.canvas.shape, video.fps)
            for index, one in enumerate(pixels):
                drawn = frame.draw(one, {name: x[index] for name, x in results.items()})
                writer.send(drawn)
            done += len(batch)
            bar.update(len(batch))
        if writer is None:
            raise ValueError(f"`input`={path}: ffmpeg can't decode a single frame of this video")
        writer.close()
        os.replace(part, out)
    finally:
        bar.close()
        video.frames.close()
        if writer is not None:
            writer.close()
        part.unlink(missing_ok=True)
    elapsed = time.perf_counter() - start
    whole = video.count is None or done > COMPLETE * video.count
    frames = f"{done} frames" if whole else f"{done} of {video.count} frames, the rest is damaged"
    each = f"{1e3 * network / done:.0f} of {1e3 * elapsed / done:.0f}"
    return f"{frames}; {done / elapsed:.2f} images/s; ms per image: network {each}"


def smallest_size(
    size: tuple[int, int], *, shown: tuple[int, int], seen: tuple[int, int]
) -> tuple[int, int]:
    """Returns the smallest height and width at which frames can be predicted without a loss.

    They have the aspect of the frames, also where a long frame is shown shorter. Results have the
    size of the images that the network gets, so that larger ones would only cost time.

    Args:
      size: height and width of the frames.
      shown: those of a picture of the result.
      seen: those beyond which the network sees no more details.
    """
    for_network = min(1.0, max(new / old for new, old in zip(seen, size, strict=True)))
    for_picture = min(new / old for new, old in zip(shown, size, strict=True))
    scale = max(for_network, for_picture)
    height, width = (max(1, round(side * scale)) for side in size)
    return height, width


def open_writer(path: Path, shape: Sequence[int], fps: float) -> Any:
    """Returns a generator that takes frames uint8[H, W, 3] of an MP4 file."""
    writer = imageio_ffmpeg.write_frames(
        path, (shape[1], shape[0]), fps=fps, codec="libx264", macro_block_size=2, quality=7
    )
    writer.send(None)
    return writer
