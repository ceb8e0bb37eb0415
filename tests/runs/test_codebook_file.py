"""The codebook in a run's folder."""

import io
import pickle

import numpy as np
import pytest

from mtl_jax.runs import codebook_file

SIZE = 20


def as_file(array, **options):
    """The content of an .npy file."""
    content = io.BytesIO()
    np.save(content, array, **options)
    return content.getvalue()


def visible(count, seed=0):
    """Directions that face a camera: most of them within 80 degrees of -z."""
    normals = np.random.default_rng(seed).normal(size=(count, 3))
    normals[:, 2] = -np.abs(normals[:, 2]) - 0.1
    return normals / np.linalg.norm(normals, axis=-1, keepdims=True)


def test_a_run_keeps_its_codebook(tmp_path):
    first = codebook_file.of_run(tmp_path, SIZE, lambda: visible(500))
    assert not list(tmp_path.iterdir())
    codebook_file.store(first, tmp_path)
    again = codebook_file.of_run(tmp_path, SIZE, lambda: visible(500, seed=1))
    np.testing.assert_array_equal(first.codewords, again.codewords)
    with pytest.raises(ValueError, match="`normals_loss`"):
        codebook_file.of_run(tmp_path, SIZE + 1, lambda: visible(500))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"garbage",
        b"\x93NUMPY\x01\x00",
        pickle.dumps([1, 2]),
        as_file(np.array([{}, None], object), allow_pickle=True),
        as_file(np.full((SIZE, 3), np.nan, np.float32)),
        as_file(np.ones((SIZE, 3), np.float32)),
        as_file(np.zeros((SIZE, 3), np.int32)),
        as_file(np.full((SIZE, 3), [0, 0, 1], np.float32)),
    ],
)
def test_a_stored_codebook_of_anything_else_is_damaged(tmp_path, content):
    (tmp_path / "codebook.npy").write_bytes(content)
    with pytest.raises(
        ValueError, match="codebook.npy is damaged: put a good copy there"
    ) as caught:
        codebook_file.of_run(tmp_path, SIZE, lambda: visible(500))
    assert "\n" not in str(caught.value)


def test_a_run_that_lost_its_codebook_says_that_it_makes_it_again(tmp_path, capsys):
    first = codebook_file.of_run(tmp_path, SIZE, lambda: visible(500))
    assert capsys.readouterr().out == ""
    (tmp_path / "checkpoints" / "5").mkdir(parents=True)
    again = codebook_file.of_run(tmp_path, SIZE, lambda: visible(500))
    np.testing.assert_array_equal(first.codewords, again.codewords)
    assert "codebook.npy is gone" in capsys.readouterr().out
