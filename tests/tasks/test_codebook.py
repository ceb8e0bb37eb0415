"""The codebook of normals against NumPy, SciPy and closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import nnls

from mtl_jax import tasks
from mtl_jax.tasks import codebook

SIZE = 20


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def visible(count, seed=0):
    """Directions that face a camera: most of them within 80 degrees of -z."""
    normals = unit(np.random.default_rng(seed).normal(size=(count, 3)))
    normals[:, 2] = -np.abs(normals[:, 2]) - 0.1
    return unit(normals)


@pytest.fixture(scope="module")
def book():
    return codebook.triangulate(codebook.fit(visible(4000), SIZE))


def code(book, normals):
    weights, corners = codebook.encode(book, jnp.asarray(normals, jnp.float32))
    return np.asarray(weights, np.float64), np.asarray(corners)


def decoded(book, weights, corners):
    return unit(np.einsum("nc,ncx->nx", weights, book.codewords[corners].astype(np.float64)))


def angles(a, b):
    sine = np.linalg.norm(np.cross(a, b), axis=-1)
    return np.degrees(np.arctan2(sine, np.sum(a * b, axis=-1)))


def test_codewords_are_unit_and_the_same_for_the_same_seed():
    normals = visible(500)
    first, again = codebook.fit(normals, SIZE), codebook.fit(normals, SIZE)
    np.testing.assert_array_equal(first, again)
    assert first.shape == (SIZE, 3)
    np.testing.assert_allclose(np.linalg.norm(first, axis=-1), 1.0, atol=1e-6)
    assert not np.array_equal(first, codebook.fit(normals, SIZE, seed=1))


def test_codewords_lie_among_the_normals_of_clusters():
    centres = unit(np.array([[1, 0, -1], [-1, 0, -1], [0, 1, -1], [0, -1, -1.0]]))
    noise = 0.02 * np.random.default_rng(0).normal(size=(4, 50, 3))
    found = codebook.fit(unit(centres[:, None] + noise).reshape(-1, 3), 4)
    nearest = np.argmax(centres @ found.T, axis=-1)
    assert sorted(nearest) == [0, 1, 2, 3]
    assert angles(centres, found[nearest]).max() < 1


@pytest.mark.parametrize("size", [3, 501])
def test_sizes_that_cannot_be(size):
    with pytest.raises(ValueError, match="codewords="):
        codebook.fit(visible(500), size)


def test_codewords_that_span_no_triangle_are_refused():
    circle = np.linspace(0, 2 * np.pi, 6, endpoint=False)
    flat = np.stack([np.cos(circle), np.sin(circle), np.full(6, -1.0)], axis=-1)
    with pytest.raises(ValueError, match="codewords=6: .*one plane"):
        codebook.triangulate(unit(flat))
    # A thin fan: each of its triangles holds less than what can be inverted in float32.
    thin = unit(np.array([[0, 0, -1], [1e-3, 0, -1], [0, 1e-3, -1], [1e-3, 1e-3, -1.0]]))
    with pytest.raises(ValueError, match="codewords=4: "):
        codebook.triangulate(thin)


def test_weights_are_a_distribution_on_one_face(book):
    weights, corners = code(book, unit(np.random.default_rng(1).normal(size=(3000, 3))))
    assert weights.min() >= 0
    np.testing.assert_allclose(weights.sum(-1), 1.0, atol=1e-5)
    faces = [set(face) for face in book.corners]
    assert all(any(set(corner) <= face for face in faces) for corner in corners)


def test_a_codeword_is_its_own_code(book):
    weights, corners = code(book, book.codewords)
    dense = np.zeros((SIZE, SIZE))
    np.add.at(dense, (np.arange(SIZE)[:, None], corners), weights)
    np.testing.assert_allclose(dense, np.eye(SIZE), atol=1e-4)


def test_normals_between_three_neighbours_come_back(book):
    triangles = book.corners[book.corners[:, 0] != book.corners[:, 2]]
    mixture = np.random.default_rng(2).dirichlet(np.ones(3), size=(len(triangles), 10))
    inside = unit(np.einsum("fnc,fcx->fnx", mixture, book.codewords[triangles])).reshape(-1, 3)
    assert angles(decoded(book, *code(book, inside)), inside).max() < 0.1


def test_triangles_are_delaunay(book):
    """No codeword lies beyond the plane through another three: the empty circle on the sphere."""
    for corners in book.corners[book.corners[:, 0] != book.corners[:, 2]]:
        a, b, c = book.codewords[corners].astype(np.float64)
        normal = unit(np.cross(b - a, c - a))
        normal *= np.sign(normal @ a)
        assert np.max((book.codewords - a) @ normal) < 1e-5


def test_the_code_is_the_best_of_all_faces(book):
    normals = unit(np.random.default_rng(3).normal(size=(300, 3)))
    found = decoded(book, *code(book, normals))
    best = []
    for normal in normals:
        candidates = [np.max(book.codewords @ normal)]
        for corners in book.corners:
            points = book.codewords[np.unique(corners)].astype(np.float64)
            weights, _ = nnls(points.T, normal)
            if weights.any():
                candidates.append(unit(weights @ points) @ normal)
        best.append(max(candidates))
    np.testing.assert_allclose(np.sum(found * normals, axis=-1), best, atol=1e-4)


def test_cross_entropy(book):
    generator = np.random.default_rng(4)
    normals = visible(24, seed=5).reshape(1, 4, 6, 3)
    normals[0, 1, 2:4] = 0
    raw = generator.normal(size=(1, 4, 6, SIZE))
    log_probabilities = raw - np.log(np.exp(raw).sum(-1, keepdims=True))
    total, count = codebook.cross_entropy(
        jnp.float32(log_probabilities), jnp.float32(normals), book
    )
    expected = 0.0
    for where in np.argwhere(np.any(normals != 0, axis=-1)):
        place = tuple(where)
        weights, corners = code(book, normals[place][None])
        expected -= weights[0] @ log_probabilities[place][corners[0]]
    assert count == 22
    np.testing.assert_allclose(total, expected, rtol=1e-4)


def test_cross_entropy_has_the_gradient_of_a_softmax(book):
    """Softmax minus target, the closed form."""
    normals = jnp.float32(visible(6, seed=6).reshape(1, 2, 3, 3))
    raw = jnp.float32(np.random.default_rng(7).normal(size=(1, 2, 3, SIZE)))

    def loss(raw):
        return codebook.cross_entropy(jax.nn.log_softmax(raw), normals, book)[0]

    weights, corners = codebook.encode(book, normals)
    target = jnp.sum(jax.nn.one_hot(corners, SIZE) * weights[..., None], axis=-2)
    np.testing.assert_allclose(jax.grad(loss)(raw), jax.nn.softmax(raw) - target, atol=1e-5)


def test_the_task_predicts_what_its_codewords_say(book):
    (task,) = tasks.select(["normals"], normals_loss="codebook", codebook=book)
    raw = 60.0 * jax.nn.one_hot(jnp.arange(SIZE).reshape(1, 4, 5), SIZE)
    prediction = task.decode(task.activation(raw, {}))
    np.testing.assert_allclose(prediction.reshape(-1, 3), book.codewords, atol=1e-4)
    assert task.channels == SIZE


def test_decoding_is_the_expectation(book):
    probabilities = np.random.default_rng(8).dirichlet(np.ones(SIZE), size=5)
    expected = unit(probabilities @ book.codewords)
    np.testing.assert_allclose(
        codebook.decode(book, jnp.float32(probabilities)), expected, atol=1e-5
    )
