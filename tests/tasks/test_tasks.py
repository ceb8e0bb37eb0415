"""The table of tasks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtl_jax.tasks import (
    DEPTH_LOSSES,
    INTRINSICS,
    NORMALS_LOSSES,
    SEGMENTATION_LOSSES,
    TASKS,
    Metric,
    codebook,
    depth,
    metrics,
    select,
)
from tests import fakes

CLASSES = 13


@pytest.mark.parametrize("name", TASKS)
def test_a_summary_holds_the_metrics_that_the_task_lists(name):
    task = TASKS[name]
    raw = jnp.ones((1, 2, 3, task.channels or CLASSES))
    prediction = task.activation(raw, {})
    shape = (1, 2, 3, 3) if name == "normals" else (1, 2, 3)
    labels = jnp.ones(shape, jnp.int32 if name == "segmentation" else jnp.float32)
    summary = task.summarize(metrics.add([task.tally(prediction, labels)]))
    assert list(summary) == [metric.name for metric in task.metrics]
    assert all(metric.name.startswith(f"{name}/") for metric in task.metrics)
    loss, count = task.loss(prediction, {name: labels})
    assert np.isfinite(loss)
    assert count == 6


@pytest.mark.parametrize("name", TASKS)
def test_missing_labels_count_nowhere(name):
    task = TASKS[name]
    prediction = task.activation(jnp.ones((1, 2, 3, task.channels or CLASSES)), {})
    shape = (1, 2, 3, 3) if name == "normals" else (1, 2, 3)
    dtype = jnp.int32 if name == "segmentation" else jnp.float32
    labels = jnp.full(shape, task.labels[0].missing, dtype)
    assert task.loss(prediction, {name: labels}) == (0.0, 0.0)
    assert not any(np.any(x) for x in task.tally(prediction, labels).values())


def test_activations_have_their_ranges():
    raw = jnp.float32(30.0 * np.random.default_rng(0).normal(size=(2, 8, 8, CLASSES)))
    probabilities = np.exp(TASKS["segmentation"].activation(raw, {}))
    np.testing.assert_allclose(probabilities.sum(-1), 1.0, rtol=1e-5)
    assert np.all(TASKS["depth"].activation(raw[..., :1], {}) > 0)
    lengths = np.linalg.norm(TASKS["normals"].activation(raw[..., :3], {}), axis=-1)
    np.testing.assert_allclose(lengths, 1.0, rtol=1e-5)


def test_nine_metrics_are_standard():
    labels = [m.label for task in fakes.TASKS.values() for m in task.metrics if m.standard]
    assert labels == [
        "mIoU", "PixAcc", "AbsErr", "RelErr", "Mean°", "Median°", "<11.25°", "<22.5°", "<30°"
    ]  # fmt: skip


def test_select_keeps_the_order_given():
    assert [task.name for task in select(["normals", "depth"])] == ["normals", "depth"]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], "one or more different names"),
        (["depth", "depth"], "one or more different names"),
        (["depth", "edges"], "unknown task 'edges': choose from segmentation, depth, normals"),
    ],
)
def test_select_refuses(names, message):
    with pytest.raises(ValueError, match=message):
        select(names)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"segmentation_loss": "lovasz"}, "`segmentation_loss`: 'lovasz' .*from ce, focal, dice"),
        ({"segmentation_loss": "dice:gamma=1"}, "dice has no option 'gamma'; it has no options"),
        ({"segmentation_loss": "focal:gamma=-1"}, "`segmentation_loss`=focal:gamma=-1: gamma must"),
        ({"segmentation_loss": "focal:gamma=inf"}, "gamma must be a number that is 0 or more"),
        ({"segmentation_loss": "ce:label_smoothing=1"}, "label_smoothing must be 0 or more, and"),
        ({"segmentation_loss": "ce:weights=rare"}, "weights=rare: unknown, choose equal or freq"),
        ({"depth_loss": "l2"}, "`depth_loss`: 'l2' .*l1, scale_invariant, berhu, stereo"),
        ({"depth_loss": "scale_invariant:invariance=2"}, "invariance=2: invariance must be 0 to 1"),
        ({"depth_loss": "berhu:threshold=0"}, "`depth_loss`=berhu:threshold=0: threshold must be"),
        ({"depth_loss": "l1:nearest=1"}, "`depth_loss`: .*l1 has no option 'nearest'; it has no"),
        ({"depth_loss": "stereo:nearest=0"}, "`depth_loss`=stereo:nearest=0: nearest=.*positive"),
        ({"depth_loss": "stereo:nearest=inf"}, "`depth_loss`=stereo:nearest=inf: .*positive"),
        ({"depth_loss": "stereo:smoothness=-1"}, "`depth_loss`=stereo:.*: smoothness must be a f"),
        ({"depth_loss": "stereo:edges=inf"}, "`depth_loss`=stereo:edges=inf: edges must be a fin"),
        ({"depth_loss": "stereo:order=3"}, "`depth_loss`=stereo:order=3: order must be 1 or 2"),
        ({"depth_loss": "stereo:nearest=near"}, "`depth_loss`: .*nearest must be a number"),
        ({"normals_loss": "l1"}, "`normals_loss`: 'l1' is unknown: choose from cosine, codebook"),
        ({"normals_loss": "codebook:source=x"}, "no option 'source'; its options are codewords"),
        ({"normals_loss": "codebook:codewords=3"}, "`normals_loss`=codebook:.* at least 4"),
        ({"normals_source": "stereo"}, "`normals_source`=stereo: .*labels or depth"),
    ],
)
def test_select_names_the_argument_that_it_refuses(arguments, message):
    with pytest.raises(ValueError, match=message):
        select(["depth", "normals"], **arguments)


def test_losses_have_the_options_of_their_text():
    raw = jnp.full((1, 2, 3, 1), 1e6)
    for text, nearest in (("stereo", 0.3), ("stereo_l2:nearest=0.7", 0.7)):
        (task,) = select(["depth"], depth_loss=text)
        np.testing.assert_allclose(task.activation(raw, {}), nearest, rtol=1e-3)
        assert task.loss_name == text.partition(":")[0]
    for text, codewords in (("codebook", 20), ("codebook:codewords=30", 30), ("cosine", None)):
        (task,) = select(["normals"], normals_loss=text)
        assert task.channels == (codewords or 3)
        assert task.codewords == (codewords or 0)


def test_every_loss_has_a_label():
    tables = (SEGMENTATION_LOSSES, DEPTH_LOSSES, NORMALS_LOSSES)
    for name, table in zip(("segmentation", "depth", "normals"), tables, strict=True):
        assert set(TASKS[name].loss_labels) == set(table)
        # A report takes the first for that of a run that says nothing.
        assert next(iter(TASKS[name].loss_labels)) == TASKS[name].loss_name


def test_a_codebook_is_asked_for_when_it_is_needed():
    (task,) = select(["normals"], normals_loss="codebook")
    with pytest.raises(ValueError, match="`codebook` is None"):
        task.decode(task.activation(jnp.ones((1, 2, 3, 20)), {}))
    book = codebook.triangulate(np.float32([[1, 0, 0], [0, 1, 0], [0, 0, 1], [-1, -1, -1]]))
    with pytest.raises(ValueError, match="codewords=20: the codebook has 4"):
        select(["normals"], normals_loss="codebook", codebook=book)


def test_heads_have_units_and_arrows_as_the_literature_prints_them():
    heads = [metric.head for task in fakes.TASKS.values() for metric in task.metrics]
    assert heads == [
        "mIoU % ↑", "PixAcc % ↑", "AbsErr m ↓", "RelErr ↓", "RMSE m ↓", "δ<1.25 % ↑", "δ<1.25² % ↑",
        "δ<1.25³ % ↑", "Mean° ↓", "Median° ↓", "<11.25° % ↑", "<22.5° % ↑", "<30° % ↑",
    ]  # fmt: skip
    assert Metric("iou/bed", "bed", True, unit=None, percent=True).head == "bed"


def test_what_is_learned_by_a_cross_entropy_is_a_classification():
    book = codebook.triangulate(np.float32([[1, 0, 0], [0, 1, 0], [0, 0, 1], [-1, -1, -1]]))
    names = ["segmentation", "depth", "normals"]
    for source in ("labels", "depth"):
        plain = select(names, normals_source=source)
        coded = select(
            names, normals_source=source, normals_loss="codebook:codewords=4", codebook=book
        )
        assert [task.classification for task in plain] == [True, False, False]
        assert [task.classification for task in coded] == [True, False, True]
    assert not any(task.classification for task in select(["depth"], depth_loss="stereo"))
    for loss, expected in (("focal:weights=frequency", True), ("dice", False)):
        (task,) = select(["segmentation"], segmentation_loss=loss)
        assert task.classification == expected


@pytest.fixture(scope="module")
def normals_from_depth():
    """The task, its loss compiled for the batches of `plane_batch`."""
    (task,) = select(["normals"], normals_source="depth")
    return task._replace(loss=jax.jit(task.loss))


def plane_batch():
    """Two images of a wall seen at an angle: its depth, missing in a corner, and its normal."""
    height, width, normal, distance = 40, 48, np.array([0.6, 0.0, -0.8]), 2.0
    v, u = np.mgrid[:height, :width].astype(np.float64)
    rays = np.stack([(u - 23.5) / 50, (v - 19.5) / 50, np.ones_like(u)], axis=-1)
    depth = -distance / (rays @ normal)
    depth[:4, :6] = 0
    batch = {
        "depth": np.float32([depth, depth]),
        "intrinsics": np.float32([[50.0, 50.0, 23.5, 19.5]] * 2),
    }
    return batch, np.float32(normal), np.count_nonzero(depth)


def test_normals_learn_from_depth_alone(normals_from_depth):
    batch, normal, known = plane_batch()
    assert normals_from_depth.reads == (depth.LABELS, INTRINSICS)
    right = np.broadcast_to(normal, (*batch["depth"].shape, 3))
    loss, count = normals_from_depth.loss(right, batch)
    assert int(count) == 2 * known
    assert loss / count < 1e-4
    mirrored = right * np.float32([-1.0, 1.0, 1.0])
    loss, _ = normals_from_depth.loss(mirrored, batch)
    np.testing.assert_allclose(loss / count, 1 - (0.64 - 0.36), rtol=1e-3)


def test_an_image_that_only_fills_a_batch_up_has_no_normals(normals_from_depth):
    batch, normal, known = plane_batch()
    batch["intrinsics"][1] = 0.0
    right = np.broadcast_to(normal, (*batch["depth"].shape, 3))
    loss, count = normals_from_depth.loss(right, batch)
    assert int(count) == known
    assert loss / count < 1e-4
