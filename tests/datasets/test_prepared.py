"""Prepared sets that were damaged later: one line that names the file and what to delete."""

import json
import os
import shutil
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from datasets import prepared, streaming
from datasets.rooms import rooms_dataset_builder as rooms
from mtl_jax import data
from mtl_jax.data import splits as data_splits
from mtl_jax.tasks import select
from tests.datasets.nyu_files import one_line

HEIGHT, WIDTH, TRAIN, TEST = 32, 40, 7, 3


def render(seed, indices, *, height, width, **look):
    """Replaces rooms by noise, which can't be compressed, so that every byte of a shard counts."""
    count, rng = len(indices), np.random.default_rng(indices[0])
    shape = (count, height, width)
    return {
        "image": rng.integers(0, 256, (*shape, 3), np.uint8),
        "image_right": rng.integers(0, 256, (*shape, 3), np.uint8),
        "segmentation": rng.integers(0, 13, shape, np.int8),
        "depth": rng.uniform(1, 5, shape).astype(np.float32),
        "normals": rng.uniform(-1, 1, (*shape, 3)).astype(np.float32),
        "intrinsics": np.ones((count, 4), np.float32),
        "baseline": np.ones(count, np.float32),
    }


def config():
    return rooms.config(HEIGHT, WIDTH, train=TRAIN, test=TEST)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    root = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rooms, "render_batch", render)
        patch.setattr(streaming, "EXAMPLES_PER_SHARD", 3)
        patch.setattr(streaming, "GROUP", 1)
        rooms.prepare(rooms.Builder(config=config(), data_dir=root))
    return root


@pytest.fixture
def folder(whole, tmp_path):
    """Copies a set to be damaged, with train in shards of 3, 3 and 1."""
    shutil.copytree(whole, tmp_path / "data")
    return Path(rooms.Builder(config=config(), data_dir=tmp_path / "data").data_dir)


def opened(folder):
    made = rooms.Builder(config=config(), data_dir=folder.parents[2])
    rooms.prepare(made)
    return {split: made.as_data_source(split) for split in ("train", "test")}


def shard(folder, number):
    return folder / f"rooms-train.array_record-{number:05d}"


def rewrite(path, **changes):
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def recount(path, lengths):
    content = json.loads(path.read_text())
    content["splits"][0]["shardLengths"] = lengths
    path.write_text(json.dumps(content))


def retype(path, name, dtype):
    content = json.loads(path.read_text())
    content["featuresDict"]["features"][name]["tensor"]["dtype"] = dtype
    path.write_text(json.dumps(content))


def test_a_whole_set_is_read_like_a_sequence(folder):
    sources = opened(folder)
    assert {split: len(source) for split, source in sources.items()} == {"train": 7, "test": 3}
    expected = render(0, np.arange(0, 8), height=HEIGHT, width=WIDTH)
    for index, example in enumerate(sources["train"]):
        np.testing.assert_array_equal(example["image"], expected["image"][index])
    assert sources["train"][np.int64(6)].keys() == example.keys()
    for index in (-1, 7):
        with pytest.raises(IndexError):
            sources["train"][index]


def test_a_set_that_an_older_version_compressed_is_read(whole, tmp_path, monkeypatch):
    def compressed(shape, dtype):
        return streaming.tfds.features.Tensor(shape=shape, dtype=dtype, encoding="zlib")

    monkeypatch.setattr(rooms, "render_batch", render)
    with monkeypatch.context() as patch:
        patch.setattr(rooms, "tensor", compressed)
        made = rooms.Builder(config=config(), data_dir=tmp_path)
        rooms.prepare(made)
    old = opened(Path(made.data_dir))["train"]
    new = opened(Path(rooms.Builder(config=config(), data_dir=whole).data_dir))["train"]
    assert "zlib" in (Path(made.data_dir) / "features.json").read_text()
    for before, after in zip(old, new, strict=True):
        for name in after:
            np.testing.assert_array_equal(before[name], after[name])


def test_a_large_split_has_larger_shards(tmp_path, monkeypatch):
    monkeypatch.setattr(rooms, "render_batch", render)
    monkeypatch.setattr(streaming, "EXAMPLES_PER_SHARD", 1)
    monkeypatch.setattr(streaming, "MOST_SHARDS", 2)
    made = rooms.Builder(config=config(), data_dir=tmp_path)
    rooms.prepare(made)
    assert made.info.splits["train"].shard_lengths == [4, 3]
    assert made.info.splits["test"].shard_lengths == [3]


