"""The builder of NYU-Depth V2 on made-up files in the two layouts."""

import contextlib
import hashlib
import http.server
import os
import sys
import threading
from pathlib import Path

import h5py
import jax
import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image
from tensorflow_datasets.core.download import checksums

from datasets.nyu_depth_v2 import classes, labeled_mat, leftovers, mtan_folders, resizing
from datasets.nyu_depth_v2 import nyu_depth_v2_dataset_builder as nyu
from datasets.nyu_depth_v2.frame import INTRINSICS

# Digests of mapClass in classMapping40.mat (uint8) and of trainNdxs, testNdxs (uint16, 1-based)
# in splits.mat.
CLASS_40_SHA256 = "9c75cdc1ff39748751966fe8d8493b1d2ca3acda9ec861b2f70f52221d65a7bd"
TRAIN_SHA256 = "3e06f93e72a123ac410290a2cd39492ab1db8f922e19871ef292ba6f5048c30e"
TEST_SHA256 = "2eeec7e27c622efec02adeaeb4b46566781fffd5e057d100ee98ca977cf0d0a5"
# classMapping13 in class13Mapping.mat.
CLASS_13_OF_40 = (
    12, 5, 6, 1, 4, 9, 10, 12, 13, 6, 8, 6, 13, 10, 6, 13, 6, 7, 7, 5,
    7, 3, 2, 6, 11, 7, 7, 7, 7, 7, 7, 6, 7, 7, 7, 7, 7, 7, 6, 7,
)  # fmt: skip

PLANE = np.array([0.3, -0.6, -0.742])  # a floor that rises to the right, unit to 1e-3
WALL, FLOOR, BED = 21, 11, 157  # official labels


def sha256(array, dtype):
    return hashlib.sha256(np.asarray(array).astype(dtype).tobytes()).hexdigest()


# A frame in which no two quarters are alike


def plane_depth(height, width):
    fx, fy, cx, cy = resizing.resize_intrinsics(INTRINSICS, (480, 640), height, width)
    v, u = np.mgrid[:height, :width]
    rays = np.stack([(u - cx) / fx, (v - cy) / fy, np.ones((height, width))], axis=-1)
    return (-2.0 / (rays @ (PLANE / np.linalg.norm(PLANE)))).astype(np.float32)


def quarters(height, width, top_left, top_right, bottom_left, bottom_right):
    out = np.empty((height, width), np.uint16)
    half = height // 2, width // 2
    out[: half[0], : half[1]], out[: half[0], half[1] :] = top_left, top_right
    out[half[0] :, : half[1]], out[half[0] :, half[1] :] = bottom_left, bottom_right
    return out


def image(height, width):
    v, u = np.mgrid[:height, :width]
    return np.stack([200 * u / width, 200 * v / height, np.full_like(u, 50)], -1).astype(np.uint8)


def write_mat(path, frames=(0, 1, 2, 3), shrink=False, **replaced):
    """The official file's structure at full size; all other frames are holes, which cost nothing.

    `replaced` gives a data set's (shape, dtype), or None to leave it out.
    """
    datasets = {
        "images": ((1449, 3, 640, 480), "u1"),
        "depths": ((1449, 640, 480), "f4"),
        "labels": ((1449, 640, 480), "u2"),
    } | replaced
    labels = quarters(480, 640, WALL, FLOOR, BED, 0)
    labels[0, 0] = 894
    contents = {
        "images": image(480, 640).transpose(2, 1, 0),
        "depths": plane_depth(480, 640).T,
        "labels": labels.T,
    }
    with h5py.File(path, "w") as file:
        for name, spec in datasets.items():
            if spec is None:
                continue
            shape, dtype = spec
            made = file.create_dataset(
                name, shape, dtype, chunks=(1, *shape[1:]), compression="gzip", fletcher32=True
            )
            for index in frames if name not in replaced else ():
                made[index] = contents[name]
    return path


@pytest.fixture(scope="module")
def mat_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mat")
    write_mat(folder / labeled_mat.FILENAME)
    return folder


