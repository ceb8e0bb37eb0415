"""A video goes in and comes out next to its predictions, frame by frame."""

import subprocess

import imageio_ffmpeg
import numpy as np
import pytest

from mtl_jax.deploy import video, view
from tests import fakes
from tests.deploy import stubs
from tests.fakes import TASKS

HEIGHT, WIDTH, FRAMES = 120, 160, 7
# imageio-ffmpeg leaves its pipes to the garbage collector.
pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


def film(path, *, height=HEIGHT, width=WIDTH, frames=FRAMES, step=30):
    """Makes a video that becomes brighter."""
    writer = imageio_ffmpeg.write_frames(path, (width, height), fps=12, macro_block_size=2)
    writer.send(None)
    for index in range(frames):
        writer.send(np.full((height, width, 3), step * index + 20, np.uint8))
    writer.close()
    return path


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return film(tmp_path_factory.mktemp("video") / "clip.mp4")


def write(path, out, predict=stubs.predict, seen=(96, 128)):
    tasks = tuple(TASKS.values())
    options = {"tasks": tasks, "class_names": fakes.CLASSES, "batch_size": 3}
    return video.write(predict, path, out, seen=lambda size: seen, **options)


def test_every_frame_is_predicted(clip, tmp_path):
    batches = []

    def predict(images):
        batches.append(len(images))
        return stubs.predict(images)

    line = write(clip, tmp_path / "out.mp4", predict)
    assert line.startswith("7 frames; ")
    assert batches == [3, 3, 1]
    made = video.open_video(tmp_path / "out.mp4")
    frames = list(made.frames)
    assert (len(frames), made.fps) == (FRAMES, 12)
    assert made.size[1] == pytest.approx(4 * WIDTH, abs=4)
    for index, frame in enumerate(frames):
        assert frame[60, 80].mean() == pytest.approx(30 * index + 20, abs=12)
    assert [path.name for path in tmp_path.iterdir()] == ["out.mp4"]


def test_a_video_with_gaps_keeps_its_frames_and_its_length(tmp_path):
    path, seconds = tmp_path / "gaps.mp4", 2.0
    whole = film(tmp_path / "whole.mp4", height=32, width=48, frames=24, step=8)
    # Of two seconds the first four frames and the last six.
    chosen = ["-vf", "select=lt(n\\,4)+gt(n\\,17)", "-fps_mode", "vfr"]
    tool = imageio_ffmpeg.get_ffmpeg_exe()
    subprocess.run([tool, "-loglevel", "error", "-i", whole, *chosen, path], check=True)
    opened = video.open_video(path)
    brightness = [frame.mean() for frame in opened.frames]
    expected = [8 * index + 20 for index in (*range(4), *range(18, 24))]
    np.testing.assert_allclose(brightness, expected, atol=6)
    assert len(brightness) / opened.fps == pytest.approx(seconds, rel=0.02)
    assert opened.count == len(brightness)


@pytest.mark.parametrize(
    ("seen", "predicted"),
    [((96, 144), (320, 480)), ((432, 648), (432, 648)), ((960, 1440), (640, 960))],
    ids=["as shown", "all that the network sees", "all that there is"],
)
def test_the_network_sees_frames_as_sharp_as_it_can(tmp_path, seen, predicted):
    path, sizes = film(tmp_path / "large.mp4", height=640, width=960, frames=2), []

    def predict(images):
        sizes.append(images.shape[1:3])
        return stubs.predict(images)

    write(path, tmp_path / "out.mp4", predict, seen)
    assert sizes == [predicted]
    # What is shown has the same size for all networks.
    assert video.open_video(tmp_path / "out.mp4").size[1] == pytest.approx(4 * 480, rel=0.02)


@pytest.mark.parametrize(
    ("size", "predicted"), [((40, 400), (48, 480)), ((400, 40), (480, 48)), ((60, 80), (120, 160))]
)
def test_the_network_sees_the_aspect_of_frames_that_are_shown_shorter(tmp_path, size, predicted):
    path, sizes = film(tmp_path / "long.mp4", height=size[0], width=size[1], frames=1), []

    def predict(images):
        sizes.append(images.shape[1:3])
        return stubs.predict(images)

    write(path, tmp_path / "out.mp4", predict, seen=(32, 48))
    assert sizes == [predicted]


def test_frames_are_read_one_by_one(clip):
    opened = video.open_video(clip)
    assert (opened.size, opened.fps, opened.count) == ((HEIGHT, WIDTH), 12, FRAMES)
    assert next(opened.frames).shape == (HEIGHT, WIDTH, 3)
    opened.frames.close()


@pytest.mark.parametrize("content", [b"", b"no video" * 100, None], ids=["empty", "text", "none"])
def test_what_is_no_video(tmp_path, content):
    path = tmp_path / "a.mp4"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ValueError, match="`input`=.*a.mp4: "):
        write(path, tmp_path / "out.mp4")
    assert not (tmp_path / "out.mp4").exists()


def test_a_truncated_video_is_refused(clip, tmp_path):
    path = tmp_path / "a.mp4"
    path.write_bytes(clip.read_bytes()[:500])
    with pytest.raises(ValueError, match="`input`=.*a.mp4: "):
        write(path, tmp_path / "out.mp4")


def test_the_rest_of_a_damaged_video_is_missed(clip, tmp_path, monkeypatch):
    opened = video.open_video(clip)
    monkeypatch.setattr(video, "open_video", lambda path: opened._replace(count=20))
    assert write(clip, tmp_path / "out.mp4").startswith("7 of 20 frames, the rest is damaged; ")


def test_an_error_leaves_no_part(clip, tmp_path, monkeypatch):
    def fails(*arguments):
        raise MemoryError

    monkeypatch.setattr(view.Frame, "draw", fails)
    with pytest.raises(MemoryError):
        write(clip, tmp_path / "out.mp4")
    assert list(tmp_path.iterdir()) == []
