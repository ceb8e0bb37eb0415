"""Each method in turn."""

import pytest

from mtl_jax.weighting import METHODS
from tests.weighting.steps import compiled


@pytest.fixture(params=METHODS)
def name(request):
    return request.param


@pytest.fixture
def weighting(name):
    return compiled(name)
