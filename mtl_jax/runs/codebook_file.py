"""The codebook of a run that learns normals as classes, kept in its folder."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np

from mtl_jax import files
from mtl_jax.runs import workdir
from mtl_jax.tasks import Codebook
from mtl_jax.tasks.codebook import fit, triangulate

NAME = "codebook.npy"


def of_run(folder: Path, codewords: int, sample: Callable[[], np.ndarray]) -> Codebook:
    """Returns the codebook in a run's folder or, before it is stored there, a new one.

    Args:
      folder: folder of the run.
      codewords: number of codewords.
      sample: returns the normals [n, 3] that new codewords are fitted to.

    Raises:
      ValueError: if the stored one is damaged or has another size, or none can be fitted.
    """
    path = folder / NAME
    if path.exists():
        return read(folder, codewords)
    if workdir.has_checkpoint(folder):
        print(f"{path} is gone: the codewords are fitted again, to the same images")
    return triangulate(fit(sample(), codewords))


def read(folder: Path, number: int) -> Codebook:
    """Returns the codebook of codewords f32[number, 3] that are stored in a run's folder.

    Raises:
      ValueError: if there is none, or the file holds anything else.
    """
    path = folder / NAME
    if not path.exists():
        raise ValueError(f"{path} is gone: put it back")
    damaged = f"{path} is damaged: put a good copy there or set another `workdir`"
    try:
        codewords = np.lib.format.read_array(io.BytesIO(path.read_bytes()), allow_pickle=False)
    except (ValueError, EOFError, TypeError, SyntaxError, MemoryError) as error:
        raise ValueError(damaged) from error
    if codewords.shape != (number, 3):
        raise ValueError(
            f"{path} holds an array of shape {codewords.shape}, not ({number}, 3): set "
            "`normals_loss` as when the run began, or another `workdir`"
        )
    is_real = np.issubdtype(codewords.dtype, np.floating)
    if not is_real or not np.allclose(np.linalg.norm(codewords, axis=-1), 1.0, atol=1e-3):
        raise ValueError(damaged)
    try:
        return triangulate(codewords)
    except ValueError as error:
        raise ValueError(damaged) from error


def store(codebook: Codebook, folder: Path) -> None:
    """Writes a run's codebook into its folder, where `of_run` finds it."""
    if workdir.is_writer():
        content = io.BytesIO()
        np.save(content, codebook.codewords)
        files.write(folder / NAME, content.getvalue())
