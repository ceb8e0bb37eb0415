"""The picture of a codebook."""

import numpy as np
import pytest

from mtl_jax.report import sphere
from mtl_jax.tasks import codebook


@pytest.mark.parametrize(
    ("direction", "place"),
    [
        ((0, 0, -1), (0, 0)),
        ((1, 0, 0), (2**0.5, 0)),
        ((0, 1, 0), (0, -(2**0.5))),  # y points down
        ((0.6, 0, -0.8), (2 * np.sin(0.5 * np.arccos(0.8)), 0)),  # 2 sin of half the angle
    ],
)
def test_projection(direction, place):
    np.testing.assert_allclose(sphere.project(np.float64([direction]))[0], place, atol=1e-9)


def test_all_codewords_are_drawn():
    normals = np.random.default_rng(0).normal(size=(500, 3))
    normals /= np.linalg.norm(normals, axis=-1, keepdims=True)
    book = codebook.triangulate(codebook.fit(normals, 12))
    (axes,) = sphere.sphere_figure(book).axes
    drawn = np.asarray(axes.collections[-1].get_offsets())
    np.testing.assert_allclose(drawn, sphere.project(book.codewords), atol=1e-6)
