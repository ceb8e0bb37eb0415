"""Rooms that are rendered in training: those of a prepared set in all but what they show."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import datasets
from datasets.rooms import endless
from datasets.rooms.rooms_dataset_builder import BATCH, SAMPLE, Builder, config

# As in test_rooms.py: the programs are compiled once for both.
HEIGHT, WIDTH, SEED = 40, 56, 3
ALONE = ("image", "segmentation", "depth", "normals", "intrinsics")
PAIRS = (*ALONE, "image_right", "baseline")


def maker(entries, *, devices=1):
    size = {"data_seed": SEED, "height": HEIGHT, "width": WIDTH}
    return endless.maker(entries, jax.local_devices()[:devices], **size)


def rooms(make, *, seed=0, epoch=0, places=range(BATCH)):
    batch = jax.device_get(make(seed, epoch, np.array(places)))
    return {name: array.reshape(-1, *array.shape[2:]) for name, array in batch.items()}


@pytest.fixture(scope="module")
def make():
    return maker(PAIRS)


@pytest.fixture(scope="module")
def first(make):
    return rooms(make)


@pytest.mark.slow  # It prepares a set.
def test_with_the_keys_of_prepared_rooms_they_are_those_bit_for_bit(monkeypatch, tmp_path):
    choice = config(HEIGHT, WIDTH, train=BATCH, test=1, seed=SEED)
    builder = Builder(config=choice, data_dir=tmp_path)
    builder.download_and_prepare()
    source = builder.as_data_source(split="train")

    def prepared_keys(data_seed, numbers, places):
        return jax.vmap(partial(jax.random.fold_in, jax.random.key(data_seed)))(places)

    monkeypatch.setattr(endless, "keys", prepared_keys)
    found = rooms(maker(PAIRS))
    assert found.keys() == builder.info.features.keys()
    for name, array in found.items():
        expected = jnp.stack([source[n][name] for n in range(BATCH)])
        assert array.dtype == expected.dtype
        np.testing.assert_array_equal(array, expected, err_msg=name)


def test_a_room_depends_on_seed_epoch_and_place_alone(make, first):
    places = [5, 2, 7, 0, 1, 6, 3, 4]
    again = rooms(make, places=places)
    for name, array in first.items():
        np.testing.assert_array_equal(again[name], array[places], err_msg=name)


def test_no_room_comes_twice(make, first):
    depths = [first["depth"], rooms(make, epoch=1)["depth"]]
    assert len({depth.tobytes() for batch in depths for depth in batch}) == 2 * BATCH
    numbers = [np.int32([seed, epoch]) for seed in range(3) for epoch in range(3)]
    keys = [endless.keys(SEED, pair, np.arange(50, dtype=np.int32)) for pair in numbers]
    found = np.concatenate([jax.random.key_data(batch) for batch in keys])
    assert len(np.unique(found, axis=0)) == 3 * 3 * 50


@pytest.mark.slow  # It compiles the renderer twice more.
@pytest.mark.parametrize(("entries", "devices"), [(ALONE, 1), (PAIRS, 4)])
def test_devices_and_right_views_change_rounding_alone(first, entries, devices):
    found = rooms(maker(entries, devices=devices))
    assert found.keys() == set(entries)
    for name, array in found.items():
        # A ray that grazes an edge may hit the other side of it.
        assert np.mean(array != first[name]) < 1e-3, name


def test_keys_are_those_of_no_prepared_room():
    """The keys of prepared rooms come from numbers below 2**31."""
    key = jax.random.key(SEED)
    for number in (endless.SERIES, 4, 2, 9):
        key = jax.random.fold_in(key, number)
    numbers = np.int32(4), np.int32(2)
    (found,) = endless.keys(SEED, numbers, np.array([9], np.int32))
    assert found == key
    assert endless.SERIES >= 2**31


def test_a_set_with_a_stream_prepares_a_sample():
    made = datasets.builder("rooms:train=1000,stream=true", image_size=(96, 128))
    outline = datasets.outline(made)
    assert (outline.train, outline.test, outline.stream.images) == (SAMPLE, 200, 1000)
    assert made.builder_config.name == f"96x128-{SAMPLE}+200"
    assert outline.images(validation=10) == 1000
    few = datasets.outline(datasets.builder("rooms:train=40,test=8,stream=true"))
    assert (few.train, few.stream.images) == (40, 40)
    usual = datasets.outline(datasets.builder("rooms:train=40,test=8"))
    assert usual.stream is None
    assert usual.images(validation=10) == 30
    assert datasets.parse("rooms:stream=false,train=1000") == "rooms"