def test_a_set_is_never_in_memory_as_a_whole(tmp_path, monkeypatch):
    blank = {name: array[:1] * 0 for name, array in render(0, [0], height=64, width=64).items()}

    def repeated(seed, indices, **size):
        return {name: array.repeat(len(indices), axis=0) for name, array in blank.items()}

    monkeypatch.setattr(rooms, "render_batch", repeated)
    made = rooms.Builder(config=rooms.config(64, 64, train=320, test=1), data_dir=tmp_path)
    tasks = select(["segmentation", "depth"])
    tracemalloc.start()
    try:
        rooms.prepare(made)
        train = data.open_splits(made)["train"]
        stored = len(train) * sum(np.asarray(x).nbytes for x in train.source[0].values())
        for step in range(40):
            data.batch_at(train, tasks, batch_size=8, seed=0, step=step)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < stored / 2


def splits_of(folder):
    return data.open_splits(rooms.Builder(config=config(), data_dir=folder.parents[2]))


def test_images_of_both_splits_are_found_without_reading_them(folder, monkeypatch):
    splits = splits_of(folder)
    first = prepared.digests_path(folder, "test").read_bytes()[: prepared.DIGEST_BYTES]
    assert first == data_splits.image_digest(splits["test"].source[0]["image"])
    monkeypatch.delattr(prepared.Source, "__getitem__")
    assert data.common_images(splits["train"], splits["test"]) == 0
    assert data.common_images(splits["train"], splits["train"]) == TRAIN
    prepared.digests_path(folder, "test").write_bytes(b"short")
    with one_line(ValueError, "test-images.sha256 is damaged: delete the folder"):
        data.common_images(splits["train"], splits_of(folder)["test"])


def test_sets_without_digests_are_read_to_find_images_of_both_splits(folder):
    for split in ("train", "test"):
        prepared.digests_path(folder, split).unlink()
    splits = splits_of(folder)
    assert data.common_images(splits["train"], splits["test"]) == 0
    assert data.common_images(splits["test"], splits["test"]) == TEST


@pytest.fixture(scope="module")
def partly_labelled(tmp_path_factory):
    """Every third image has no mask, and one of the training images has no normals."""

    def render_some(seed, indices, **size):
        batch = render(seed, indices, **size)
        batch["segmentation"][np.asarray(indices) % 3 == 0] = -1
        batch["normals"][np.asarray(indices) == 4] = 0
        return batch

    root = tmp_path_factory.mktemp("partly")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rooms, "render_batch", render_some)
        patch.setattr(streaming, "GROUP", 2)
        made = rooms.Builder(config=config(), data_dir=root)
        rooms.prepare(made)
    return Path(made.data_dir)


def labels_of(folder):
    splits = splits_of(folder)
    few = data.withhold_labels(splits["train"], label_fraction=0.5)
    return data.labels_found(splits | {"train": few}, "test", select(["segmentation", "normals"]))


def test_labels_are_counted_without_reading_them(partly_labelled, tmp_path, monkeypatch):
    older = tmp_path / Path(*partly_labelled.parts[-3:])
    shutil.copytree(partly_labelled, older)
    for split in ("train", "test"):
        prepared.lacking_path(older, split).unlink()
    by_reading = labels_of(older)
    assert 0 < by_reading["present"]["segmentation"] < TRAIN
    assert by_reading["present"]["normals"] == TRAIN - 1
    monkeypatch.delattr(prepared.Source, "__getitem__")
    assert labels_of(partly_labelled) == by_reading


@pytest.mark.parametrize("content", ["[]", '{"depth": [7]}', '{"depth": [-1]}', '{"depth": 1}'])
def test_damaged_numbers_of_images_are_refused(folder, content):
    prepared.lacking_path(folder, "train").write_text(content)
    splits = splits_of(folder)
    with one_line(ValueError, "train-lacking.json is damaged: delete the folder"):
        data.labels_found(splits, "train", select(["depth"]))


