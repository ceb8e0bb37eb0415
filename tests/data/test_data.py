"""Order, hold-out, batches and prefetching of a data set in memory."""

import functools
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtl_jax import data
from mtl_jax.data import batches, splits
from mtl_jax.tasks import select
from tests.fakes import TASKS

ALL = tuple(TASKS.values())
HEIGHT, WIDTH = 4, 6


def example(index):
    """An image all of whose labels hold its index."""
    return {
        "image": np.full((HEIGHT, WIDTH, 3), index, np.uint8),
        "segmentation": np.full((HEIGHT, WIDTH), index % 13, np.int8),
        "depth": np.full((HEIGHT, WIDTH), index + 1, np.float16),
        "normals": np.broadcast_to(np.float16([0, 0, -1]), (HEIGHT, WIDTH, 3)),
        "intrinsics": np.float32([5, 5, 2.5, 1.5]),
    }


def builder(*, train, test):
    sources = {
        "train": [example(i) for i in range(train)],
        "test": [example(100 + i) for i in range(test)],
    }
    return SimpleNamespace(
        info=SimpleNamespace(metadata={"class_names": [f"class {i}" for i in range(13)]}),
        as_data_source=lambda split: sources[split],
    )


def indices(batch):
    return (batch["depth"][:, 0, 0] - 1).astype(int).tolist()


def epoch_order(dataset, *, seed, epoch, batch_size=3):
    count = data.steps_per_epoch(dataset, batch_size)
    steps = range(epoch * count, (epoch + 1) * count)
    batches = [
        data.batch_at(dataset, ALL, batch_size=batch_size, seed=seed, step=step) for step in steps
    ]
    return [index for batch in batches for index in indices(batch)]


@pytest.fixture
def train():
    return data.open_splits(builder(train=12, test=2))["train"]


def test_every_epoch_shows_each_image_once(train):
    for epoch in range(3):
        assert sorted(epoch_order(train, seed=0, epoch=epoch)) == list(range(12))


def test_images_left_over_by_whole_batches_differ_from_epoch_to_epoch(train):
    assert data.steps_per_epoch(train, 5) == 2
    shown = [set(epoch_order(train, seed=0, epoch=epoch, batch_size=5)) for epoch in range(8)]
    assert all(len(images) == 10 for images in shown)
    assert set.union(*shown) == set(range(12)) != shown[0]


def test_order_is_a_pure_function_of_seed_and_step(train):
    orders = [epoch_order(train, seed=s, epoch=e) for s in range(3) for e in range(3)]
    assert len({tuple(order) for order in orders}) == 9
    assert orders == [epoch_order(train, seed=s, epoch=e) for s in range(3) for e in range(3)]
    alone = data.batch_at(train, ALL, batch_size=3, seed=1, step=6)
    assert indices(alone) == epoch_order(train, seed=1, epoch=1)[6:9]


@pytest.mark.parametrize("batch_size", [0, -2, 13])
def test_batch_sizes_that_give_no_step_are_refused(train, batch_size):
    with pytest.raises(ValueError, match=f"`batch_size`={batch_size}: must be 1 to 12"):
        data.steps_per_epoch(train, batch_size)


def test_validation_is_held_out_of_train_and_always_the_same():
    splits = data.open_splits(builder(train=12, test=4), validation=3)
    assert {name: len(split) for name, split in splits.items()} == {
        "train": 9, "test": 4, "validation": 3
    }  # fmt: skip
    train, validation = (set(splits[name].indices.tolist()) for name in ("train", "validation"))
    assert not train & validation
    assert train | validation == set(range(12))
    again = data.open_splits(builder(train=12, test=4), validation=3)["validation"]
    np.testing.assert_array_equal(again.indices, splits["validation"].indices)
    shown = epoch_order(splits["train"], seed=7, epoch=2)
    assert set(shown) == train  # not 0 to 8: the order is one of indices
    (held_out,) = data.evaluation_batches(splits["validation"], ALL, batch_size=3)
    assert set(indices(held_out)) == validation


def test_without_validation_there_is_no_such_split():
    splits = data.open_splits(builder(train=5, test=2))
    assert set(splits) == {"train", "test"}
    assert splits["test"].class_names[12] == "class 12"
    assert splits["test"].image_size == (HEIGHT, WIDTH)


@pytest.mark.parametrize("validation", [-1, 5, 6])
def test_impossible_validation_is_refused(validation):
    with pytest.raises(ValueError, match=f"`validation`={validation}: 0 to 4 of the 5"):
        data.open_splits(builder(train=5, test=2), validation=validation)


