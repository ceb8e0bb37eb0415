"""The benchmark of the input counts images; no test here asserts a time."""

import itertools
import json

import jax
import pytest

from mtl_jax import data
from mtl_jax.bench import feeding
from tests import fakes, tiny


def test_results_after_the_first_are_timed(monkeypatch):
    monkeypatch.setattr(feeding, "SHORTEST", 0)
    taken, closed = [], []

    def make(name):
        try:
            for number in itertools.count():
                taken.append((name, number))
                yield number
        finally:
            closed.append(name)

    seconds = feeding.take_turns({name: lambda name=name: make(name) for name in "ab"}, rounds=3)
    assert taken == [(name, n) for name in "ab" * feeding.PASSES for n in range(4)]
    assert closed == list("ab" * feeding.PASSES)
    assert all(value >= 0 for value in seconds.values())


@pytest.fixture(scope="module")
def measured():
    splits = data.open_splits(fakes.builder())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(feeding, "SHORTEST", 0)
        return feeding.measure(
            splits["train"],
            tiny.recipe("equal"),
            step="step of equal alone",
            batch_size=4,
            devices=jax.local_devices()[:2],
            rounds=2,
            augment=None,
        )


def test_files_caches_augmentation_and_training_have_rows(measured):
    caches = ("none", "host", "device")
    assert list(measured.images_per_second) == [
        "reading, one thread",
        "reading batches",
        *(f"batches on the device, --cache={cache}" for cache in caches),
        "augmentation",
        "step of equal alone",
        *(f"training, --cache={cache}" for cache in caches),
    ]
    assert all(rate > 0 for rate in measured.images_per_second.values())
    stored = {"image": 3, "segmentation": 1, "depth": 2, "normals": 6}
    assert measured.megabytes["batch"] == (32 * 48 * sum(stored.values()) + 16) / 1e6
    assert measured.megabytes["files"] is None  # these are none


def test_rates_are_written(measured, tmp_path):
    rates = {**measured.images_per_second, measured.step: 50.0, "augmentation": 125.0}
    measured = measured._replace(images_per_second=rates, megabytes={"files": 0.5, "batch": 1.25})
    text = feeding.write(measured, tmp_path / "new", what="fakes")
    assert (tmp_path / "new/input.md").read_text() == text
    assert text.startswith(
        "fakes. Medians of 3 measurements of each row, in turn, of 2 batches or more.\n"
    )
    assert "| augmentation | 125 | 2.5 |" in text
    assert "| step of equal alone | 50 | 1 |" in text
    assert "1.250 MB in memory and 0.500 MB in files" in text
    assert "for 50 images/s, a disk must give 25 MB/s" in text
    written = json.loads((tmp_path / "new/input.json").read_text())
    assert written["images_per_second"] == rates
    unknown = measured._replace(megabytes={"files": None, "batch": 1.25})
    assert "take 1.250 MB in memory.\n" in feeding.to_markdown(unknown, what="fakes")