@pytest.mark.parametrize(
    ("name", "damage", "what"),
    [
        ("rooms-train.array_record-00001", lambda p: p.unlink(), "is missing"),
        ("rooms-train.array_record-00001", lambda p: p.write_bytes(b""), "is damaged"),
        (
            "rooms-train.array_record-00001",
            lambda p: p.write_bytes(os.urandom(99999)),
            "is damaged",
        ),
        ("rooms-train.array_record-00001", lambda p: os.truncate(p, 70000), "is damaged"),
        (
            "rooms-train.array_record-00001",
            lambda p: shutil.copy(shard(p.parent, 2), p),
            "holds 1 examples instead of 3",
        ),
        ("dataset_info.json", lambda p: p.write_text("{broken"), "is damaged"),
        ("dataset_info.json", lambda p: p.write_text("null"), "is damaged"),
        ("dataset_info.json", lambda p: p.write_bytes(b"\xff\xfe"), "is damaged"),
        ("dataset_info.json", lambda p: p.write_text(p.read_text()[:-100]), "is damaged"),
        ("dataset_info.json", lambda p: rewrite(p, name="other"), "has 'other' for name"),
        ("dataset_info.json", lambda p: rewrite(p, configName="96x128"), "for configName instead"),
        ("dataset_info.json", lambda p: rewrite(p, version="1.0"), "has '1.0' for version"),
        ("dataset_info.json", lambda p: rewrite(p, fileFormat="tfrecord"), "for fileFormat"),
        ("dataset_info.json", lambda p: rewrite(p, splits=5), "is damaged"),
        ("dataset_info.json", lambda p: rewrite(p, splits=[]), "lists no split 'train'"),
        ("dataset_info.json", lambda p: recount(p, ["3", "3"]), "does not list rooms-train"),
        ("dataset_info.json", lambda p: recount(p, []), "does not list rooms-train"),
        ("metadata.json", lambda p: p.write_text("{broken"), "is damaged"),
        ("metadata.json", lambda p: p.write_text("null"), "is damaged"),
        ("metadata.json", lambda p: p.write_text('{"class_names": ["x"]}'), "other classes"),
        ("metadata.json", lambda p: p.unlink(), "is missing"),
        ("features.json", lambda p: p.write_text(""), "is damaged"),
        ("features.json", lambda p: p.write_text("{}"), "is damaged"),
        ("features.json", lambda p: retype(p, "depth", "float32"), "other arrays"),
    ],
)
def test_damage_that_shows_at_the_start(folder, name, damage, what):
    damage(folder / name)
    advice = f"delete the folder {folder}, and only that"
    with one_line(ValueError, folder / name, what, advice, folder=folder):
        opened(folder)


@pytest.mark.parametrize("lengths", [["2", "3", "1"], ["3", "3", "2"], ["6", "3", "1"]])
def test_counts_must_be_those_of_the_shards(folder, lengths):
    recount(folder / "dataset_info.json", lengths)
    with one_line(ValueError, "rooms-train.array_record-0000", "examples instead of"):
        opened(folder)


def test_deleting_what_the_message_names_repairs_the_set(folder, monkeypatch):
    monkeypatch.setattr(rooms, "render_batch", render)
    shard(folder, 0).write_bytes(b"")
    with pytest.raises(ValueError, match="delete the folder"):
        opened(folder)
    shutil.rmtree(folder)
    assert len(opened(folder)["train"]) == TRAIN


def test_no_flipped_byte_is_overlooked(folder):
    """Each is found at the start, on reading an example, or is of no consequence."""
    right = [example for example in opened(folder)["train"]]
    path, content = shard(folder, 1), shard(folder, 1).read_bytes()
    found = 0
    for position in np.random.default_rng(0).integers(0, len(content), 60):
        wrong = bytearray(content)
        wrong[position] ^= 0x40
        path.write_bytes(bytes(wrong))
        try:
            read = [example for example in opened(folder)["train"]]
        except ValueError as error:
            found += 1
            assert "\n" not in str(error)
            assert f"{path} is damaged" in str(error)
        else:
            for ours, theirs in zip(read, right, strict=True):
                for name, array in theirs.items():
                    np.testing.assert_array_equal(ours[name], array)
    assert found > 20


def test_a_damaged_example_is_named(folder):
    source = opened(folder)["train"]
    content = bytearray(shard(folder, 1).read_bytes())
    start = len(content) // 3
    content[start : start + 100] = bytes(100)
    shard(folder, 1).write_bytes(content)
    for index in (0, 1, 2, 6):
        source[index]
    with pytest.raises(ValueError, match="00001 is damaged at example [345] of train: delete"):
        for index in (3, 4, 5):
            source[index]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_not_called_damaged(folder):
    shard(folder, 1).chmod(0)
    with one_line(OSError, shard(folder, 1), "can't be read (Permission denied)"):
        opened(folder)


def test_a_disk_that_fails_is_not_called_damage(folder, monkeypatch):
    source = opened(folder)["train"]
    shard(folder, 0).write_bytes(b"")

    def fail(*_):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(Path, "open", fail)
    with one_line(OSError, shard(folder, 0), "can't be read (Input/output error)"):
        source[0]


def test_looking_for_a_set_leaves_no_temporary_folder(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    rooms.Builder(config=config(), data_dir=tmp_path / "data")
    assert list(tmp_path.iterdir()) == []


def test_preparing_leaves_no_empty_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(rooms, "render_batch", render)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    rooms.prepare(rooms.Builder(config=config(), data_dir=tmp_path / "data"))
    assert [path.name for path in tmp_path.iterdir()] == ["data"]
    folders = [path for path in (tmp_path / "data").rglob("*") if path.is_dir()]
    assert folders and all(any(path.iterdir()) for path in folders)


def test_other_splits_of_tfds_are_read_as_usual(folder):
    made = rooms.Builder(config=config(), data_dir=folder.parents[2])
    assert len(made.as_data_source("train[:2]")) == 2
    assert isinstance(made.as_data_source("train"), prepared.Source)
    assert {split: len(source) for split, source in made.as_data_source().items()} == {
        "train": 7,
        "test": 3,
    }