def write_mtan(root, height=6, width=8, counts=None):
    """The mtan layout, each file but the first of a folder a link to the second."""
    counts = counts or {"train": 795, "val": 654}
    labels = quarters(height, width, 11, 4, 0, 0).astype(np.float32)
    labels[height // 2 :, width // 2 :] = -1
    normals = np.broadcast_to(PLANE, (height, width, 3)).astype(np.float32).copy()
    normals[0, 0] = 0
    files = {
        "image": image(height, width).astype(np.float32) / 255,
        "label": labels,
        "depth": plane_depth(height, width)[..., None],
        "normal": normals,
    }
    for split, count in counts.items():
        for kind, array in files.items():
            folder = root / split / kind
            folder.mkdir(parents=True)
            np.save(folder / "0.npy", array * (0.5 if (split, kind) == ("val", "depth") else 1))
            np.save(folder / "1.npy", array)
            for index in range(2, count):
                os.link(folder / "1.npy", folder / f"{index}.npy")
    return root


def everything_in(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


@contextlib.contextmanager
def one_line(kind, *parts, folder=None):
    """Expects an error in one line with these parts, and nothing new in the folder."""
    before = everything_in(folder) if folder else None
    with pytest.raises(kind) as caught:
        yield
    assert "\n" not in str(caught.value)
    for part in parts:
        assert str(part) in str(caught.value)
    if folder:
        assert everything_in(folder) == before


def builder(data_dir, **wanted):
    return nyu.Builder(data_dir=data_dir, config=nyu.config(**wanted))


def prepare_some(made, manual_dir, count=2):
    made.download_and_prepare(
        download_config=tfds.download.DownloadConfig(
            manual_dir=manual_dir, max_examples_per_split=count, try_download_gcs=False
        )
    )


# Classes and split


def test_classes_are_the_official_ones():
    of_40, of_13 = classes.class_of_label(40), classes.class_of_label(13)
    assert of_40.dtype == of_13.dtype == np.int8
    assert of_40[0] == of_13[0] == -1
    assert sha256(of_40[1:] + 1, np.uint8) == CLASS_40_SHA256
    np.testing.assert_array_equal(of_13[1:], np.array(CLASS_13_OF_40)[of_40[1:]] - 1)
    assert classes.class_names(13)[of_13[BED]] == classes.class_names(40)[of_40[BED]] == "bed"
    assert (len(classes.class_names(13)), len(classes.class_names(40))) == (13, 40)


def test_split_is_the_official_one():
    split = classes.split_indices()
    assert {name: len(indices) for name, indices in split.items()} == {"train": 795, "test": 654}
    assert sha256(split["train"] + 1, "<u2") == TRAIN_SHA256
    assert sha256(split["test"] + 1, "<u2") == TEST_SHA256


# Resizing


@pytest.mark.parametrize("size", [(288, 384), (96, 128), (61, 47), (480, 640), (500, 700)])
def test_images_resize_as_antialiased_bilinear(size):
    picture = np.random.default_rng(0).uniform(0, 255, (480, 640, 3)).astype(np.float32)
    ours = resizing.resize_image(picture, *size)
    theirs = jax.image.resize(picture, (*size, 3), "linear", antialias=True)
    np.testing.assert_allclose(ours, theirs, atol=0.02)


@pytest.mark.parametrize("size", [(288, 384), (96, 128), (61, 47), (480, 640), (500, 700)])
def test_labels_depth_and_normals_stay_aligned(size):
    numbers = np.arange(480 * 640, dtype=np.int32).reshape(480, 640)
    ours = resizing.resize_nearest(numbers, *size)
    theirs = Image.fromarray(numbers).resize(size[::-1], Image.Resampling.NEAREST)
    # Pillow rounds the same centre in floating point: it may differ where that is a border.
    assert np.mean(ours == np.asarray(theirs)) > 0.9
    stacked = resizing.resize_nearest(np.stack([numbers, -numbers], -1), *size)
    np.testing.assert_array_equal(stacked[..., 0], ours)
    rows, columns = np.divmod(ours, 640)
    row_centres = (np.arange(size[0]) + 0.5) * 480 / size[0]
    assert np.all(np.abs(rows + 0.5 - row_centres[:, None]) < 0.5001)
    assert np.all(np.abs(columns + 0.5 - (np.arange(size[1]) + 0.5) * 640 / size[1]) < 0.5001)


def test_intrinsics_keep_the_corners_of_the_image():
    scaled = resizing.resize_intrinsics(INTRINSICS, (480, 640), 96, 160)
    for (u, v), (small_u, small_v) in (
        ((-0.5, -0.5), (-0.5, -0.5)),
        ((639.5, 479.5), (159.5, 95.5)),
    ):
        ray = (u - INTRINSICS[2]) / INTRINSICS[0], (v - INTRINSICS[3]) / INTRINSICS[1]
        small = (small_u - scaled[2]) / scaled[0], (small_v - scaled[3]) / scaled[1]
        np.testing.assert_allclose(small, ray, rtol=1e-5)


# Configs


def test_config_names():
    assert nyu.config() is nyu.Builder.builder_configs["labeled"]
    assert nyu.config(num_classes=40) is nyu.Builder.builder_configs["labeled40"]
    assert nyu.config("mtan") is nyu.Builder.builder_configs["mtan"]
    assert nyu.config(height=96, width=128).name == "labeled_96x128"
    assert nyu.config("labeled", 40, 96, 128).name == "labeled40_96x128"
    assert nyu.config("mtan", 13, 96, 128).name == "mtan_96x128"


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ({"layout": "raw"}, "layout"),
        ({"num_classes": 894}, "num_classes"),
        ({"layout": "mtan", "num_classes": 40}, "num_classes"),
        ({"height": 0}, "height"),
        ({"width": -5}, "width"),
    ],
)
def test_wrong_configs(wanted, message):
    with one_line(ValueError, message):
        nyu.config(**wanted)


