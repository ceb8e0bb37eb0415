"""What tables call things."""

from mtl_jax import titles
from mtl_jax.weighting import METHODS


def test_every_weighting_has_a_title_of_its_own():
    assert set(titles.TITLES) == set(METHODS)
    assert len(set(titles.TITLES.values())) == len(METHODS)
