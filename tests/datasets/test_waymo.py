"""Waymo Open Dataset in its own schema: a street and a wall whose depth is known at each pixel."""

import shutil
import sys

import numpy as np
import pytest

import datasets
from datasets.waymo import lidar, segments
from datasets.waymo import waymo_dataset_builder as waymo
from datasets.waymo.segments import Drive, Segment
from mtl_jax import data
from mtl_jax.tasks import select
from tests.datasets import waymo_files as files
from tests.datasets.fuzzing import good

CAMERA = 1


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("waymo")
    files.write(folder, training=("b", "aa"), validation=("ccc",))
    return folder


@pytest.fixture(scope="module")
def prepared(root, tmp_path_factory):
    builder = datasets.builder(
        "waymo", image_size=(20, 30), data_dir=tmp_path_factory.mktemp("tfds"), manual_dir=root
    )
    datasets.prepare(builder)
    return builder


@pytest.fixture
def one(tmp_path):
    """A segment whose files a test may change."""
    files.write(tmp_path, training=("aa",))
    return Segment(tmp_path / "training", "aa")


def read(segment, times=files.LABELLED, camera=CAMERA):
    return good(segments.read(Drive(segment, tuple(times)), camera))


@pytest.mark.parametrize("camera", files.CAMERAS)
def test_depth_is_that_of_the_street_and_the_wall(one, camera):
    for frame in read(one, camera=camera):
        pixels, depth = (x[frame.points.depth > 0] for x in frame.points)
        assert len(pixels) > 200
        known = files.depth_at(camera, pixels.astype(np.float64))
        # The second returns are behind the first ones.
        first = np.abs(depth / known - 1) < 1e-3
        assert 0.5 < np.mean(first) < 0.95
        assert np.all(depth[~first] > known[~first])
        assert np.ptp(known) > 5


def test_the_nearest_return_of_a_pixel_is_kept():
    pixels = np.array([(0.2, 0.9), (1.9, 0.1), (5.9, 3.9), (2.0, 2.0), (6.0, 0.0), (-0.1, 0)])
    depth = np.array([7, 5, 4, 0, 3, 3], np.float32)
    found = lidar.depth_map(pixels.astype(np.float32), depth, (4, 6), 2, 3)
    np.testing.assert_array_equal(found, [[5, 0, 0], [0, 0, 4]])


def test_a_prepared_set_holds_what_the_files_hold(prepared):
    splits = data.open_splits(prepared)
    assert {split: len(each) for split, each in splits.items()} == {"train": 4, "test": 2}
    assert splits["train"].class_names[1] == "car"
    example = splits["train"].source[1]
    assert example["image"].shape == (20, 30, 3)
    expected = files.classes(files.LABELLED[1])[1::2, 1::2] - 1
    np.testing.assert_array_equal(example["segmentation"], expected)
    assert example["segmentation"].min() == -1
    focal, centre = files.FOCAL, files.CENTRE
    # With pixel centres at whole numbers; at half the size.
    np.testing.assert_allclose(
        example["intrinsics"],
        [focal[0] / 2, focal[1] / 2, centre[0] / 2 - 0.5, centre[1] / 2 - 0.5],
    )
    rows, columns = np.nonzero(example["depth"])
    assert 0.1 < len(rows) / example["depth"].size < 0.9
    depth = example["depth"][rows, columns].astype(np.float64)
    # The least and the most that is seen anywhere in a pixel.
    corners = [
        files.depth_at(CAMERA, np.stack([2.0 * (columns + i), 2.0 * (rows + j)], -1))
        for i in (0, 1)
        for j in (0, 1)
    ]
    assert np.mean((depth > np.min(corners, 0) * 0.99) & (depth < np.max(corners, 0) * 1.01)) > 0.9


def test_sizes_are_known_without_the_files_once_it_is_prepared(prepared):
    again = datasets.builder("waymo", image_size=(20, 30), data_dir=prepared.data_dir_root)
    outline = datasets.outline(again)
    assert (outline.train, outline.test, len(outline.class_names)) == (4, 2, 28)
    datasets.check_prepared(again)


def test_each_nth_frame(root, tmp_path, capsys):
    builder = datasets.builder(
        "waymo:every=2,camera=front_left", image_size=(20, 30), data_dir=tmp_path, manual_dir=root
    )
    assert datasets.outline(builder).train == 6
    datasets.prepare(builder)
    examples = data.open_splits(builder)["train"].source
    assert all(np.all(examples[i]["segmentation"] == -1) for i in range(6))
    assert all(np.any(examples[i]["depth"] > 0) for i in range(6))
    assert "6 of the 6 images of train have no segmentation" in capsys.readouterr().out


def test_normals_are_refused(prepared):
    for source in ("labels", "depth"):
        tasks = select(["depth", "normals"], normals_source=source)
        with pytest.raises(ValueError, match="no normals: leave normals out"):
            data.check_labels(datasets.outline(prepared).entries, tasks)


def test_files_in_another_order_give_the_same(one, tmp_path):
    before = read(one)
    path = one.path("lidar_camera_projection")
    table = files.pq.read_table(path)
    files.pq.write_table(table.take(list(range(table.num_rows))[::-1]), path)
    for first, second in zip(before, read(one), strict=True):
        shape = (files.HEIGHT, files.WIDTH)
        maps = [lidar.depth_map(*frame.points, shape, 10, 15) for frame in (first, second)]
        np.testing.assert_array_equal(*maps)


