"""Photos of many sizes, and files that are none, go through in order and with bounded memory."""

import numpy as np
import pytest
from PIL import Image

from mtl_jax.deploy import outputs, prediction
from mtl_jax.deploy.photos import Photo
from mtl_jax.tasks import DEPTH
from tests.deploy import stubs


def depth_of(folder, stem):
    with Image.open(folder / f"{stem}_depth.png") as image:
        return np.asarray(image) / 1000


def photo(name, height, width):
    return Photo(name, np.zeros((height, width, 3), np.uint8), None, ("small",))


@pytest.fixture
def form(tmp_path, monkeypatch):
    # Views take most of the time.
    monkeypatch.setattr(outputs.view, "png", lambda *arguments: b"")
    (tmp_path / "out").mkdir()
    return outputs.Form(tmp_path / "out", (DEPTH,))


def test_all_photos_have_their_own_predictions(tmp_path, form, capsys):
    sizes = [(18, 24), (24, 18), (18, 24), (5, 5), (18, 24)]
    paths = [tmp_path / f"{index}.png" for index in range(5)]
    pixels = [stubs.save(paths[i], *size, seed=i) for i, size in enumerate(sizes)]
    (tmp_path / "b.png").write_bytes(b"nothing")
    (tmp_path / "new\nline.png").write_bytes(b"")
    broken = [tmp_path / "b.png", tmp_path / "new\nline.png"]
    seen = []

    def predict(images):
        seen.append(images.shape[:3])
        return stubs.predict(images)

    log = prediction.predict_photos(predict, [*paths, *broken], form, batch_size=2)
    assert sorted(seen) == [(1, 5, 5), (1, 18, 24), (1, 24, 18), (2, 18, 24)]
    for path, photo in zip(paths, pixels, strict=True):
        np.testing.assert_allclose(
            depth_of(form.folder, path.stem), photo[..., 1] / 100, atol=0.0005
        )
    assert (log.done, log.unreadable) == (5, broken)
    out = capsys.readouterr().out
    assert f"skipped {tmp_path / 'b.png'}: not a photo of a known format" in out
    assert "new\\nline.png': the file is empty" in out
    assert "images/s; ms per image: reading" in log.speed()
    assert log.elapsed > 0


def test_batches_are_of_one_size_and_large_photos_do_not_wait(monkeypatch):
    monkeypatch.setattr(prediction, "MOST_WAITING", 1000)
    sizes = [(10, 10), (20, 20), (10, 10), (40, 40), (10, 10), (20, 20)]
    photos = [photo(i, *size) for i, size in enumerate(sizes)]
    batches = [[one.path for one in batch] for batch in prediction.by_size(photos, 2)]
    assert sorted(sum(batches, [])) == list(range(6))
    assert [0, 2] in batches
    # The large one is not kept until another one of its size comes.
    assert batches.index([3]) <= 2


def test_notes_and_lost_pixels_are_added_up(tmp_path, form):
    log = prediction.Log()
    for name in ("a", "b"):
        far = {"depth": np.full((2, 3), 70.0, np.float32)}
        log.add(tmp_path / name, outputs.write(photo(name, 2, 3), name, far, form))
    assert log.notes == {"small": [tmp_path / "a", tmp_path / "b"]}
    assert log.lost == {"farther than 65.535 m": 12}


def test_a_file_that_cannot_be_written_ends_it(tmp_path, form):
    stubs.save(tmp_path / "a.png")
    form.folder.rmdir()
    with pytest.raises(OSError, match="No such file or directory.*a_depth.png"):
        prediction.predict_photos(stubs.predict, [tmp_path / "a.png"], form, batch_size=1)