# The official file


@pytest.fixture(scope="module")
def labeled(mat_dir, tmp_path_factory):
    made = builder(tmp_path_factory.mktemp("labeled"), height=96, width=128)
    prepare_some(made, mat_dir)
    return made


def test_features(labeled):
    assert list(labeled.info.metadata["class_names"]) == list(classes.NAMES_13)
    example = labeled.as_data_source("train")[0]
    assert {key: (value.shape, value.dtype.name) for key, value in example.items()} == {
        "image": ((96, 128, 3), "uint8"),
        "segmentation": ((96, 128), "int8"),
        "depth": ((96, 128), "float16"),
        "normals": ((96, 128, 3), "float16"),
        "intrinsics": ((4,), "float32"),
    }
    assert "tensorflow" not in sys.modules


def test_orientation_classes_and_void(labeled):
    # Frames 3 and 4 begin the training set, 1 and 2 the test set.
    for split in ("train", "test"):
        source = labeled.as_data_source(split)
        assert len(source) == 2
        for example in source:
            expected = image(480, 640).reshape(96, 5, 128, 5, 3).mean((1, 3))
            assert np.abs(example["image"] - expected).max() < 3
            wanted = quarters(96, 128, 11, 4, 0, 99).astype(np.int8)
            wanted[48:, 64:] = -1
            np.testing.assert_array_equal(example["segmentation"], wanted)


def test_depth_normals_and_intrinsics_agree(labeled):
    example = labeled.as_data_source("test")[1]
    fx, fy, cx, cy = example["intrinsics"]
    np.testing.assert_allclose(example["intrinsics"][:2], INTRINSICS[:2] / 5, rtol=1e-6)
    np.testing.assert_allclose(example["depth"], plane_depth(96, 128), rtol=2e-3)
    normals = example["normals"].astype(np.float64)
    np.testing.assert_allclose(
        normals, np.broadcast_to(PLANE / np.linalg.norm(PLANE), normals.shape), atol=2e-3
    )
    v, u = np.mgrid[:96, :128]
    rays = np.stack([(u - cx) / fx, (v - cy) / fy, np.ones((96, 128))], axis=-1)
    assert np.all(np.sum(normals * rays, axis=-1) < 0)


