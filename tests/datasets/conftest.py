"""Settings of the tests that make data sets."""

from collections.abc import Iterator

import jax
import pytest


@pytest.fixture(scope="module")
def optimised() -> Iterator[None]:
    """Programs compiled as users do: on frames of full size that costs less than it spares."""
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", True)
