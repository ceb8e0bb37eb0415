"""Predictions in tiles are those of the whole where the network sees the same in both."""

import numpy as np
import pytest

from mtl_jax.deploy import tiles
from tests.deploy import stubs
from tests.fakes import TASKS


@pytest.mark.parametrize(("length", "number"), [(100, 2), (101, 3), (7, 4), (1, 3), (3, 2)])
def test_tiles_cover_a_side_and_overlap(length, number):
    spans = tiles.spans(length, number)
    seen = np.zeros(length, int)
    for span in spans:
        seen[span] += 1
    assert seen.min() >= 1
    assert len({span.stop - span.start for span in spans}) == 1
    assert len(spans) <= number
    if length > 20:
        assert len(spans) == number
        assert (seen == 2).any()


@pytest.mark.parametrize("number", [1, 2, 3])
def test_a_prediction_pixel_by_pixel_is_the_same_in_tiles(number):
    photo = stubs.colours(40, 61)
    whole = stubs.predict(photo)
    found = tiles.predict(stubs.predict, photo, TASKS, tiles=number)
    np.testing.assert_array_equal(found["segmentation"], whole["segmentation"])
    for name in ("depth", "normals"):
        np.testing.assert_allclose(found[name], whole[name], atol=1e-5)
        assert found[name].dtype == np.float32


def test_distances_in_tiles_have_the_scale_of_the_whole():
    """A network that takes an enlarged part for one that is closer is set right."""
    photo = stubs.colours(40, 60)

    def nearer(images, **options):
        results = stubs.predict(images)
        return results | {"depth": results["depth"] * (images.shape[1] / 40)}

    found = tiles.predict(nearer, photo, TASKS, tiles=2)
    np.testing.assert_allclose(found["depth"], stubs.predict(photo)["depth"], rtol=1e-4)


def test_normals_stay_unit_and_the_middle_of_a_tile_decides_on_classes():
    photo = stubs.colours(40, 60)

    def different(images, **options):
        results = stubs.predict(images)
        if images.shape[1] < 40:
            results["segmentation"][:] = 1
            results["normals"] = np.broadcast_to(np.float32([0, 1, 0]), (*images.shape,)).copy()
        return results

    found = tiles.predict(different, photo, TASKS, tiles=2)
    np.testing.assert_allclose(np.linalg.norm(found["normals"], axis=-1), 1, atol=1e-5)
    assert (found["segmentation"][11, 17] == 1).all()
    corner = stubs.predict(photo)
    np.testing.assert_array_equal(found["segmentation"][:3, :3], corner["segmentation"][:3, :3])


def test_options_reach_the_predictor():
    seen = []

    def predictor(images, *, flip_test):
        seen.append(flip_test)
        return stubs.predict(images)

    tiles.predict(predictor, stubs.colours(8, 8), TASKS, tiles=2, flip_test=True)
    assert set(seen) == {True}


def test_small_photos_are_not_cut():
    assert tiles.number_for((96, 128), (96, 128), 4) == 1
    assert tiles.number_for((97, 128), (96, 128), 4) == 2
    assert tiles.number_for((3000, 4000), (96, 128), 4) == 4
