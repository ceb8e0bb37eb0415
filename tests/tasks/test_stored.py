"""What other programs read in the files of predictions is what was predicted."""

import numpy as np
import pytest

from mtl_jax.tasks.stored import MILLIMETRES, UNIT_VECTORS, indices


def test_depth_in_millimetres_with_zero_for_what_is_not_known():
    depth = np.float32([[1.2344, 0.0001, 65.535, 70.0, np.inf], [0.0, -1.0, np.nan, 2.0, 3.0]])
    encoded = MILLIMETRES.encode(depth, 0)
    assert encoded.dtype == np.uint16
    assert encoded.tolist() == [[1234, 1, 65535, 65535, 65535], [0, 0, 0, 2000, 3000]]
    assert MILLIMETRES.lost(depth) == 2


def test_normals_come_back_from_their_colours():
    rng = np.random.default_rng(0)
    normals = rng.normal(size=(20, 30, 3)).astype(np.float32)
    normals /= np.linalg.norm(normals, axis=-1, keepdims=True)
    encoded = UNIT_VECTORS.encode(normals, 0)
    assert encoded.dtype == np.uint8
    np.testing.assert_allclose(2 * (encoded / 255.0) - 1, normals, atol=1.01 / 255)
    # x to the right, y down, z forward.
    axes = UNIT_VECTORS.encode(np.eye(3, dtype=np.float32)[None], 0)
    assert axes[0].tolist() == [[255, 128, 128], [128, 255, 128], [128, 128, 255]]
    assert UNIT_VECTORS.lost(normals) == 0


def test_a_normal_that_is_not_known_is_black():
    normals = np.float32([[[0, 0, 0], [np.nan, 0, 1], [0, 0, 1], [0, np.inf, 0]]])
    assert UNIT_VECTORS.encode(normals, 0)[0].tolist() == [
        [0] * 3,
        [0] * 3,
        [128, 128, 255],
        [0] * 3,
    ]


@pytest.mark.parametrize(("classes", "kind"), [(13, np.uint8), (256, np.uint8), (257, np.uint16)])
def test_indices_are_bytes_as_long_as_a_palette_has_room(classes, kind):
    labels = np.int32([[0, classes - 1]])
    encoded = indices().encode(labels, classes)
    assert encoded.dtype == kind
    np.testing.assert_array_equal(encoded, labels)
    assert indices().encode(np.array([[True, False]]), 2).tolist() == [[1, 0]]
