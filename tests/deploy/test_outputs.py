"""The files of a photo hold what was predicted, and no two photos share one."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from datasets import array_files
from mtl_jax.deploy import bands, outputs
from mtl_jax.deploy.photos import Photo
from mtl_jax.tasks import DEPTH, SEGMENTATION, class_colours
from tests import fakes
from tests.deploy import stubs
from tests.fakes import TASKS

TWO = "points with the focal length "


@pytest.fixture
def photo():
    return Photo(Path("some/a.png"), stubs.colours(18, 24), None, ("a note",))


@pytest.fixture
def results(photo):
    return stubs.predict(photo.pixels)


def form(folder, **options):
    return outputs.Form(folder, tuple(TASKS.values()), fakes.CLASSES, **options)


def test_what_is_written_comes_back(photo, results, tmp_path):
    written = outputs.write(photo, "a", results, form(tmp_path, save_arrays=True))
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "a.npz", "a_depth.png", "a_normals.png", "a_segmentation.png", "a_view.png",
    ]  # fmt: skip
    assert (written.notes, written.lost) == (["a note"], {})
    with Image.open(tmp_path / "a_segmentation.png") as image:
        assert image.mode == "P"
        np.testing.assert_array_equal(np.asarray(image), results["segmentation"])
        painted = np.asarray(image.convert("RGB"))
        assert image.text["Classes"] == "0 bed, 1 floor, 2 wall"
    np.testing.assert_array_equal(painted, class_colours(3)[results["segmentation"]])
    with Image.open(tmp_path / "a_depth.png") as image:
        assert image.mode.startswith("I")
        np.testing.assert_allclose(np.asarray(image) / 1000, results["depth"], atol=0.0005)
        assert "millimetres" in image.text["Description"]
    with Image.open(tmp_path / "a_normals.png") as image:
        normals = np.asarray(image) / 127.5 - 1
        np.testing.assert_allclose(normals, results["normals"], atol=1.01 / 255)
        assert "y down and z forward" in image.text["Description"]
    with np.load(tmp_path / "a.npz") as arrays:
        assert set(arrays) == set(TASKS)
        for name, array in arrays.items():
            np.testing.assert_array_equal(array, results[name])
            assert array.dtype == results[name].dtype


def test_large_photos_are_encoded_in_bands(results, monkeypatch):
    whole = outputs.png(results["depth"], DEPTH, ())
    monkeypatch.setattr(bands, "MOST_PIXELS", 50)
    assert [x.stop - x.start for x in bands.bands((5, 24))] == [2, 2, 2]
    assert outputs.png(results["depth"], DEPTH, ()) == whole


def test_what_does_not_fit_is_counted(photo, results, tmp_path):
    results["depth"][2:4, 5] = 70.0
    lost = outputs.write(photo, "a", results, form(tmp_path)).lost
    assert lost == {"farther than 65.535 m": 2}


@pytest.mark.parametrize("classes", [1, 2, 13, 256])
def test_indices_with_a_palette_have_eight_bits(tmp_path, classes):
    labels = np.arange(256, dtype=np.int32).reshape(8, 32) % classes
    path = tmp_path / "classes.png"
    path.write_bytes(outputs.png(labels, SEGMENTATION, [f"class {i}" for i in range(classes)]))
    assert array_files.png_form(path).pixels == "8-bit palette"
    np.testing.assert_array_equal(array_files.load_png(path), labels)


def test_more_classes_than_a_palette_has(tmp_path):
    labels = np.arange(300, dtype=np.int32).reshape(10, 30)
    file = outputs.png(labels, SEGMENTATION, [f"class {i}" for i in range(300)])
    with Image.open(io.BytesIO(file)) as image:
        np.testing.assert_array_equal(np.asarray(image), labels)


def test_where_the_focal_length_comes_from(photo, results, tmp_path):
    known = form(tmp_path, point_cloud=True, usual_focal_length=0.8)
    usual = outputs.write(photo, "a", results, known).notes[-1]
    assert usual == f"{TWO}of the training images, 0.800 times the longer side"
    # The same camera on its side.
    upright = photo._replace(pixels=np.rot90(photo.pixels))
    assert outputs.focal_length_of(upright, known) == outputs.focal_length_of(photo, known)
    own = photo._replace(focal_length=20.0)
    assert outputs.focal_length_of(own, known) == (20.0, "of their EXIF data")
    given = known._replace(focal_length=30.0)
    assert outputs.focal_length_of(own, given) == (30.0, "of `focal_length`=30 pixels")
    (tmp_path / "a.ply").unlink()
    unknown = form(tmp_path, point_cloud=True)
    assert "give `focal_length`" in outputs.write(photo, "a", results, unknown).notes[-1]
    assert not (tmp_path / "a.ply").exists()


def test_names_never_meet():
    names = [
        "x/a.jpg", "x/a.png", "x/A.PNG", "y/a.png", "x/b.png", "y/c.a.png", "y/b_.tif", "z/b_.tif",
    ]  # fmt: skip
    stems = outputs.stems_of([Path(name) for name in names])
    assert stems[0] == "a.jpg"
    assert stems[4:6] == ["b", "c.a"]
    assert stems[6:] == ["y_b_.tif", "z_b_.tif"]
    assert len({stem.casefold() for stem in stems}) == len(names)
    assert outputs.stems_of([Path("a.png")]) == ["a"]
    long = outputs.stems_of([Path("照" * 80 + ".png"), Path("照" * 80 + "x.png")])
    assert len(set(long)) == 2
    assert max(len(stem.encode()) for stem in long) < 210


def test_existing_files_are_found(tmp_path):
    both = form(tmp_path, point_cloud=True)
    assert outputs.existing(both, ["a", "b"]) == []
    (tmp_path / "b.ply").touch()
    (tmp_path / "b.npz").touch()
    (tmp_path / "a_depth.png").symlink_to("nothing")
    found = outputs.existing(both, ["a", "b"])
    assert [path.name for path in found] == ["a_depth.png", "b.ply"]
