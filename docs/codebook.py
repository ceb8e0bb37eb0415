"""The error of a codebook of normals before anything is learned, and a picture of it.

python docs/codebook.py [FOLDER_OF_TFDS]
"""

import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import jax
import numpy as np

from datasets.rooms import rooms_dataset_builder as rooms
from mtl_jax import data
from mtl_jax.report.sphere import sphere_figure
from mtl_jax.tasks import NORMALS, codebook

SIZES = (20, 40, 80)


def main(data_dir: str | None = None) -> None:
    """Prints the table of mean angles on the test images of rooms and draws 40 codewords."""
    builder = rooms.Builder(config=rooms.config(), data_dir=data_dir)
    rooms.prepare(builder)
    splits = data.open_splits(builder)
    train, test = (
        data.sample_labels(splits[name], NORMALS.labels[0]) for name in ("train", "test")
    )
    print("| codewords | nearest codeword, ° | soft code, ° |\n|--:|--:|--:|")
    for row in quantisation_floor(test, SIZES, fit_to=train):
        print(f"| {row['codewords']} | {row['nearest']:.2f} | {row['soft']:.2f} |")
    book = codebook.triangulate(codebook.fit(train, 40))
    sphere_figure(book).savefig(Path(__file__).parent / "codebook.png", dpi=110)


def quantisation_floor(
    normals: np.ndarray, sizes: Sequence[int], *, fit_to: np.ndarray
) -> list[dict[str, float]]:
    """Measures the error of coding, below which no network with these codewords can get.

    Args:
      normals: [n, 3] to code, of any non-zero length.
      sizes: numbers of codewords.
      fit_to: [m, 3], as in `codebook.fit`.

    Returns:
      For each size `codewords`, and the mean angle in degrees to the `nearest` codeword and to the
      normal decoded from its `soft` code.
    """
    normals = unit(normals)
    rows = []
    for size in sizes:
        book = codebook.triangulate(codebook.fit(fit_to, size))
        weights, corners = jax.jit(partial(codebook.encode, book))(normals.astype(np.float32))
        soft = unit(np.einsum("nc,ncx->nx", weights, book.codewords[np.asarray(corners)]))
        nearest = book.codewords[np.argmax(normals @ book.codewords.T, axis=-1)]
        rows.append(
            {"codewords": size, "nearest": angle(nearest, normals), "soft": angle(soft, normals)}
        )
    return rows


def angle(first: np.ndarray, second: np.ndarray) -> float:
    """Returns the mean angle in degrees between unit vectors."""
    cosine = np.sum(np.asarray(first, np.float64) * second, axis=-1)
    return float(np.degrees(np.arccos(np.clip(cosine, -1.0, 1.0))).mean())


def unit(vectors: np.ndarray) -> np.ndarray:
    """Returns vectors [n, 3] scaled to unit length."""
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
