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
