"""Where images are kept changes nothing but speed."""

import jax
import numpy as np
import pytest

from mtl_jax import data, tasks
from mtl_jax.data import feed
from tests import fakes

SPLIT = data.open_splits(fakes.builder(train=14), validation=3)["train"]
ALL = tasks.select(["segmentation", "depth", "normals"])


def batches(cache, *, fraction=1.0, labelled_per_batch=None, devices=4):
    few = data.withhold_labels(SPLIT, label_fraction=fraction)
    made = feed.make_feed(
        few,
        ALL,
        cache=cache,
        batch_size=4,
        labelled_per_batch=labelled_per_batch,
        seed=3,
        devices=jax.local_devices()[:devices],
    )
    assert (made.steps_per_epoch, made.batch_size) == (11 // 4, 4)
    return [jax.device_get(made.at(step)) for step in (0, 1, 5)]


@pytest.mark.parametrize("cache", feed.CACHES)
@pytest.mark.parametrize(("fraction", "labelled_per_batch"), [(1.0, None), (0.5, 1)])
def test_every_cache_gives_the_batches_of_the_data_set(cache, fraction, labelled_per_batch):
    few = data.withhold_labels(SPLIT, label_fraction=fraction)
    found = batches(cache, fraction=fraction, labelled_per_batch=labelled_per_batch)
    for step, batch in zip((0, 1, 5), found, strict=True):
        expected = data.batch_at(
            few, ALL, batch_size=4, seed=3, step=step, labelled_per_batch=labelled_per_batch
        )
        assert batch.keys() == expected.keys()
        for name, array in expected.items():
            got = batch[name].reshape(array.shape)
            assert got.dtype == array.dtype
            np.testing.assert_array_equal(got, array)


def test_a_cached_split_is_read_once():
    reads = []

    class Source(list):
        def __getitem__(self, index):
            reads.append(index)
            return super().__getitem__(index)

    counted = data.Dataset(Source(SPLIT.source), SPLIT.indices, SPLIT.class_names)
    kept = data.in_memory(counted, ("image", "depth"))
    assert sorted(reads) == sorted(SPLIT.indices)
    assert kept.source[0].keys() == {"image", "depth"}
    assert kept.image_size == SPLIT.image_size
    assert len(kept) == len(SPLIT)


def test_a_split_too_large_for_the_device():
    class Small:
        def memory_stats(self):
            return {"bytes_limit": 10_000}

    with pytest.raises(ValueError, match="`cache`=device: .*`cache`=host"):
        feed.fitting(data.in_memory(SPLIT, ("image",)), ("image",), Small())


def test_an_unknown_cache():
    with pytest.raises(ValueError, match="`cache`=disk: choose from none, host, device"):
        batches("disk")


def streamed(images):
    """The split with a stream whose batches are what is asked for."""

    def maker(entries, devices):
        def make(seed, epoch, places):
            return {"entries": entries, "asked": (seed, epoch, list(places))}

        return make

    stream = data.Stream(images, maker)
    return data.Dataset(SPLIT.source, SPLIT.indices, SPLIT.class_names, stream=stream)


def stream_feed(cache="none", *, images=11):
    return feed.make_feed(
        streamed(images),
        ALL,
        cache=cache,
        batch_size=4,
        labelled_per_batch=None,
        seed=3,
        devices=jax.local_devices()[:1],
    )


@pytest.mark.parametrize("cache", feed.CACHES)
def test_a_step_asks_a_stream_for_its_own_images(cache):
    made = stream_feed(cache)
    assert (made.steps_per_epoch, made.batch_size) == (2, 4)
    asked = [made.at(step)["asked"] for step in (0, 1, 2, 7)]
    first, second = [0, 1, 2, 3], [4, 5, 6, 7]
    assert asked == [(3, 0, first), (3, 0, second), (3, 1, first), (3, 3, second)]
    assert made.at(0)["entries"] == data.training_entries(ALL)


def test_an_epoch_of_a_stream_may_be_longer_than_the_split():
    assert stream_feed(images=100).steps_per_epoch == 25
    with pytest.raises(ValueError, match="`batch_size`=4: must be 1 to 3"):
        stream_feed(images=3)


def test_a_stream_outlives_what_is_done_with_the_split():
    split = streamed(5)
    assert data.in_memory(split, ("image",)).stream is split.stream
    assert data.withhold_labels(split, label_fraction=1.0).stream is split.stream


def test_all_images_of_a_stream_have_labels():
    with pytest.raises(ValueError, match="`label_fraction`=0.5: .* without stream=true"):
        data.withhold_labels(streamed(5), label_fraction=0.5)
    splits = {"train": streamed(100), "test": SPLIT}
    counts = data.labels_found(splits, "test", ALL[:2])["trained"]
    assert counts == {"images": 100, "segmentation": 100, "depth": 100}