def test_a_loss_that_cannot_be_learned_is_refused():
    train = data.open_splits(builder(train=2, test=1))["train"]
    stereo = select(["depth"], depth_loss="stereo")
    with pytest.raises(ValueError, match="no image_right: leave depth out .* `depth_loss`=l1"):
        data.check_labels(train.source[0], stereo)
    both = ("image_right", "baseline", *train.source[0])
    data.check_labels(both, stereo)


def test_a_task_without_labels_is_refused():
    bare = builder(train=2, test=1)
    for split in ("train", "test"):
        for view in bare.as_data_source(split):
            del view["normals"]
    train = data.open_splits(bare)["train"]
    data.check_labels(train.source[0], select(["segmentation", "depth"]))
    with pytest.raises(
        ValueError, match="the data set has no normals: leave normals out of `tasks`"
    ):
        data.check_labels(train.source[0], ALL)


@pytest.mark.parametrize("batch_size", [1, 3, 7, 8])
def test_evaluation_counts_each_image_once_and_the_padding_not_at_all(batch_size):
    test = data.open_splits(builder(train=2, test=7))["test"]
    batches = list(data.evaluation_batches(test, ALL, batch_size=batch_size))
    assert len(batches) == -(-7 // batch_size)
    layout = {name: (x.shape, x.dtype) for name, x in batches[0].items()}
    assert layout["image"] == ((batch_size, HEIGHT, WIDTH, 3), np.uint8)
    assert layout["segmentation"] == ((batch_size, HEIGHT, WIDTH), np.int8)
    for batch in batches:
        assert {name: (x.shape, x.dtype) for name, x in batch.items()} == layout
    together = {name: np.concatenate([batch[name] for batch in batches]) for name in layout}
    assert indices(together)[:7] == list(range(100, 107))
    for task in ALL:
        assert np.all(together[task.name][7:] == task.labels[0].missing)
        assert not np.any(together[task.name][:7] == task.labels[0].missing, axis=(1, 2)).all()


def test_a_batch_holds_the_labels_of_the_given_tasks_only(train):
    batch = data.batch_at(train, [TASKS["depth"]], batch_size=2, seed=0, step=0)
    assert set(batch) == {"image", "intrinsics", "depth"}


def test_decode_gives_float32_colours_and_unit_normals():
    rng = np.random.default_rng(0)
    normals = rng.normal(size=(1, HEIGHT, WIDTH, 3))
    normals /= np.linalg.norm(normals, axis=-1, keepdims=True)
    normals[0, 0] = 0.0
    image = rng.integers(0, 256, (1, HEIGHT, WIDTH, 3)).astype(np.uint8)
    image[0, 0, 0] = 255
    stored = data.batch_of([example(3)], ("image", "intrinsics", *TASKS)) | {
        "image": image,
        "normals": normals.astype(np.float16),
        "segmentation": np.full((1, HEIGHT, WIDTH), -1, np.int8),
    }
    decoded = jax.jit(functools.partial(data.decode, tasks=ALL))(stored)
    assert {name: x.dtype for name, x in decoded.items()} == {
        "image": jnp.float32, "intrinsics": jnp.float32, "segmentation": jnp.int32,
        "depth": jnp.float32, "normals": jnp.float32,
    }  # fmt: skip
    np.testing.assert_allclose(decoded["image"], image / 255.0, rtol=1e-6)
    assert decoded["image"].max() == 1.0
    assert np.all(decoded["segmentation"] == -1)
    assert np.all(decoded["depth"] == 4.0)
    lengths = np.linalg.norm(decoded["normals"], axis=-1)
    np.testing.assert_allclose(lengths[0, 1:], 1.0, atol=1e-6)
    np.testing.assert_array_equal(decoded["normals"][0, 0], 0.0)
    np.testing.assert_allclose(decoded["normals"], normals, atol=1e-3)


def test_decode_takes_any_choice_of_tasks():
    stored = data.batch_of([example(3)], ("image", "intrinsics", "depth"))
    decoded = data.decode(stored, select(["depth"]))
    assert set(decoded) == {"image", "intrinsics", "depth"}


def test_prefetch_keeps_the_order():
    assert list(data.prefetch(range(20), lambda x: x * x)) == [x * x for x in range(20)]
    assert list(data.prefetch([], str)) == []


def test_prefetch_runs_ahead_by_no_more_than_its_size():
    made = []
    ready = data.prefetch(range(20), made.append)
    for taken in range(1, 11):
        next(ready)
        assert taken <= len(made) <= taken + 2
    ready.close()


def broken(items):
    yield from items
    raise OSError("the disk is gone")


def test_prefetch_raises_what_the_source_raised_after_all_before_it():
    ready = data.prefetch(broken([1, 2, 3]), str)
    assert [next(ready) for _ in range(3)] == ["1", "2", "3"]
    with pytest.raises(OSError, match="the disk is gone"):
        next(ready)


def test_prefetch_raises_what_the_transformation_raised():
    ready = data.prefetch([1, 0], lambda x: 1 // x)
    assert next(ready) == 1
    with pytest.raises(ZeroDivisionError):
        next(ready)


@pytest.mark.parametrize("leave", ["close", "error", "end"])
def test_prefetch_ends_its_thread(leave):
    before = set(threading.enumerate())
    ready = data.prefetch({"close": range(100), "error": broken([1]), "end": [1]}[leave], str)
    next(ready)
    assert len(set(threading.enumerate()) - before) == 1
    if leave == "close":
        ready.close()
    else:
        with pytest.raises(OSError if leave == "error" else StopIteration):
            next(ready)
    assert set(threading.enumerate()) <= before


def test_it_needs_no_tfds():
    program = "import sys, mtl_jax.data; assert 'tensorflow_datasets' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True, cwd=Path(__file__).parents[2])


def voids(batch):
    """Which images of a batch show no segmentation."""
    return np.all(batch["segmentation"] == -1, axis=(1, 2))


@pytest.fixture
def sixteen():
    return data.open_splits(builder(train=16, test=1))["train"]


def test_parts_with_labels_are_nested_and_of_the_right_size(sixteen):
    parts = [
        set(np.flatnonzero(data.withhold_labels(sixteen, label_fraction=f, label_seed=3).labelled))
        for f in (1 / 30, 1 / 8, 1 / 4, 1 / 2)
    ]
    assert [len(part) for part in parts] == [1, 2, 4, 8]
    assert all(small < large for small, large in zip(parts, parts[1:], strict=False))
    other = data.withhold_labels(sixteen, label_fraction=1 / 2, label_seed=4)
    assert parts[-1] != set(np.flatnonzero(other.labelled))
    assert data.withhold_labels(sixteen, label_fraction=1.0).labelled is None


@pytest.mark.parametrize("fraction", [0.0, -0.1, 1.5])
def test_a_wrong_fraction_is_refused(sixteen, fraction):
    with pytest.raises(ValueError, match="`label_fraction`"):
        data.withhold_labels(sixteen, label_fraction=fraction)


@pytest.mark.parametrize(("labelled", "expected"), [(None, 3), (1, 1), (5, 5), (6, 6)])
def test_every_batch_has_its_share_of_labels(sixteen, labelled, expected):
    few = data.withhold_labels(sixteen, label_fraction=1 / 4)
    seen = {True: [], False: []}
    for step in range(16):
        how = {"batch_size": 6, "seed": 0, "step": step, "labelled_per_batch": labelled}
        batch = data.batch_at(few, ALL, **how)
        again = data.batch_at(few, ALL, **how)
        jax.tree.map(np.testing.assert_array_equal, batch, again)
        assert list(voids(batch)) == [False] * expected + [True] * (6 - expected)
        assert not np.any(np.all(batch["depth"] == 0, axis=(1, 2)))
        for index, void in zip(indices(batch), voids(batch), strict=True):
            seen[bool(void)].append(index)
    own = set(few.indices[few.labelled])
    assert set(seen[False]) == own
    assert set(seen[True]) == (set(few.indices) - own if expected < 6 else set())
    # Each comes once before any comes again.
    assert set(seen[False][:4]) == own
    assert max(np.bincount(seen[False])) - min(np.bincount(seen[False])[sorted(own)]) <= 1


@pytest.mark.parametrize("labelled", [0, -1, 7])
def test_a_number_of_labelled_images_that_no_batch_has_is_refused(labelled):
    with pytest.raises(ValueError, match=f"`labelled_per_batch`={labelled}: must be 1 to 6"):
        data.labelled_images(ALL, batch_size=6, labelled_per_batch=labelled)


def test_a_single_image_can_be_labelled_or_not_but_not_half():
    with pytest.raises(ValueError, match="`labelled_per_batch`=1"):
        data.labelled_images(ALL, batch_size=1)
    assert data.labelled_images(ALL, batch_size=1, labelled_per_batch=1) == 1
    assert data.labelled_images(select(["segmentation"]), batch_size=1) == 1


def test_tasks_without_segmentation_see_all_images_alike(sixteen):
    few = data.withhold_labels(sixteen, label_fraction=1 / 8)
    for step in range(6):
        how = {"batch_size": 4, "seed": 5, "step": step}
        for tasks in (select(["depth"]), select(["normals", "depth"], normals_source="depth")):
            expected = data.batch_at(sixteen, tasks, **how)
            jax.tree.map(np.testing.assert_array_equal, data.batch_at(few, tasks, **how), expected)


def test_labelled_images_come_as_much_more_often_as_the_docstring_says(sixteen):
    few = data.withhold_labels(sixteen, label_fraction=1 / 8)
    seen = []
    for step in range(14):
        seen += indices(data.batch_at(few, ALL, batch_size=4, seed=0, step=step))
    counts = np.bincount(seen)
    assert set(counts[few.labelled]) == {14}
    assert set(counts[~few.labelled]) == {2}


def test_segmentation_alone_sees_labelled_images_only(sixteen):
    few = data.withhold_labels(sixteen, label_fraction=1 / 4)
    batch = data.batch_at(few, select(["segmentation"]), batch_size=6, seed=0, step=0)
    assert not np.any(voids(batch))
    depth = data.batch_at(few, select(["depth"]), batch_size=6, seed=0, step=0)
    assert set(depth) == {"image", "intrinsics", "depth"}


def test_a_sample_of_labels_is_of_labelled_pixels(sixteen, monkeypatch):
    (entry,) = TASKS["normals"].labels
    source = [dict(view, normals=view["normals"].copy()) for view in sixteen.source]
    for view in source:
        view["normals"][0] = 0
    some = data.Dataset(source, sixteen.indices, sixteen.class_names)
    every = data.sample_labels(some, entry)
    assert len(every) == 16 * (HEIGHT - 1) * WIDTH
    monkeypatch.setattr(splits, "SAMPLED_IMAGES", 3)
    monkeypatch.setattr(splits, "SAMPLED_PIXELS", 5)
    found = data.sample_labels(some, entry)
    np.testing.assert_array_equal(found, np.tile([0.0, 0.0, -1.0], (15, 1)))


def test_labels_are_counted_where_a_split_shows_them(sixteen):
    few = data.withhold_labels(sixteen, label_fraction=1 / 4)
    shown = few.indices[few.labelled]
    expected = HEIGHT * WIDTH * np.bincount(shown % 13, minlength=13)
    np.testing.assert_array_equal(data.count_labels(few, TASKS["segmentation"]), expected)
    everywhere = data.count_labels(few, TASKS["depth"])
    assert everywhere.sum() == HEIGHT * WIDTH * len(sixteen)


def test_of_a_large_split_some_labels_are_counted(sixteen, monkeypatch):
    monkeypatch.setattr(splits, "COUNTED_IMAGES", 4)
    np.testing.assert_array_equal(data.counted_images(np.arange(10, 26)), [10, 15, 20, 25])
    np.testing.assert_array_equal(data.counted_images(np.arange(3)), [0, 1, 2])
    assert data.count_labels(sixteen, TASKS["depth"]).sum() == HEIGHT * WIDTH * 4


def test_images_of_both_splits_are_found(sixteen):
    other = data.open_splits(builder(train=1, test=5))["test"]
    assert data.common_images(sixteen, other) == 0
    source = [*other.source[:3], *sixteen.source[4:6]]
    planted = data.Dataset(source, other.indices, other.class_names)
    assert data.common_images(sixteen, planted) == 2


class Slow:
    """A source whose first examples take longest, and whose example 6 is damaged."""

    def __getitem__(self, index):
        time.sleep(0.01 * (5 - index) * (index < 5))
        if index == 6:
            raise ValueError("example 6 is damaged")
        return {"image": np.full((2, 2, 3), index, np.uint8)}


def test_examples_are_read_at_the_same_time_and_come_in_order():
    dataset = data.Dataset(Slow(), np.arange(7), ())
    images = [example["image"][0, 0, 0] for example in batches.read(dataset, np.arange(6))]
    assert images == [0, 1, 2, 3, 4, 5]
    with pytest.raises(ValueError, match="example 6 is damaged"):
        list(batches.read(dataset, np.arange(7)))
