"""The command that predicts photos: what it checks, what it says, what it leaves."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from mtl_jax import deploy
from mtl_jax.commands import predictions
from tests.deploy import stubs

DEFAULTS = {
    "input": None, "out": None, "workdir": ["runs/none"], "mode": "predict", "checkpoint": "latest",
    "eval_batch_size": 8, "overwrite": False, "save_arrays": False, "flip_test": False, "tile": 1,
    "point_cloud": False, "focal_length": None, "sensor_depth": None,
}  # fmt: skip


@pytest.fixture(autouse=True)
def predictor(monkeypatch):
    made = stubs.predictor()
    monkeypatch.setattr(predictions, "load", lambda folder, *, checkpoint: made)
    return made


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "in").mkdir()
    stubs.save(tmp_path / "in" / "a.png")
    return tmp_path


def run(folder, **changes):
    """Returns what the command prints; its folders lie in the given one."""
    given = {"input": str(folder / "in"), "out": str(folder / "out"), **changes}
    return list(predictions.predict(SimpleNamespace(**DEFAULTS | given)))


def test_a_folder_of_photos(folder):
    stubs.save(folder / "in" / "b.jpg", 30, 20)
    (folder / "in" / "notes.txt").touch()
    note, last = run(folder)
    assert note == f"note: left out {folder / 'in' / 'notes.txt'}, no photo by its suffix"
    assert last.startswith(f"2 photos predicted, see {folder / 'out'}: ")
    assert len(list((folder / "out").iterdir())) == 8


def test_unreadable_files_are_an_error_after_the_others(folder):
    (folder / "in" / "b.png").touch()
    with pytest.raises(ValueError, match="1 of 2 files can't be read, see above; the others are"):
        run(folder)
    assert (folder / "out" / "a_depth.png").exists()


def test_nothing_is_overwritten_unless_that_is_asked_for(folder, predictor, monkeypatch):
    run(folder)
    (folder / "out" / "a_view.png").unlink()
    before = (folder / "out" / "a_depth.png").stat().st_mtime_ns
    stubs.save(folder / "in" / "a.png", seed=1)
    with pytest.raises(ValueError, match="^3 files would be overwritten: .*a_.* give `overwrite`"):
        run(folder)
    assert (folder / "out" / "a_depth.png").stat().st_mtime_ns == before
    assert not (folder / "out" / "a_view.png").exists()
    run(folder, overwrite=True)
    assert (folder / "out" / "a_view.png").exists()
    assert (folder / "out" / "a_depth.png").stat().st_mtime_ns != before


def test_points_and_arrays(folder):
    note, _ = run(folder, point_cloud=True, save_arrays=True, focal_length=50.0)
    assert note.endswith("a.png: points with the focal length of `focal_length`=50 pixels")
    assert {"a.ply", "a.npz"} <= {path.name for path in (folder / "out").iterdir()}


def test_what_does_not_fit_is_said(folder, predictor):
    far = {"depth": np.full((1, 18, 24), 99.0, np.float32)}
    run_far = lambda images, **options: stubs.predict(images) | far  # noqa: E731
    type(predictor).__call__ = lambda self, images, **options: run_far(images)
    note, _ = run(folder)
    assert note == "note: 432 pixels are farther than 65.535 m, more than the file can hold"


def test_tiles_and_mirrors(folder, predictor):
    seen = []

    def call(self, images, *, flip_test):
        seen.append((images.shape, flip_test))
        return stubs.predict(images)

    type(predictor).__call__ = call
    run(folder, tile=2, flip_test=True)
    assert len(seen) == 1 + 2
    assert all(flip_test for _, flip_test in seen)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"input": None}, "`input`: give a photo"),
        ({"input": "nothing/*.jpg"}, "`input`=nothing/.*: no file has this name or pattern"),
        ({"focal_length": 20.0}, "`focal_length` has no effect"),
    ],
)
def test_settings_that_make_no_sense(folder, changes, words):
    with pytest.raises(ValueError, match=words):
        run(folder, **changes)
    assert not (folder / "out").exists()


def test_the_folder_of_the_photos_is_not_written_to(folder):
    with pytest.raises(ValueError, match="`out`=.*: the photos are there"):
        run(folder, out=str(folder / "in"))
    with pytest.raises(ValueError, match="`out`=.* is a file"):
        run(folder, out=str(folder / "in" / "a.png"))


def test_points_need_distances(folder, predictor):
    predictor.tasks = ("segmentation",)
    with pytest.raises(ValueError, match="`point_cloud`: no task of this run predicts distances"):
        run(folder, point_cloud=True)


def test_photos_have_the_focal_length_of_training_images_on_their_side_too(predictor):
    predictor.image_size, predictor.focal_length = (12, 16), 0.75  # 12 pixels
    assert predictions.usual_focal_length(predictor) == 12 / 16
    predictor.image_size, predictor.focal_length = (16, 12), 1.0
    assert predictions.usual_focal_length(predictor) == 12 / 16
    predictor.focal_length = None
    assert predictions.usual_focal_length(predictor) is None


def test_a_video_takes_no_settings_of_photos(folder):
    (folder / "a.mp4").touch()
    video = str(folder / "a.mp4")
    for name in ("save_arrays", "point_cloud"):
        with pytest.raises(ValueError, match=f"`{name}` goes with photos"):
            run(folder, input=video, **{name: True})
    (folder / "out").mkdir()
    (folder / "out" / "a_view.mp4").touch()
    with pytest.raises(ValueError, match="1 file would be overwritten"):
        run(folder, input=video)
    with pytest.raises(ValueError, match="`input`=.*a.mp4: no file, or an empty one"):
        run(folder, input=video, overwrite=True)


def test_frames_keep_the_details_that_each_tile_shows():
    def detail(tile):
        predictor = SimpleNamespace(network_size=lambda size: (size[0] // 8, size[1] // 8))
        return predictions.most_detailed(predictor, SimpleNamespace(tile=tile), (720, 1280))

    assert detail(tile=1) == (90, 160)
    assert detail(tile=3) == (270, 480)


def test_a_video_without_the_extra(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    monkeypatch.delitem(sys.modules, "mtl_jax.deploy.video", raising=False)
    monkeypatch.delattr(deploy, "video", raising=False)
    (folder / "a.mp4").touch()
    with pytest.raises(ValueError, match=r"imageio-ffmpeg .*pip install -e '.\[video\]'"):
        run(folder, input=str(folder / "a.mp4"))


def test_an_animation_is_one_photo(folder):
    frames = [Image.new("RGB", (20, 10), colour) for colour in ("red", "blue")]
    frames[0].save(folder / "in" / "a.gif", save_all=True, append_images=frames[1:])
    note, _ = run(folder)
    assert note.endswith("a.gif: the first of 2 frames")
    with Image.open(folder / "out" / "a.gif_segmentation.png") as image:
        assert (np.asarray(image) == 2).all()
