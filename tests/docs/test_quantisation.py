"""The script of the codebook: what its table measures."""

import numpy as np

from tests.docs import scripts


def visible(count, seed):
    """Directions that face a camera."""
    normals = np.random.default_rng(seed).normal(size=(count, 3))
    normals[:, 2] = -np.abs(normals[:, 2]) - 0.1
    return normals


def test_finer_codebooks_lose_less():
    script = scripts.load("codebook")
    rows = script.quantisation_floor(visible(1000, 9), [8, 20, 60], fit_to=visible(3000, 0))
    assert [row["codewords"] for row in rows] == [8, 20, 60]
    assert rows[0]["nearest"] > rows[1]["nearest"] > rows[2]["nearest"]
    assert all(row["soft"] < row["nearest"] for row in rows)
