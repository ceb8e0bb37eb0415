"""KITTI 2015 stereo in its own file formats: a flat world of known depth behind two cameras."""

import numpy as np
import pytest
from PIL import Image

from datasets.kitti_stereo import kitti_stereo_dataset_builder as kitti
from mtl_jax import data
from mtl_jax.tasks import select, stereo
from tests.datasets.fuzzing import good

HEIGHT, WIDTH = 48, 96
FOCAL, BASELINE, DISPARITY = 80.0, 0.5, 8.0


def read_example(root, number, height, width, classes=0):
    ((_, pair),) = good(kitti.readings(root, [number], classes))
    return kitti.make_example(pair, height, width)


def write_pair(root, number):
    """Writes a pair that shows a wall at 5 metres, without disparity in the upper half."""
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
    batch = data.decode(
        data.batch_at(prepared["train"], [task], batch_size=2, seed=0, step=0), [task]
    )
    wall = np.full((2, HEIGHT, WIDTH), 5.0, np.float32)
    total, pixels = stereo.squared_loss(wall, batch)
    assert pixels == 2 * HEIGHT * (WIDTH - 8)
    assert total / pixels < 1e-6
    assert stereo.squared_loss(wall + 1, batch)[0] > 1000 * total + 1


def test_a_smaller_size_keeps_disparities_true(files):
    example = read_example(files / "training", 3, HEIGHT // 2, WIDTH // 2)
    assert example["image"].shape == (24, 48, 3)
    shift = example["intrinsics"][0] * example["baseline"] / 5.0
    np.testing.assert_allclose(shift, DISPARITY / 2, rtol=1e-5)


def save(path, level):
    Image.fromarray(np.full((HEIGHT, WIDTH), level)).save(path)


def convert(path, mode):
    Image.open(path).convert(mode).save(path)


def cut(path):
    path.write_bytes(path.read_bytes()[:-40])


def move_right_camera(path, shift):
    path.write_text(path.read_text().replace(str(4.0 - FOCAL * BASELINE), str(shift)))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda paths: paths[1].unlink(), "000007_10.png is missing: unpack"),
        (lambda paths: paths[2].write_bytes(b"broken"), "can't be read as a PNG"),
        (lambda paths: paths[3].write_text("P_rect_02: 1 2"), "does not hold P_rect_02"),
        (lambda paths: Image.new("RGB", (10, 10)).save(paths[1]), r"is \[10, 10, 3\] instead of"),
        (
            lambda paths: save(paths[2], np.uint8(DISPARITY)),
            "is 8-bit grey, where KITTI has 16-bit",
        ),
        (lambda paths: save(paths[2], np.uint16(1)), "its depth has a median of 1.024e.04, where"),
        (lambda paths: save(paths[2], np.uint16(0)), "holds no disparity"),
        (lambda paths: save(paths[2], np.uint16(50000)), "195.3 pixels in an image 96 pixels wide"),
        (lambda paths: save(paths[0], np.uint8(9)), "is 8-bit grey, where KITTI has 8-bit RGB"),
        (lambda paths: save(paths[0], np.uint16(9)), "is 16-bit grey, where KITTI has 8-bit RGB"),
        (lambda paths: convert(paths[1], "RGBA"), "is 8-bit RGB with alpha, where"),
        (lambda paths: convert(paths[1], "P"), "is 8-bit palette, where"),
        (lambda paths: cut(paths[0]), "000007_10.png can't be read as a PNG"),
        (lambda paths: move_right_camera(paths[3], 4.0), "has a baseline of 0"),
        (lambda paths: move_right_camera(paths[3], 44.0), "has a baseline of -0.5"),
        (lambda paths: move_right_camera(paths[3], "nan"), "NaN"),
        (lambda paths: move_right_camera(paths[3], "-inf"), "infinity"),
        (lambda paths: move_right_camera(paths[3], "-40,0"), "P_rect_03"),
        (lambda paths: paths[3].write_bytes(b"\xff\xfe"), "000007.txt can't be read as text"),
    ],
)
def test_damaged_files_are_reported_in_a_line(files, tmp_path, damage, message):
    for number in range(kitti.PAIRS):
        for path in kitti.paths(files / "training", number):
            copy = tmp_path / path.relative_to(files)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.symlink_to(path) if number != 7 else copy.write_bytes(path.read_bytes())
    damage(kitti.paths(tmp_path / "training", 7))
    with pytest.raises(ValueError, match=message):
        read_example(kitti.find_root(tmp_path), 7, 24, 48)