def test_frames_come_in_the_order_asked_for_with_40_classes(mat_dir):
    path = mat_dir / labeled_mat.FILENAME
    found = list(labeled_mat.frames(path, [3, 700, 0], num_classes=40))
    assert [index for index, _ in found] == [3, 700, 0]
    frame = found[0][1]
    assert frame.segmentation[0, 0] == classes.NAMES_40.index("otherprop")
    assert frame.segmentation[10, 10] == classes.NAMES_40.index("wall")
    assert frame.segmentation[470, 10] == classes.NAMES_40.index("bed")
    empty = found[1][1]
    assert np.all(empty.segmentation == -1) and np.all(empty.depth == 0)


def test_missing_depth_has_no_normal():
    frame = nyu.Frame(
        image=image(480, 640).astype(np.float32),
        segmentation=np.zeros((480, 640), np.int8),
        depth=np.where(np.arange(640) < 320, plane_depth(480, 640), 0),
    )
    example = nyu.make_example(frame, 96, 128)
    present = np.any(example["normals"] != 0, axis=-1)
    np.testing.assert_array_equal(present, example["depth"] > 0)
    assert present[:, :64].all() and not present[:, 64:].any()


def test_another_checksum_is_reported_and_used(mat_dir, monkeypatch, capsys):
    path = mat_dir / labeled_mat.FILENAME
    labeled_mat.check(path)
    assert capsys.readouterr().out.count("\n") == 1
    monkeypatch.setattr(labeled_mat, "SIZE", path.stat().st_size)
    labeled_mat.check(path)
    assert "SHA-256" in capsys.readouterr().out
    monkeypatch.setattr(labeled_mat, "SHA256", hashlib.sha256(path.read_bytes()).hexdigest())
    labeled_mat.check(path)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("replaced", "message"),
    [
        ({"depths": None}, "no data set 'depths'"),
        ({"labels": ((795, 640, 480), "u2")}, "'labels' is uint16[795, 640, 480]"),
        ({"images": ((1449, 480, 640, 3), "u1")}, "'images' is uint8[1449, 480, 640, 3]"),
        ({"depths": ((1449, 640, 480), "u2")}, "'depths' is uint16"),
    ],
)
def test_incomplete_file(tmp_path, replaced, message):
    path = write_mat(tmp_path / labeled_mat.FILENAME, **replaced)
    with one_line(ValueError, path, message, folder=tmp_path):
        nyu.prepare(builder(tmp_path / "data"), tmp_path)


@pytest.mark.parametrize("length", [0, 100, 5000])
def test_truncated_file(mat_dir, tmp_path, length):
    path = tmp_path / labeled_mat.FILENAME
    path.write_bytes((mat_dir / labeled_mat.FILENAME).read_bytes()[:length])
    with one_line(ValueError, path, "truncated", folder=tmp_path):
        nyu.prepare(builder(tmp_path / "data"), tmp_path)


