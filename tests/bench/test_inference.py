"""All forms of a network that are timed predict the same; no test here asserts a time."""

import json

import jax
import numpy as np
import pytest

from mtl_jax import models
from mtl_jax.bench import inference
from mtl_jax.bench.inference import ALONE, TOGETHER
from tests import fakes, tiny

SIZE = tiny.IMAGE_SIZE
PHOTOS = inference.noise((2, *SIZE, 3))


@pytest.fixture(scope="module")
def variables():
    """Variables whose running statistics are those of no fresh network."""
    rng = np.random.default_rng(0)

    def change(path, leaf):
        return leaf if path[-1].key == "kernel" else leaf + rng.uniform(0, 0.5, leaf.shape)

    with jax.numpy_dtype_promotion("standard"):
        fresh = models.init(tiny.network(), jax.random.key(0), SIZE)
        return jax.tree_util.tree_map_with_path(change, fresh)


@pytest.fixture(scope="module")
def forms(variables):
    return inference.forms(tiny.network, tiny.TASKS, variables, image_size=SIZE, batch_size=2)


def close(found, expected, *, off, wrong):
    """Checks that values differ by at most `off`, and classes at a part `wrong` of the pixels."""
    assert found.keys() == expected.keys() == {task.name for task in tiny.TASKS}
    for name, values in found.items():
        values, others = np.asarray(values), np.asarray(expected[name])
        assert values.shape == others.shape
        if name == "segmentation":
            assert len(np.unique(others)) > 1
            assert np.mean(values != others) <= wrong
        else:
            assert np.std(others) > 1e-2
            np.testing.assert_allclose(values, others, atol=off)


def test_folded_networks_and_single_task_networks_predict_the_same(forms):
    expected = forms["JAX, float32"](PHOTOS)
    close(forms[TOGETHER](PHOTOS), expected, off=1e-4, wrong=1e-3)
    close(forms[ALONE](PHOTOS), expected, off=1e-4, wrong=1e-3)


def test_half_precision_predicts_nearly_the_same(forms):
    expected = forms["JAX, float32"](PHOTOS)
    for form in ("JAX, bfloat16", "JAX, bfloat16, folded"):
        found = forms[form](PHOTOS)
        close(found, expected, off=0.2, wrong=0.1)
        assert np.any(np.asarray(found["depth"]) != np.asarray(expected["depth"]))


def test_memory_holds_all_weights_once(forms):
    """Those of a trunk are needed three times by three networks, and in half precision half."""

    def weights(form):
        return sum(x.nbytes for x in jax.tree.leaves(forms[form].weights)) / 2**20

    assert len(forms[ALONE].weights) == 3
    assert 1.1 * weights(TOGETHER) < weights(ALONE) <= 3 * weights(TOGETHER)
    assert weights("JAX, bfloat16, folded") == weights(TOGETHER) / 2
    for form, prediction in forms.items():
        assert prediction.megabytes > weights(form) + PHOTOS.nbytes / 2**20


def test_onnx_runtime_predicts_the_same(forms, variables):
    pytest.importorskip("jax2onnx", reason="jax2onnx is not installed")
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    rivals = inference.onnx_rivals(
        tiny.network(), variables, class_names=fakes.CLASSES, image_size=SIZE
    )
    (run,) = rivals.values()
    close(run(PHOTOS), forms[TOGETHER](PHOTOS), off=1e-3, wrong=1e-3)


def test_each_form_gets_a_row(tmp_path, monkeypatch):
    monkeypatch.setattr(inference, "BATCH_SIZES", (1, 2))
    monkeypatch.setattr(inference, "PRECISIONS", (np.float32,))
    called = []
    rows = inference.measure(
        tiny.network,
        tiny.TASKS,
        model="tiny",
        image_size=SIZE,
        rounds=2,
        rivals=lambda network, variables: {"other": lambda photos: called.append(len(photos))},
    )
    forms = [TOGETHER, "JAX, float32", ALONE, "other"]
    assert [(row.batch_size, row.form) for row in rows] == [(n, x) for n in (1, 2) for x in forms]
    assert called == [1, 1, 1, 2, 2, 2]  # one to warm up
    one, _, each, other = rows[:4]
    trunk = 3 * (27 * 8 + 8 + 16 + 72 * 8 + 8 + 16)
    heads = 3 * (72 * 4 + 8) + (len(fakes.CLASSES) + 1 + 3) * 5
    assert (one.parameters, each.parameters) == (trunk // 3 + heads, trunk + heads)
    assert (other.parameters, other.gigaflop, other.megabytes) == (one.parameters, None, None)
    # Most operations are those of the trunk, which three networks repeat.
    assert one.gigaflop > 1e-9 * 2 * (27 + 72) * 8 * 32 * 48
    assert 1.5 * one.gigaflop < each.gigaflop < 3 * one.gigaflop
    text = inference.write(rows, tmp_path / "new", what="tiny", rounds=2)
    assert (tmp_path / "new/inference.md").read_text() == text
    assert text.startswith("tiny. Medians of 2 calls of each form")
    assert text.count("| tiny | 2 |") == 2 and text.count("| tiny |") == 5
    assert f"| network | images | {TOGETHER} | JAX, float32 | other |" in text
    written = json.loads((tmp_path / "new/inference.json").read_text())
    assert written["rows"][3]["milliseconds"] == other.milliseconds
    assert written["rounds"] == 2 and "jax" in written["versions"]
