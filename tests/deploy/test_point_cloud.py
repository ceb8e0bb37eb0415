"""Points project back onto the pixels that show them, and other programs can read their file."""

import io

import numpy as np

from mtl_jax.deploy import bands, point_cloud
from tests.deploy import stubs


def parse(content):
    """Reads binary PLY as its specification says."""
    header, _, body = content.partition(b"end_header\n")
    lines = header.decode("ascii").splitlines()
    assert lines[:2] == ["ply", "format binary_little_endian 1.0"]
    (count,) = (int(line.split()[2]) for line in lines if line.startswith("element vertex"))
    kinds = {"float": "<f4", "uchar": "u1"}
    fields = [line.split()[1:] for line in lines if line.startswith("property")]
    points = np.frombuffer(body, [(name, kinds[kind]) for kind, name in fields])
    assert len(points) == count
    return points


def test_points_project_back_onto_their_pixels(monkeypatch):
    monkeypatch.setattr(bands, "MOST_PIXELS", 30)
    pixels = stubs.colours(7, 11)
    depth = np.random.default_rng(0).uniform(1, 5, (7, 11)).astype(np.float32)
    depth[0, 3], depth[4, 4], depth[6, 10], depth[5, 5] = 0.0, np.nan, np.inf, -1.0
    file = io.BytesIO()
    point_cloud.write_ply(file, depth, pixels, 9.0)
    points = parse(file.getvalue())
    known = (depth > 0) & np.isfinite(depth)
    assert len(points) == known.sum() == 73
    # A pinhole with the principal point in the middle; the centre of pixel (0, 0) is at 0, 0.
    column = 9.0 * points["x"] / points["z"] + (11 - 1) / 2
    row = 9.0 * points["y"] / points["z"] + (7 - 1) / 2
    rows, columns = np.nonzero(known)
    np.testing.assert_allclose(column, columns, atol=1e-5)
    np.testing.assert_allclose(row, rows, atol=1e-5)
    np.testing.assert_array_equal(points["z"], depth[known])
    colours = np.stack([points[name] for name in ("red", "green", "blue")], axis=-1)
    np.testing.assert_array_equal(colours, pixels[known])
