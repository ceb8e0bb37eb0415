"""What can go wrong with NYU-Depth V2: one clear line each, and nothing left behind."""

import http.server
import threading
from pathlib import Path

import h5py
import numpy as np
import pytest
from tensorflow_datasets.core.download import checksums

from datasets.nyu_depth_v2 import classes, labeled_mat, mtan_folders
from datasets.nyu_depth_v2 import nyu_depth_v2_dataset_builder as nyu
from tests.datasets.fuzzing import good
from tests.datasets.nyu_files import (
    builder,
    one_line,
    prepare_some,
    write_mat,
    write_mtan,
)

pytestmark = pytest.mark.usefixtures("optimised")


@pytest.fixture(scope="module")
def mat_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mat")
    write_mat(folder / labeled_mat.FILENAME)
    return folder


# The official file


@pytest.mark.parametrize(
    ("replaced", "message"),
    [
        ({"depths": None}, "no data set 'depths'"),
        ({"labels": ((795, 640, 480), "u2")}, "'labels' is uint16[795, 640, 480]"),
        ({"images": ((1449, 480, 640, 3), "u1")}, "'images' is uint8[1449, 480, 640, 3]"),
        ({"depths": ((1449, 640, 480), "u2")}, "'depths' is uint16"),
        ({"images": ((1449, 3, 640, 480), "u2")}, "'images' is uint16"),
        ({"images": ((1449, 3, 640, 480), "f4")}, "'images' is float32"),
        ({"labels": ((1449, 640, 480), "u1")}, "'labels' is uint8"),
        ({"labels": ((1449, 640, 480), "f4")}, "'labels' is float32"),
        ({"depths": ((1449, 480, 640), "f4")}, "'depths' is float32[1449, 480, 640] instead of"),
        ({"depths": None, "labels": None}, "no data set 'labels'"),
        ({"depths": None, "labels": ((1449, 640, 480), "i4")}, "'labels' is int32"),
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


def test_damaged_frame(tmp_path, monkeypatch):
    few = {"train": np.array([2]), "test": np.array([0, 1])}
    monkeypatch.setattr(classes, "split_indices", lambda: few)
    path = write_mat(tmp_path / labeled_mat.FILENAME)
    with h5py.File(path) as file:
        chunk = file["depths"].id.get_chunk_info(1)  # frame 2, in the test set
    with path.open("r+b") as file:
        file.seek(chunk.byte_offset + chunk.size // 2)
        file.write(bytes(8))
    # Frame 3, which comes first, was written by then.
    with one_line(OSError, path, "frame 2 can't be read", folder=tmp_path):
        nyu.prepare(builder(tmp_path / "data", height=24, width=32), tmp_path)


def test_unknown_label(tmp_path, monkeypatch):
    monkeypatch.setattr(classes, "split_indices", lambda: {"train": [2, 3], "test": [0, 1]})
    path = write_mat(tmp_path / labeled_mat.FILENAME)
    with h5py.File(path, "r+") as file:
        file["labels"][2, 5, 5] = 895
    with one_line(ValueError, path, "frame 3 has the label 895", folder=tmp_path):
        nyu.prepare(builder(tmp_path / "data", height=24, width=32), tmp_path)


def set_value(path, name, value):
    with h5py.File(path, "r+") as file:
        for index in (0, 2):
            file[name][index, 100:200] = value


@pytest.mark.parametrize(
    ("name", "value", "phrase"),
    [
        ("depths", np.nan, "holds NaN or infinite values"),
        ("depths", -0.5, "holds the negative depth -0.5"),
        ("depths", 70000.0, "holds the depth 70000"),
        ("labels", 900, "has the label 900 outside 0..894"),
    ],
)
def test_all_frames_with_wrong_values_are_named(tmp_path, monkeypatch, name, value, phrase):
    few = {"train": np.array([1, 2]), "test": np.array([0, 3])}
    monkeypatch.setattr(classes, "split_indices", lambda: few)
    path = write_mat(tmp_path / labeled_mat.FILENAME)
    set_value(path, name, value)
    with one_line(ValueError, f"frame 3 {phrase}", f"frame 1 {phrase}", folder=tmp_path):
        nyu.prepare(builder(tmp_path / "data", height=24, width=32), tmp_path)


def test_official_depth_in_millimetres(tmp_path, monkeypatch):
    monkeypatch.setattr(classes, "split_indices", lambda: {"train": [2, 3], "test": [0, 1]})
    path = write_mat(tmp_path / labeled_mat.FILENAME)
    with h5py.File(path, "r+") as file:
        file["depths"][2] = file["depths"][2] * 1000
    with one_line(ValueError, path, "frame 3 has a median of", "millimetres", folder=tmp_path):
        nyu.prepare(builder(tmp_path / "data", height=24, width=32), tmp_path)


# Downloads, from a server on this machine


@pytest.fixture
def server(tmp_path, monkeypatch):
    """Serves tmp_path/served; the last `cut` bytes of each answer are withheld."""
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


def replace(path, array):
    path.unlink()
    np.save(path, array)


def truncate(path):
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(content[:-10])


@pytest.fixture
def few(tmp_path, monkeypatch):
    """Replaces the official folders by ones with 24 frames per split."""
    indices = {"train": np.arange(24), "test": np.arange(24)}
    monkeypatch.setattr(classes, "split_indices", lambda: indices)
    return write_mtan(tmp_path / "mtan", counts={"train": 24, "val": 24})


@pytest.mark.parametrize(
    ("name", "damage", "message"),
    [
        ("val/depth/20.npy", truncate, "truncated"),
        ("val/depth/1.npy", lambda path: path.write_bytes(b""), "truncated"),
        ("train/label/0.npy", lambda path: path.write_bytes(b"not an array"), "truncated or not"),
        ("train/image/5.npy", lambda path: path.unlink(), "23 .npy files instead of 24"),
        ("train/depth/5.npy", lambda p: p.rename(p.with_name("24.npy")), "there is no"),
        ("val/normal/7.npy", lambda p: replace(p, np.zeros((3, 6, 8))), "[3, 6, 8]"),
        ("train/depth/9.npy", lambda p: replace(p, np.zeros((6, 8))), "[6, 8] instead of"),
        ("train/label/9.npy", lambda p: replace(p, np.zeros((12, 16))), "[12, 16] instead of"),
        ("train/image/0.npy", lambda p: replace(p, np.full((6, 8, 3), 200.0)), "0..1"),
        ("train/label/0.npy", lambda p: replace(p, np.full((6, 8), 13.0)), "-1..12"),
        ("train/normal/0.npy", lambda p: replace(p, np.full((6, 8, 3), 0.577)), "camera"),
    ],
)
def test_damaged_mtan(few, tmp_path, name, damage, message):
    damage(few / name)
    folder_or_file = few / (Path(name).parent if ".npy files" in message else name)
    with one_line(ValueError, folder_or_file, message, folder=tmp_path):
        nyu.prepare(builder(tmp_path / "data", layout="mtan"), few)


@pytest.mark.parametrize(
    ("name", "damage", "message"),
    [
        ("val/normal/3.npy", lambda p: replace(p, np.full((6, 8, 3), -0.2)), "length 0.346"),
        ("val/depth/3.npy", lambda p: replace(p, np.full((6, 8, 1), 2431.0)), "millimetres"),
        ("val/depth/3.npy", lambda p: replace(p, np.full((6, 8, 1), 2431, "u2")), "is uint16[6, 8"),
        ("val/depth/3.npy", lambda p: replace(p, np.full((6, 8, 1), -1.0)), "negative"),
        ("val/depth/3.npy", lambda p: replace(p, np.full((6, 8, 1), np.inf)), "NaN or infinite"),
        ("val/label/3.npy", lambda p: replace(p, np.full((6, 8), 3.6)), "holds 3.6, which is no"),
        ("val/label/3.npy", lambda p: replace(p, np.full((6, 8), 255, "u1")), "the label 255"),
        ("val/image/3.npy", lambda p: replace(p, np.zeros((6, 8, 3), "u1")), "is uint8[6, 8, 3]"),
        ("val/image/3.npy", lambda p: replace(p, np.zeros((6, 8, 4))), "[6, 8, 4] instead of"),
        ("val/image/0.npy", lambda p: replace(p, np.zeros((6, 8, 3), complex)), "is complex128"),
        ("val/label/0.npy", lambda p: replace(p, np.zeros((0, 8))), "[0, 8] instead of"),
        ("val/label/0.npy", lambda p: replace(p, np.zeros((6, 8), object)), "Python objects"),
        ("train/image/0.npy", lambda p: replace(p, np.zeros((7, 8, 3))), "[7, 8, 3] instead of"),
    ],
)
def test_wrong_arrays_in_mtan(few, tmp_path, name, damage, message):
    damage(few / name)
    with one_line(ValueError, few / name, message, folder=tmp_path):
        nyu.prepare(builder(tmp_path / "data", layout="mtan"), few)


def test_everything_wrong_with_mtan_is_reported_together(few, tmp_path):
    root = few
    replace(root / "train/label/3.npy", np.full((6, 8), 3.6))
    replace(root / "train/depth/7.npy", np.full((6, 8, 1), 2431.0))
    replace(root / "val/depth/0.npy", np.full((6, 8, 1), np.nan))
    wrong = (
        "train/label/3.npy holds 3.6",
        "train/depth/7.npy has a median",
        "val/depth/0.npy holds",
    )
    with one_line(ValueError, *(root / part for part in wrong), folder=tmp_path):
        nyu.prepare(builder(tmp_path / "data", layout="mtan"), root)
    # Faults in the headers are reported first.
    for index in range(20):
        truncate(root / f"val/normal/{index}.npy")
    (root / "val/image/11.npy").unlink()
    with one_line(ValueError, "23 .npy files instead of 24", "and 12 more", folder=tmp_path):
        nyu.prepare(builder(tmp_path / "data", layout="mtan"), root)


def test_hidden_files_are_left_aside(tmp_path):
    root = write_mtan(tmp_path, counts={"train": 3, "val": 2})
    for name in ("train/image/._0.npy", "val/label/.DS_Store", "val/depth/Thumbs.db"):
        (root / name).write_bytes(b"of a file manager")
    mtan_folders.check(root, {"train": 3, "test": 2})


@pytest.mark.parametrize("save", [np.asfortranarray, lambda array: array.astype(">f8")])
def test_other_orders_of_the_same_numbers_are_right(tmp_path, save):
    root = write_mtan(tmp_path, counts={"train": 3, "val": 2})
    (_, expected), *_ = good(mtan_folders.readings(root, "train", 1))
    for kind in ("image", "label", "depth", "normal"):
        path = root / "train" / kind / "0.npy"
        replace(path, save(np.load(path)))
    mtan_folders.check(root, {"train": 3, "test": 2})
    (_, found), *_ = good(mtan_folders.readings(root, "train", 1))
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.dtype == theirs.dtype
        np.testing.assert_allclose(ours, theirs, rtol=1e-6)


def test_mtan_without_its_folders(tmp_path):
    (tmp_path / "train").mkdir()
    with one_line(ValueError, tmp_path / "train" / "image", folder=tmp_path):
        nyu.prepare(builder(tmp_path / "data", layout="mtan"), tmp_path)
    with one_line(ValueError, tmp_path / "data" / "downloads" / "manual", folder=tmp_path):
        nyu.prepare(builder(tmp_path / "data", layout="mtan"))
