"""The picture of a diagnosis shows its numbers."""

import numpy as np

from mtl_jax.report.diagnosis import diagnosis_figure
from mtl_jax.report.pictures import to_png
from mtl_jax.tasks import TASKS
from mtl_jax.weighting import diagnose

SHOWN = [TASKS[name] for name in ("segmentation", "depth", "normals")]


def test_dots_and_bars_are_those_of_the_gradients():
    rows = np.random.default_rng(0).normal(size=(50, 3, 20)) * np.array([1, 3, 0.3])[:, None]
    grams = rows @ rows.swapaxes(1, 2)
    # The last two tasks never have labels in the same batch, and one step failed.
    grams[::2, 2] = grams[::2, :, 2] = 0.0
    grams[1::2, 1] = grams[1::2, :, 1] = 0.0
    grams[6] = np.nan
    found = diagnose(grams, names=[task.name for task in SHOWN])
    assert "| depth, normals | – | – |" in str(found)
    figure = diagnosis_figure(found, grams, SHOWN)
    lengths, cosines, shares = figure.axes
    of_depth = lengths.get_lines()[2]
    seen = [step for step in range(0, 50, 2) if step != 6]
    np.testing.assert_array_equal(of_depth.get_xdata(), np.array(seen) + 1)
    np.testing.assert_allclose(of_depth.get_ydata(), np.linalg.norm(rows[seen, 1], axis=1))
    labels = [text.get_text() for text in cosines.get_legend().get_texts()]
    assert labels == ["segmentation · depth", "segmentation · normals", "depth · normals"]
    widths = [bar.get_width() for bar in shares.patches]
    expected = [found.conflicts[0, 1], found.conflicts[0, 2], np.nan]
    expected += list(np.stack([found.opposed, found.opposed_scaled], axis=1).ravel())
    np.testing.assert_allclose(widths, 100 * np.array(expected))
    assert [text.get_text() for text in shares.texts][2] == "–"
    assert to_png(figure).startswith(b"\x89PNG")
