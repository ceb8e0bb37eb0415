"""Settings of the tests that make data sets."""

from collections.abc import Iterator

import jax
import pytest


@pytest.fixture(scope="module")
def optimised() -> Iterator[None]:
    """Compiles programs as users do: on full-size frames this saves more time than it takes."""
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", True)
