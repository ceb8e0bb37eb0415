"""The script of the picture of inference reads the tables of the pages."""

import pytest

from mtl_jax.weighting import TITLES
from tests.docs import scripts


@pytest.fixture(scope="module")
def script():
    return scripts.load("inference")


def test_three_networks_need_more_than_one(script):
    found = script.costs()
    assert script.TRAINED in found and len(found) >= 4
    for parameters, _ in found.values():
        assert 2 * parameters[0] < parameters[1] <= 3 * parameters[0]


def test_the_quality_is_that_of_the_results(script):
    found = script.gains()
    assert len(found) >= 25 and found.keys() <= set(TITLES.values())
    assert found["Nash-MTL"] == 0.2 and found["PBI"] > script.WORST


def test_the_picture_shows_each_network_and_each_weighting_once(script):
    left, right = script.draw().axes
    labels = [text.get_text() for text in left.get_legend().get_texts()]
    assert labels[:-2] == list(script.costs())
    (together, alone) = right.get_lines()
    assert len(together.get_xdata()) == sum(x <= script.WORST for x in script.gains().values())
    assert together.get_xdata()[0] == script.costs()[script.TRAINED][1][0] != alone.get_xdata()[0]
