"""KITTI 2015 stereo in its own file formats: a flat world of known depth behind two cameras."""

import numpy as np
import pytest
from PIL import Image

from datasets.kitti_stereo import kitti_stereo_dataset_builder as kitti
from mtl_jax import data, stereo
from mtl_jax.tasks import select

HEIGHT, WIDTH = 48, 96
FOCAL, BASELINE, DISPARITY = 80.0, 0.5, 8.0


def write_pair(root, number):
    """A pair of a wall at 5 metres, the scanner blind in the upper half."""
    rng = np.random.default_rng(number)
    wall = rng.integers(0, 256, (HEIGHT, WIDTH + 8, 3), np.uint8)
    disparity = np.full((HEIGHT, WIDTH), 256 * DISPARITY, np.uint16)
    disparity[: HEIGHT // 2] = 0
    arrays = (wall[:, :WIDTH], wall[:, 8:], disparity)
    *pngs, calibration = kitti.paths(root, number)
    for path, array in zip(pngs, arrays, strict=True):
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(array).save(path)
    calibration.parent.mkdir(exist_ok=True)
    lines = ["calib_time: 09-Jan-2012 13:57:47"]
    for name, shift in (("P_rect_02", 4.0), ("P_rect_03", 4.0 - FOCAL * BASELINE)):
        rows = f"{FOCAL} 0 {(WIDTH - 1) / 2} {shift} 0 {FOCAL} {(HEIGHT - 1) / 2} 0.1 0 0 1 0.002"
        lines.append(f"{name}: {rows}")
    calibration.write_text("\n".join(lines))


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("kitti")
    for number in range(kitti.PAIRS):
        write_pair(folder / "training", number)
    return folder


@pytest.fixture(scope="module")
def prepared(files, tmp_path_factory):
    config = kitti.config(height=HEIGHT, width=WIDTH)
    builder = kitti.Builder(config=config, data_dir=tmp_path_factory.mktemp("tfds"))
    kitti.prepare(builder, files)
    return data.open_splits(builder)


def test_every_fifth_pair_is_for_testing(prepared):
    assert {name: len(split) for name, split in prepared.items()} == {"train": 160, "test": 40}
    numbers = kitti.split_numbers()
    assert numbers["test"][:3] == [0, 5, 10]
    assert not set(numbers["train"]) & set(numbers["test"])


def test_depth_is_focal_length_times_baseline_over_disparity(prepared):
    example = prepared["train"].source[0]
    assert np.all(example["depth"][: HEIGHT // 2] == 0)
    np.testing.assert_allclose(example["depth"][HEIGHT // 2 :], 5.0, rtol=1e-3)
    np.testing.assert_allclose(example["baseline"], BASELINE)
    np.testing.assert_allclose(example["intrinsics"], [80, 80, 47.5, 23.5])


def test_the_right_view_rebuilds_the_left_one(prepared):
    (task,) = select(["depth"], depth_loss="stereo_l2")
    batch = data.decode(data.batch_at(prepared["train"], [task], batch_size=2, seed=0, step=0))
    wall = np.full((2, HEIGHT, WIDTH), 5.0, np.float32)
    total, pixels = stereo.squared_loss(wall, batch)
    assert pixels == 2 * HEIGHT * (WIDTH - 8)
    assert total / pixels < 1e-6
    assert stereo.squared_loss(wall + 1, batch)[0] > 1000 * total + 1


def test_a_smaller_size_keeps_disparities_true(files):
    example = kitti.make_example(files / "training", 3, HEIGHT // 2, WIDTH // 2)
    assert example["image"].shape == (24, 48, 3)
    shift = example["intrinsics"][0] * example["baseline"] / 5.0
    np.testing.assert_allclose(shift, DISPARITY / 2, rtol=1e-5)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda paths: paths[1].unlink(), "000007_10.png is missing: unpack"),
        (lambda paths: paths[2].write_bytes(b"broken"), "can't be read as a PNG"),
        (lambda paths: paths[3].write_text("P_rect_02: 1 2"), "does not hold P_rect_02"),
        (lambda paths: Image.new("RGB", (10, 10)).save(paths[1]), r"is \[10, 10, 3\] instead of"),
    ],
)
def test_damaged_files_are_told_in_a_line(files, tmp_path, damage, message):
    for number in range(kitti.PAIRS):
        for path in kitti.paths(files / "training", number):
            copy = tmp_path / path.relative_to(files)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.symlink_to(path) if number != 7 else copy.write_bytes(path.read_bytes())
    damage(kitti.paths(tmp_path / "training", 7))
    with pytest.raises(ValueError, match=message):
        kitti.make_example(kitti.find_root(tmp_path), 7, 24, 48)


def test_tasks_without_labels_are_refused(prepared):
    with pytest.raises(ValueError, match="no segmentation: leave segmentation out"):
        data.check_labels(prepared["train"].source[0], select(["segmentation"]))
    depth, normals = select(["depth", "normals"], depth_loss="stereo", normals_source="depth")
    with pytest.raises(ValueError, match="no normals: leave normals out"):
        data.check_labels(prepared["train"].source[0], [depth, normals])
