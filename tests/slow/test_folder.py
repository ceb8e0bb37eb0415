"""Rooms that are written as the files of a folder train exactly as the rooms themselves."""

import shutil

import pytest

import datasets
from mtl_jax import data
from tests.datasets import folder_files
from tests.slow import programs

pytestmark = pytest.mark.slow


def test_rooms_as_files_give_the_same_run(made, sandbox):
    rooms = datasets.builder("rooms:train=8,test=4", data_dir=sandbox / "data")
    splits = data.open_splits(rooms)
    parts = {"train": splits["train"].source, "val": splits["test"].source}
    folder_files.write(sandbox / "mine", parts, splits["train"].class_names)
    finished = programs.launch("--dataset=folder --folder=mine", sandbox)
    assert finished.status == 0, finished.text
    assert "labels of 8 of 8 images of train (100%) and 4 of 4 images of test" in finished.text
    programs.assert_same_run(sandbox / "new", made / "run")
    # The run knows its folder.
    evaluated = programs.launch("--mode=evaluate --dataset=folder", sandbox)
    assert evaluated.status == 0, evaluated.text
    # It does not go on with other labels.
    (sandbox / "mine/masks/train/train0000.png").unlink()
    longer = programs.launch("--dataset=folder --folder=mine --epochs=9", sandbox)
    refused, _ = programs.refusal(longer)
    assert "new holds a run on other data: the data set has changed since then" in refused


def test_a_run_with_labels_for_some_images_reaches_its_end(made, sandbox):
    rooms = datasets.builder("rooms:train=8,test=4", data_dir=sandbox / "data")
    splits = data.open_splits(rooms)
    parts = {"train": splits["train"].source, "val": splits["test"].source}
    folder_files.write(sandbox / "mine", parts, splits["train"].class_names)
    # A batch of four images may have no mask or no depth at all.
    for number in range(1, 8):
        (sandbox / f"mine/masks/train/train{number:04d}.png").unlink()
        (sandbox / f"mine/depth/train/train{7 - number:04d}.npy").unlink()
    (sandbox / "mine/normals/val/val0003.npy").unlink()
    finished = programs.launch("--dataset=folder --folder=mine", sandbox)
    assert finished.status == 0, finished.text
    assert "segmentation: labels of 1 of 8 images of train (12%)" in finished.text
    assert "WARNING" not in finished.text
    line = (
        "labels: segmentation 1, depth 1, normals 8 of 8 training images; "
        "segmentation 4, depth 4, normals 3 of 4 test images"
    )
    assert line in finished.text
    table = (sandbox / "new" / "report" / "table.md").read_text()
    assert f"- {line.capitalize()}.\n" in table
    found = programs.read_json(sandbox / "new" / "result.json")["metrics"]
    assert all(value == value for value in found.values() if value is not None)


def test_pairs_in_files_with_coloured_masks_give_the_same_run(sandbox):
    rooms = datasets.builder("rooms:train=8,test=4", data_dir=sandbox / "data")
    splits = data.open_splits(rooms)
    parts = {"train": splits["train"].source, "val": splits["test"].source}
    folder_files.write(sandbox / "mine", parts, splits["train"].class_names)
    folder_files.write_pairs(sandbox / "mine", parts)
    folder_files.colour_masks(sandbox / "mine", splits["train"].class_names)
    # Normals are learned from the predicted depth, which takes the cameras.
    losses = "--depth_loss=stereo --normals_source=depth --epochs=1"
    for flags in (f"--workdir=rooms {losses}", f"--dataset=folder --folder=mine {losses}"):
        finished = programs.launch(flags, sandbox)
        assert finished.status == 0, finished.text
    assert "right views: of 8 of 8 images of train and 4 of 4 images of test" in finished.text
    programs.assert_same_run(sandbox / "new", sandbox / "rooms")


def test_normals_are_learned_from_depth_where_there_are_no_files(sandbox):
    rooms = datasets.builder("rooms:train=8,test=4", data_dir=sandbox / "data")
    splits = data.open_splits(rooms)
    parts = {"train": splits["train"].source, "val": splits["test"].source}
    folder_files.write(sandbox / "mine", parts, splits["train"].class_names)
    shutil.rmtree(sandbox / "mine/normals")
    for number in range(3):
        (sandbox / f"mine/depth/train/train{number:04d}.npy").unlink()
    flags = "--folder=mine --epochs=1 --normals_source=depth --dataset=folder"
    for options, ways in (
        (":normals=depth", ("cameras.txt", "EXIF", ":field_of_view=60")),
        (":field_of_view=60", ("leave normals out of --tasks", "--dataset=folder:normals=depth")),
    ):
        refused, before = programs.refusal(programs.launch(f"{flags}{options}", sandbox))
        assert all(way in refused for way in ways) and before == 0, refused
    finished = programs.launch(f"{flags}:normals=depth,field_of_view=60", sandbox)
    assert finished.status == 0, finished.text
    assert "normals: labels of 5 of 8 images of train" in finished.text
    assert "normals: computed from the depth of 9 images" in finished.text
    found = programs.read_json(sandbox / "new" / "result.json")["metrics"]
    assert 0 < found["normals/mean"] < 180