def change(table, **columns):
    """Returns a function that replaces columns whose names end in these words."""

    def changed(segment):
        path = segment.path(table)
        content = files.pq.read_table(path)
        for word, value in columns.items():
            for index, field in enumerate(content.schema):
                if field.name.endswith(word):
                    array = files.pa.array([value] * content.num_rows, field.type)
                    content = content.set_column(index, field, array)
        files.pq.write_table(content, path)

    return changed


def drop(table, word):
    def changed(segment):
        path = segment.path(table)
        content = files.pq.read_table(path)
        files.pq.write_table(
            content.drop_columns([name for name in content.column_names if word in name]), path
        )

    return changed


def keep_rows(table, count):
    def changed(segment):
        path = segment.path(table)
        files.pq.write_table(files.pq.read_table(path).slice(0, count), path)

    return changed


def overwrite(table, start, count):
    def changed(segment):
        path = segment.path(table)
        content = bytearray(path.read_bytes())
        content[start : start + count] = b"\xff" * count
        path.write_bytes(content)

    return changed


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda one: one.path("lidar").unlink(), r"lidar/aa.parquet is missing"),
        (drop("lidar", "return2.shape"), r"aa.parquet has no column \[LiDARComponent\].*shape$"),
        (lambda one: one.path("camera_image").write_bytes(b"PAR1"), "can't be read as Parquet: it"),
        (overwrite("camera_image", 30, 200), "can't be read as Parquet: it is damaged"),
        (change("camera_image", image=b"\xff\xd8 no"), "at 1100 can't be read as a JPEG"),
        (keep_rows("camera_image", 3), "at 1300 is missing, where the labels are"),
        (
            change("camera_image", image=files.encoded(np.zeros((4, 6, 3), np.uint8), "JPEG")),
            r"at 1100 is uint8\[4, 6, 3\] instead of uint8\[40, 60, 3\]",
        ),
        (change("camera_segmentation", panoptic_label=b""), "that can't be read as a PNG"),
        (change("camera_segmentation", divisor=0), "that has the divisor 0"),
        (change("camera_segmentation", divisor=100), "that has the label 27. outside 0..28"),
        (keep_rows("camera_calibration", 0), "has 0 rows for camera 1 instead of 1"),
        (change("camera_calibration", f_u=0.0), "camera_calibration/aa.parquet has the focal len"),
        (change("camera_calibration", transform=[1.0] * 16), "not a rotation and a translation"),
        (change("camera_calibration", f_u=None), "aa.parquet has no calibration of camera 1"),
        (keep_rows("lidar_calibration", 1), "laser 2 at .* does not agree with .*calibration/aa"),
        (change("lidar_calibration", values=[0.1, 0.2]), "laser 1 at .* does not agree with"),
        (change("lidar_calibration", values=None, min=None), "no inclinations of the beams of las"),
        (change("lidar_camera_projection", shape=[1, 2, 6]), "numbers for the shape .1, 2, 6., wh"),
        (change("lidar", values=[1.0] * 8, shape=[1, 2, 4]), "not of the same shape as its camera"),
        (keep_rows("lidar", 7), "lidar/aa.parquet lacks laser 2 at 1100, which has a camera proj"),
        (drop("camera_segmentation", "divisor"), "no column .*panoptic_label_divisor"),
    ],
)
def test_wrong_files_are_refused_in_a_line(one, tmp_path, damage, message):
    files.write(tmp_path, validation=("ccc",))
    damage(one)
    builder = datasets.builder(
        "waymo", image_size=(20, 30), data_dir=tmp_path / "data", manual_dir=tmp_path
    )
    with pytest.raises(ValueError, match=message) as raised:
        datasets.prepare(builder)
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "data").exists()


def test_segments_without_labels_are_left_out(one, tmp_path):
    files.write(tmp_path, training=("b",), validation=("ccc",))
    one.path("camera_segmentation").unlink()
    place = {"data_dir": tmp_path / "data", "manual_dir": tmp_path}
    assert datasets.outline(datasets.builder("waymo", **place)).train == 2
    assert datasets.outline(datasets.builder("waymo:every=1", **place)).train == 10
    shutil.rmtree(tmp_path / "validation" / "camera_segmentation")
    with pytest.raises(ValueError, match="validation has no frame .* labels: .*waymo:every=10"):
        datasets.outline(datasets.builder("waymo", **place))


def test_a_folder_without_files_is_refused(tmp_path):
    for folder in (None, tmp_path / "empty"):
        builder = datasets.builder("waymo", data_dir=tmp_path / "data", manual_dir=folder)
        with pytest.raises(ValueError, match="no files .*camera_image.*: set `manual_dir` to"):
            datasets.prepare(builder)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("waymo:camera=rear", "`dataset`=waymo:camera=rear: camera must be one of front, front_l"),
        ("waymo:every=-1", "`dataset`=waymo:every=-1: every must be 0"),
        ("waymo:manual_dir=x", "manual_dir"),
    ],
)
def test_wrong_options_are_refused(text, message):
    with pytest.raises(ValueError, match=message):
        datasets.builder(text)


def test_pyarrow_is_needed_only_here(root, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow.dataset", None)
    builder = datasets.builder("waymo", data_dir=tmp_path / "data", manual_dir=root)
    with pytest.raises(ValueError, match=r"need pyarrow .*pip install -e '\.\[waymo\]'"):
        datasets.prepare(builder)


def test_the_default_size_has_the_shape_of_the_photos():
    sizes = [
        (waymo.config(camera).height, waymo.config(camera).width) for camera in segments.CAMERAS
    ]
    assert sizes == [(320, 480)] * 3 + [(224, 480)] * 2