def test_a_single_pixel_too_far_for_any_scanner_is_refused(tmp_path):
    for number in range(2):
        write_pair(tmp_path, number)
    disparity = kitti.paths(tmp_path, 0)[2]
    values = np.array(Image.open(disparity))
    values[-1, -1] = 1
    Image.fromarray(values).save(disparity)
    with pytest.raises(ValueError, match="its depth holds the depth 10240: metres up to 1000"):
        read_example(tmp_path, 0, 24, 48)
    assert np.isfinite(read_example(tmp_path, 1, 24, 48)["depth"]).all()


def test_all_wrong_files_are_named(tmp_path, monkeypatch):
    monkeypatch.setattr(kitti, "PAIRS", 20)
    for number in range(20):
        write_pair(tmp_path, number)
        cut(kitti.paths(tmp_path, number)[1])
    builder = kitti.Builder(config=kitti.config(24, 48), data_dir=tmp_path / "data")
    with pytest.raises(ValueError, match="000001_10.png can't .*000012_10.png .*; and 10 more$"):
        kitti.prepare(builder, tmp_path)
    for number in range(20):
        kitti.paths(tmp_path, number)[2].unlink()
    with pytest.raises(
        ValueError, match="disp_occ_0/000009_10.png is missing; and 10 more: unpack"
    ):
        kitti.prepare(builder, tmp_path)
    assert not (tmp_path / "data").exists()


# Segmentation


def write_labels(root, number):
    """Writes ids of Cityscapes: a border of rectification, a car, a trailer, and road."""
    ids = np.full((HEIGHT, WIDTH), 7, np.uint8)
    ids[:, 0], ids[0, 10:20], ids[0, 20:30] = 2, 26, 30
    path = kitti.labels_path(root, number)
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(ids).save(path)


@pytest.fixture
def labelled(tmp_path, monkeypatch):
    """Five pairs with segmentation labels."""
    monkeypatch.setattr(kitti, "PAIRS", 5)
    for number in range(5):
        write_pair(tmp_path / "training", number)
        write_labels(tmp_path / "training", number)
    return tmp_path


@pytest.mark.parametrize(("classes", "car"), [(19, 13), (7, 6)])
def test_segmentation_has_the_classes_of_cityscapes(labelled, tmp_path, capsys, classes, car):
    config = kitti.config(height=HEIGHT, width=WIDTH, classes=classes)
    assert config.name == f"48x96_classes{classes}"
    builder = kitti.Builder(config=config, data_dir=tmp_path / "data")
    kitti.prepare(builder, labelled)
    train = data.open_splits(builder)["train"]
    segmentation = train.source[0]["segmentation"]
    assert np.all(segmentation[:, 0] == -1)
    assert segmentation[0, 10:30].tolist() == [car] * 10 + [-1] * 10
    assert np.all(segmentation[1:, 1:] == 0)
    assert train.class_names[car] == {19: "car", 7: "vehicle"}[classes]
    data.check_labels(train.source[0], select(["segmentation", "depth"], depth_loss="stereo"))
    assert "is not used" not in capsys.readouterr().out


def test_labels_that_are_not_used_are_mentioned(labelled, capsys):
    kitti.find_root(labelled)
    assert "semantic is not used: kitti_stereo:classes=19" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.unlink(), "000002_10.png is missing: unpack data_semantics.zip of"),
        (lambda path: save(path, np.uint8(200)), "has the label 200 outside 0..33"),
        (lambda path: save(path, np.uint16(7)), "is 16-bit grey, where KITTI has 8-bit grey"),
        (lambda path: Image.new("L", (9, 8)).save(path), r"is \[8, 9\] instead of \[48, 96\]"),
        (cut, "can't be read as a PNG"),
    ],
)
def test_damaged_labels_are_reported_in_a_line(labelled, tmp_path, damage, message):
    damage(kitti.labels_path(labelled / "training", 2))
    builder = kitti.Builder(
        config=kitti.config(HEIGHT, WIDTH, classes=19), data_dir=tmp_path / "data"
    )
    with pytest.raises(ValueError, match=message) as caught:
        kitti.prepare(builder, labelled)
    assert "semantic/000002_10.png" in str(caught.value)
    # Without classes they are not needed.
    kitti.check(kitti.find_root(labelled))


def test_tasks_without_labels_are_refused(prepared):
    with pytest.raises(ValueError, match="no segmentation: leave segmentation out"):
        data.check_labels(prepared["train"].source[0], select(["segmentation"]))
    depth, normals = select(["depth", "normals"], depth_loss="stereo", normals_source="depth")
    with pytest.raises(ValueError, match="no normals: leave normals out"):
        data.check_labels(prepared["train"].source[0], [depth, normals])