def test_damaged_frame(tmp_path):
    path = write_mat(tmp_path / labeled_mat.FILENAME)
    with h5py.File(path) as file:
        chunk = file["depths"].id.get_chunk_info(1)  # frame 2, in the test set
    with path.open("r+b") as file:
        file.seek(chunk.byte_offset + chunk.size // 2)
        file.write(bytes(8))
    # Frame 3, which comes first, was written by then.
    with one_line(OSError, path, "frame 2 can't be read", folder=tmp_path):
        prepare_and_clean(builder(tmp_path / "data", height=24, width=32), tmp_path)


def prepare_and_clean(made, manual_dir):
    """`prepare` of a few frames a split."""
    root = Path(made.data_dir).parents[2]
    with leftovers.cleaned_up_on_failure(root, "downloads", made.name):
        prepare_some(made, manual_dir, 2)


def test_unknown_label(tmp_path):
    path = write_mat(tmp_path / labeled_mat.FILENAME)
    with h5py.File(path, "r+") as file:
        file["labels"][2, 5, 5] = 895
    with one_line(ValueError, path, "frame 3 has the label 895", folder=tmp_path):
        nyu.prepare(builder(tmp_path / "data", height=24, width=32), tmp_path)


def test_no_such_manual_dir(tmp_path):
    with one_line(ValueError, "manual_dir", folder=tmp_path):
        nyu.prepare(builder(tmp_path / "data"), tmp_path / "nowhere")


# Full disks


def test_too_little_space(mat_dir, tmp_path, monkeypatch):
    usage = leftovers.shutil.disk_usage(tmp_path)
    monkeypatch.setattr(leftovers.shutil, "disk_usage", lambda _: usage._replace(free=10**8))
    with one_line(OSError, "0.1 GB free", "1.3 GB", folder=tmp_path):
        nyu.prepare(builder(tmp_path / "data"), mat_dir)


def test_disk_fills_up_while_writing(tmp_path, monkeypatch):
    def write(*_):
        raise RuntimeError("write() failed: No space left on device; many\nmore words")

    monkeypatch.setattr(tfds.core.SequentialWriter, "add_examples", write)
    write_mtan(tmp_path / "mtan")
    with one_line(OSError, "no space left", tmp_path / "data", folder=tmp_path):
        nyu.prepare(builder(tmp_path / "data", layout="mtan"), tmp_path / "mtan")


def test_interruption_leaves_nothing(mat_dir, tmp_path, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(nyu, "make_example", interrupt)
    with pytest.raises(KeyboardInterrupt):
        nyu.prepare(builder(tmp_path), mat_dir)
    assert everything_in(tmp_path) == []


# Downloads, from a server on this machine


@pytest.fixture
def server(tmp_path, monkeypatch):
    """Serves tmp_path/served; `cut` bytes of each answer are kept back."""
    folder = tmp_path / "served"
    folder.mkdir()

    class Handler(http.server.SimpleHTTPRequestHandler):
        cut = 0

        def __init__(self, *args):
            super().__init__(*args, directory=folder)

        def copyfile(self, source, outputfile):
            content = source.read()
            outputfile.write(content[: len(content) - self.cut])

        def log_message(self, *_):
            pass

    running = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=running.serve_forever)
    thread.start()
    url = f"http://127.0.0.1:{running.server_port}/{labeled_mat.FILENAME}"
    monkeypatch.setattr(nyu, "URL", url)
    yield running
    running.shutdown()
    thread.join()
    running.server_close()


def register(monkeypatch, path, checksum=None):
    info = checksums.compute_url_info(path)
    if checksum:
        info.checksum = checksum
    monkeypatch.setattr(nyu.Builder, "url_infos", {nyu.URL: info})


def test_registered_checksum_is_the_official_one():
    infos = nyu.Builder.url_infos
    assert list(infos) == [nyu.URL]
    assert infos[nyu.URL].checksum == labeled_mat.SHA256
    assert infos[nyu.URL].size == labeled_mat.SIZE


def test_download_is_verified_and_kept(server, tmp_path, monkeypatch):
    register(monkeypatch, write_mat(tmp_path / "served" / labeled_mat.FILENAME))
    prepare_some(builder(tmp_path / "data", height=24, width=32), None, 1)
    server.shutdown()
    server.server_close()
    other = builder(tmp_path / "data", height=48, width=64)
    prepare_some(other, None, 1)
    assert len(other.as_data_source("test")) == 1


def test_download_with_a_wrong_checksum(server, tmp_path, monkeypatch):
    register(monkeypatch, write_mat(tmp_path / "served" / labeled_mat.FILENAME), "0" * 64)
    with one_line(OSError, nyu.URL, "its checksum is wrong", "by hand into", folder=tmp_path):
        nyu.prepare(builder(tmp_path / "data"))


def test_download_that_breaks_off(server, tmp_path, monkeypatch):
    register(monkeypatch, write_mat(tmp_path / "served" / labeled_mat.FILENAME))
    server.RequestHandlerClass.cut = 1000
    with one_line(OSError, nyu.URL, "by hand into", folder=tmp_path):
        nyu.prepare(builder(tmp_path / "data"))


def test_no_network(server, tmp_path):
    server.shutdown()
    server.server_close()
    manual = tmp_path / "data" / "downloads" / "manual"
    with one_line(OSError, nyu.URL, labeled_mat.FILENAME, manual, folder=tmp_path):
        nyu.prepare(builder(tmp_path / "data"))


# The mtan folders


def test_mtan(tmp_path):
    made = builder(tmp_path / "data", layout="mtan", height=6, width=8)
    nyu.prepare(made, write_mtan(tmp_path / "mtan"))
    assert {name: made.info.splits[name].num_examples for name in made.info.splits} == {
        "train": 795,
        "test": 654,
    }
    example = made.as_data_source("train")[794]
    np.testing.assert_array_equal(example["image"], image(6, 8))
    np.testing.assert_array_equal(example["segmentation"][:3], quarters(6, 8, 11, 4, 0, 0)[:3])
    np.testing.assert_array_equal(example["segmentation"][3:], [[0] * 4 + [-1] * 4] * 3)
    np.testing.assert_allclose(example["depth"], plane_depth(6, 8), rtol=1e-3)
    np.testing.assert_allclose(example["normals"][3, 3], PLANE, atol=1e-3)
    assert np.all(example["normals"][0, 0] == 0)
    # The first frame of the folder val/, whose depth is halved, begins the test split.
    first, second = (made.as_data_source("test")[i]["depth"].astype(np.float32) for i in (0, 1))
    np.testing.assert_allclose(first, second / 2, rtol=2e-3)
    assert [path.name for path in Path(made.data_dir).parent.iterdir()] == ["1.0.0"]
    nyu.prepare(made, tmp_path / "mtan")  # is done already
    assert "tensorflow" not in sys.modules


def test_mtan_in_another_size(tmp_path):
    write_mtan(tmp_path, 12, 16, counts={"train": 2})
    (_, frame), *_ = mtan_folders.frames(tmp_path, "train", 2)
    example = nyu.make_example(frame, 6, 8)
    np.testing.assert_array_equal(example["segmentation"][3:], [[0] * 4 + [-1] * 4] * 3)
    np.testing.assert_allclose(
        example["intrinsics"], resizing.resize_intrinsics(INTRINSICS, (480, 640), 6, 8), rtol=1e-6
    )
    np.testing.assert_allclose(example["depth"], frame.depth[1::2, 1::2], rtol=1e-3)


def replace(path, array):
    path.unlink()
    np.save(path, array)


def truncate(path):
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(content[:-10])


@pytest.mark.parametrize(
    ("name", "damage", "message"),
    [
        ("val/depth/300.npy", truncate, "truncated"),
        ("val/depth/1.npy", lambda path: path.write_bytes(b""), "truncated"),
        ("train/label/0.npy", lambda path: path.write_bytes(b"not an array"), "truncated or not"),
        ("train/image/5.npy", lambda path: path.unlink(), "794 .npy files instead of 795"),
        ("train/depth/5.npy", lambda p: p.rename(p.with_name("795.npy")), "there is no"),
        ("val/normal/7.npy", lambda p: replace(p, np.zeros((3, 6, 8))), "[3, 6, 8]"),
        ("train/depth/9.npy", lambda p: replace(p, np.zeros((6, 8))), "[6, 8] instead of"),
        ("train/label/9.npy", lambda p: replace(p, np.zeros((12, 16))), "[12, 16] instead of"),
        ("train/image/0.npy", lambda p: replace(p, np.full((6, 8, 3), 200.0)), "0..1"),
        ("train/label/0.npy", lambda p: replace(p, np.full((6, 8), 13.0)), "-1..12"),
        ("train/normal/0.npy", lambda p: replace(p, np.full((6, 8, 3), 0.577)), "camera"),
    ],
)
def test_damaged_mtan(tmp_path, name, damage, message):
    write_mtan(tmp_path / "mtan")
    damage(tmp_path / "mtan" / name)
    folder_or_file = tmp_path / "mtan" / (Path(name).parent if ".npy files" in message else name)
    with one_line(ValueError, folder_or_file, message, folder=tmp_path):
        nyu.prepare(builder(tmp_path / "data", layout="mtan"), tmp_path / "mtan")


def test_mtan_without_its_folders(tmp_path):
    (tmp_path / "train").mkdir()
    with one_line(ValueError, tmp_path / "train" / "image", folder=tmp_path):
        nyu.prepare(builder(tmp_path / "data", layout="mtan"), tmp_path)
    with one_line(ValueError, tmp_path / "data" / "downloads" / "manual", folder=tmp_path):
        nyu.prepare(builder(tmp_path / "data", layout="mtan"))
