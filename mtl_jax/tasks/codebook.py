"""Normals as a classification: a codebook of directions, soft labels over it, and back.

After Ladicky et al. (2014) and Wang et al. (2015), whom the paper follows: codewords by k-means,
their Delaunay triangulation on the sphere, and a normal as the weights of the triangle around it.
"""

import warnings
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mtl_jax.tasks import losses

# Three codewords close to one great circle span no triangle that can be inverted in float32.
SMALLEST_VOLUME = 1e-4
CAPTION = (
    "The directions that normals are classified into, and the triangles between them, as the "
    "camera sees them: the middle faces it, the circle is seen from the side; x to the right, y up."
)


class Codebook(NamedTuple):
    """Directions and the faces between them.

    Attributes:
      codewords: f32[K, 3], unit.
      corners: i32[F, 3], of each face. A face is a triangle, or an edge at the border of what the
        triangles cover, of which the first corner is named twice.
      inverses: f32[F, 3, 3], normal -> the weights of a face's corners that sum up to it; for an
        edge the least-squares ones, and none for its third corner.
    """

    codewords: np.ndarray
    corners: np.ndarray
    inverses: np.ndarray


def fit(normals: np.ndarray, codewords: int, *, seed: int = 0) -> np.ndarray:
    """Finds codewords by k-means, the same ones for the same seed.

    Args:
      normals: [n, 3], of any non-zero length.
      codewords: number of codewords, K.
      seed: seed of the initial codewords.

    Returns:
      The codewords, unit f32[K, 3].

    Raises:
      ValueError: for fewer than four codewords, or fewer directions than codewords.
    """
    # Here, because SciPy takes long to import.
    from scipy.cluster.vq import kmeans2

    normals = _unit(normals)
    distinct = len(np.unique(np.round(normals, 3), axis=0))
    if not 4 <= codewords <= distinct:
        raise ValueError(
            f"codewords={codewords}: must be 4 to {distinct}, the directions in the data set"
        )
    with warnings.catch_warnings():
        # A cluster that loses its last normal keeps its centre, which does no harm.
        warnings.filterwarnings("ignore", message="One of the clusters is empty")
        generator = np.random.default_rng(seed)
        centres, _ = kmeans2(normals, codewords, iter=50, minit="++", rng=generator)
    return _unit(centres).astype(np.float32)


def triangulate(codewords: np.ndarray) -> Codebook:
    """Makes the Delaunay triangulation of unit codewords [K, 3], with the edges at its border.

    On the sphere it is the convex hull. Where the codewords leave a part of the sphere empty (no
    visible surface looks away from the camera) the hull closes behind them, with faces that turn
    their inner side to the rest; these are left out.

    Raises:
      ValueError: for codewords that span no such triangle.
    """
    # Here, because SciPy takes long to import.
    from scipy.spatial import ConvexHull, QhullError

    points = np.asarray(codewords, np.float64)
    try:
        hull = ConvexHull(points)
    except QhullError as error:
        raise ValueError(
            f"codewords={len(points)}: they lie in one plane and span no triangle on the sphere; "
            "set more of them, or `normals_loss`=cosine"
        ) from error
    outward = hull.equations[:, 3] < 0
    volumes = np.abs(np.linalg.det(points[hull.simplices]))
    triangles = hull.simplices[outward & (volumes > SMALLEST_VOLUME)]
    if not len(triangles):
        raise ValueError(
            f"codewords={len(points)}: none of their triangles faces outward; set more of them, or "
            "`normals_loss`=cosine"
        )
    edges = np.sort(triangles[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2), axis=-1)
    edges, count = np.unique(edges, axis=0, return_counts=True)
    border = edges[count == 1]
    inverses = [np.linalg.inv(points[triangle].T) for triangle in triangles]
    inverses += [np.vstack([np.linalg.pinv(points[edge].T), np.zeros(3)]) for edge in border]
    corners = np.concatenate([triangles, border[:, [0, 1, 0]]])
    return Codebook(
        points.astype(np.float32), corners.astype(np.int32), np.stack(inverses).astype(np.float32)
    )


def encode(codebook: Codebook, normals: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Codes each normal softly, as the weights of the corners of the face around it.

    A normal that no triangle contains gets the weights of the nearest point of the border.

    Args:
      codebook: codebook with its faces.
      normals: f32[..., 3], unit.

    Returns:
      Weights f32[..., 3], not negative and of sum one, and their corners i32[..., 3].
    """

    def try_face(best: tuple[jax.Array, ...], face: tuple[jax.Array, ...]) -> tuple:
        similarity, weights, corners = best
        inverse, own, points = face
        candidate = jnp.maximum(normals @ inverse.T, 0.0)  # [..., 3]
        cosine = jnp.sum(losses.normalize(candidate @ points) * normals, axis=-1)
        better = (cosine > similarity) & jnp.any(candidate > 0, axis=-1)
        weights = jnp.where(better[..., None], candidate, weights)
        corners = jnp.where(better[..., None], own, corners)
        return (jnp.where(better, cosine, similarity), weights, corners), None

    # One face after the other: all at once would take F times the memory of the normals.
    faces = (
        jnp.asarray(codebook.inverses),
        jnp.asarray(codebook.corners),
        jnp.asarray(codebook.codewords[codebook.corners]),
    )
    similarities = normals @ jnp.asarray(codebook.codewords).T  # [..., K]
    nearest = jnp.argmax(similarities, axis=-1).astype(jnp.int32)
    start = (
        jnp.max(similarities, axis=-1),
        jnp.broadcast_to(jnp.array([1.0, 0.0, 0.0]), normals.shape),
        jnp.broadcast_to(nearest[..., None], normals.shape),
    )
    (_, weights, corners), _ = jax.lax.scan(try_face, start, faces)
    return weights / jnp.sum(weights, axis=-1, keepdims=True), corners


def decode(codebook: Codebook, probabilities: jax.Array) -> jax.Array:
    """Returns the expected direction, unit f32[..., 3], of probabilities f32[..., K]."""
    return losses.normalize(probabilities @ jnp.asarray(codebook.codewords))


def cross_entropy(
    log_probabilities: jax.Array, normals: jax.Array, codebook: Codebook
) -> tuple[jax.Array, jax.Array]:
    """Returns the cross-entropy of the codewords under the normals' soft labels.

    It is the first formula of the paper.

    Args:
      log_probabilities: f32[B, H, W, K].
      normals: f32[B, H, W, 3], unit or zero; zero vectors are ignored.
      codebook: of K codewords.

    Returns:
      The sum in nats and the number of pixels with a normal.
    """
    labelled = jnp.any(normals != 0, axis=-1)  # [B, H, W]
    weights, corners = encode(codebook, normals)
    picked = jnp.take_along_axis(log_probabilities, corners, axis=-1)  # [B, H, W, 3]
    entropy = -jnp.sum(weights * picked, axis=-1)
    return jnp.sum(jnp.where(labelled, entropy, 0.0)), losses.count(labelled)


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
