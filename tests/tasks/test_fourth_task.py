"""A task that the library does not know, all of it in this file: edges between classes.

Its labels are made from those of segmentation. It is trained with the other tasks on rooms,
evaluated, and shown in a report like them.
"""

import functools
import json
import re
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from datasets.rooms import render
from datasets.rooms.primitives import CLASS_NAMES
from datasets.rooms.rooms_dataset_builder import BATCH
from mtl_jax import data, models, parallel
from mtl_jax.bench import speed
from mtl_jax.deploy import outputs, view
from mtl_jax.deploy.photos import Photo
from mtl_jax.report import pictures, strips
from mtl_jax.report.read import read_run
from mtl_jax.report.write import write_report
from mtl_jax.runs import lock, metrics_file, terminal
from mtl_jax.tasks import (
    SEGMENTATION,
    TASKS,
    Classes,
    Entry,
    Errors,
    Metric,
    Task,
    Trivial,
    metrics,
    select,
)
from mtl_jax.tasks.losses import count
from mtl_jax.tasks.stored import indices
from mtl_jax.training import loop
from mtl_jax.training.evaluation import make_judge
from mtl_jax.training.optimizer import make_optimizer
from mtl_jax.training.restore import restore_variables
from mtl_jax.training.step import Recipe, init_state, make_steps
from mtl_jax.weighting import METHODS
from tests import fakes, tiny

# A batch of rooms of the size that tests/datasets/test_rooms.py renders, whose programs are used.
HEIGHT, WIDTH = 40, 56


def edges(batch):
    """1 where a neighbour in the row or column has another class, else 0; -1 for void."""
    labels = jnp.asarray(batch["segmentation"])
    padded = jnp.pad(labels, ((0, 0), (1, 1), (1, 1)), constant_values=-1)
    found = jnp.zeros(labels.shape, bool)
    for rows, columns in ((0, 1), (2, 1), (1, 0), (1, 2)):
        neighbour = padded[:, rows:, columns:][:, : labels.shape[1], : labels.shape[2]]
        found |= (neighbour >= 0) & (neighbour != labels)
    return jnp.where(labels >= 0, found.astype(jnp.int8), jnp.int8(-1))


def binary_cross_entropy(log_odds, batch):
    labels = edges(batch)
    entropy = jax.nn.softplus(log_odds) - jnp.where(labels == 1, log_odds, 0.0)
    return jnp.sum(jnp.where(labels >= 0, entropy, 0.0)), count(labels >= 0)


def tally(log_odds, labels):
    found, true = (log_odds > 0) & (labels >= 0), labels == 1
    masks = {"hits": found & true, "found": found, "true": true}
    return {name: jnp.sum(mask, dtype=jnp.int32) for name, mask in masks.items()}


def f_measure(sums):
    return {"edges/f": metrics.ratio(2 * sums["hits"], sums["found"] + sums["true"])}


def wrong(predicted, labels):
    """1 for an edge that is missed or is none, NaN for void."""
    return jnp.where(
        labels >= 0, (predicted.astype(bool) != (labels == 1)).astype(jnp.float32), jnp.nan
    )


def two_colours(number):
    return np.uint8([[40, 40, 40], [250, 250, 90]])[:number]


EDGES = Task(
    name="edges",
    channels=1,
    activation=lambda raw, batch: raw[..., 0],
    loss=binary_cross_entropy,
    loss_name="binary_cross_entropy",
    loss_labels={"binary_cross_entropy": "binary cross-entropy / nats"},
    reads=SEGMENTATION.labels,
    labels=SEGMENTATION.labels,
    label=edges,
    tally=tally,
    summarize=f_measure,
    metrics=(Metric("edges/f", "F", True, unit="%", percent=True),),
    trivial=Trivial(
        "the share of edges",
        lambda labels, num_classes: np.bincount(labels[labels >= 0], minlength=2),
        lambda counts: np.log(counts[1] / counts[0]),
    ),
    picture=Classes("edges", names=("inside", "edge"), colours=two_colours),
    stored=indices(two_colours),
    colour="#3355aa",
    sample=lambda log_odds: log_odds > 0,
    pooled=True,
    classification=True,
    errors=Errors(wrong, "wrong edge", "{:.1%} wrong", largest=lambda labels: 1.0),
)
ALL = (*select(["segmentation", "depth", "normals"]), EDGES)


@pytest.fixture(scope="module")
def splits():
    """Six rooms to train on and two to test."""
    indices = np.arange(BATCH, dtype=np.int32)
    views = jax.device_get(render.render_batch(0, indices, height=HEIGHT, width=WIDTH))
    half = {name: views[name].astype(np.float16) for name in ("depth", "normals")}
    rooms = [{name: x[i] for name, x in (views | half).items()} for i in indices]
    sources = {"train": rooms[:6], "test": rooms[6:]}
    return data.open_splits(
        SimpleNamespace(
            info=SimpleNamespace(metadata={"class_names": list(CLASS_NAMES)}),
            as_data_source=lambda split: sources[split],
        )
    )


@pytest.fixture(scope="module")
def trained(splits, tmp_path_factory):
    """The folder of a run of three steps by nash, and its judge, variables and result."""
    folder = tmp_path_factory.mktemp("runs") / "edges"
    devices = jax.local_devices()[:1]
    network = models.build(ALL, num_classes=len(CLASS_NAMES), axis_name=parallel.AXIS)
    recipe = Recipe(
        network._replace(trunk=tiny.Trunk()),
        METHODS["nash"](),
        make_optimizer("adam", learning_rate=1e-2),
    )
    state = init_state(recipe, seed=0, image_size=(HEIGHT, WIDTH))
    steps = make_steps(
        recipe,
        image_size=(HEIGHT, WIDTH),
        batch_size=2,
        devices=devices,
        augment=functools.partial(data.augment, colour_jitter=0.2),
    )
    feed = data.make_feed(
        splits["train"],
        ALL,
        cache="device",
        batch_size=2,
        labelled_per_batch=None,
        seed=0,
        devices=devices,
    )
    judge = make_judge(recipe.network, splits, eval_batch_size=2, devices=devices)
    names = [task.name for task in ALL]
    config = {"dataset": "rooms", "tasks": names, "weighting": "nash", "epochs": 1}
    config["class_names"] = list(CLASS_NAMES)
    with lock.own(folder):
        (folder / "config.json").write_text(json.dumps(config))
        result = loop.train(
            folder,
            state,
            steps,
            feed,
            judge,
            epochs=1,
            schedule=lambda step: 1e-2,
        )
    variables = restore_variables(
        folder, recipe.network, which="latest", image_size=(HEIGHT, WIDTH), devices=devices
    )
    return SimpleNamespace(folder=folder, judge=judge, result=result, variables=variables)


@pytest.fixture
def registered(monkeypatch):
    monkeypatch.setitem(TASKS, "edges", EDGES)


@pytest.fixture(autouse=True)
def coarse(monkeypatch):
    """Saves figures of few pixels, which takes less time."""
    monkeypatch.setattr(pictures, "DPI", 20)


def test_its_labels_follow_from_those_of_segmentation():
    labels = np.array([[[0, 0, 1], [0, 0, 1], [2, -1, 1]]])
    expected = [[[0, 1, 1], [1, 1, 1], [1, -1, 0]]]
    np.testing.assert_array_equal(edges({"segmentation": labels}), expected)


def test_its_metric_by_hand():
    labels, log_odds = jnp.array([[[1, 1, 1, 0, -1]]]), jnp.array([[[2.0, -1.0, 3.0, 0.5, 9.0]]])
    # Two of three edges are found, and one that is none.
    assert EDGES.summarize(jax.device_get(tally(log_odds, labels))) == {"edges/f": 2 * 2 / (3 + 3)}
    total, number = binary_cross_entropy(
        jnp.array([[[2.0, -1.0]]]), {"segmentation": jnp.array([[[4, -1]]])}
    )
    np.testing.assert_allclose(total, np.log1p(np.exp(2.0)), rtol=1e-6)
    assert number == 1


@pytest.mark.slow
def test_it_learns_by_nash_together_with_the_others(trained):
    (row,), _ = metrics_file.read(trained.folder)
    assert list(row["weights"]) == ["segmentation", "depth", "normals", "edges"]
    assert all(weight > 0 for weight in row["weights"].values())
    assert all(np.isfinite(loss) for loss in row["train"].values())
    assert row["skipped_steps"] == 0
    assert row["diagnostics"]["fallback"] == 0
    assert "cosine/normals-edges" in row["diagnostics"]


@pytest.mark.slow
def test_it_is_evaluated_over_all_pixels(trained, splits):
    samples = trained.judge.samples(trained.variables, "test")
    true, found = samples["edges"] == 1, samples["predicted_edges"] == 1
    assert 0.02 < true.mean() < 0.5
    expected = 2 * (true & found).sum() / (true.sum() + found.sum())
    assert trained.result["metrics"]["edges/f"] == pytest.approx(expected)
    assert trained.result["metrics"]["edges/loss"] > 0
    assert "edges/f" in trained.result["last"]["metrics"]
    assert "F " in terminal.one_line(trained.result["metrics"], ALL)


@pytest.mark.slow
def test_its_trivial_predictor_is_measured_like_those_of_the_others(trained, splits):
    def share(split):
        stored = np.stack([splits[split].source[i]["segmentation"] for i in splits[split].indices])
        labels = np.asarray(edges({"segmentation": stored}))
        return (labels == 1).sum() / (labels >= 0).sum()

    train, test = share("train"), share("test")
    floor = trained.result["floor"]
    entropy = -test * np.log(train) - (1 - test) * np.log(1 - train)
    assert floor["edges/loss"] == pytest.approx(entropy, rel=1e-4)
    assert floor["edges/f"] == 0.0
    assert floor["depth/absolute_error"] > 0


@pytest.fixture(scope="module")
def training_set():
    """Images that take less time to make than rooms."""
    return data.open_splits(fakes.builder(train=6))["train"]


def test_its_labels_are_withheld_with_those_that_they_are_made_of(training_set):
    few = data.withhold_labels(training_set, label_fraction=0.5)
    batch = data.batch_at(few, [EDGES, TASKS["depth"]], batch_size=4, seed=0, step=0)
    labelled = np.any(np.asarray(edges(batch)) >= 0, axis=(1, 2))
    assert labelled.tolist() == [True, True, False, False]


@pytest.mark.parametrize("reads", [EDGES.reads, (Entry("edges"),)], ids=["known", "own"])
def test_its_step_can_be_timed(reads):
    task = EDGES._replace(reads=reads)
    noise = speed.synthetic_batch(
        [TASKS["depth"], task], image_size=(HEIGHT, WIDTH), batch_size=2, num_classes=3
    )
    assert noise.keys() == {"image", "intrinsics", "depth", reads[0].name}
    labels = noise[reads[0].name]
    assert labels.shape == (2, HEIGHT, WIDTH)
    assert not np.any(labels == reads[0].missing)
    assert np.all(np.isfinite(data.decode(noise, [task])[reads[0].name]))


def test_a_flipped_image_has_its_edges_in_place(training_set):
    stored = data.batch_at(training_set, [EDGES], batch_size=2, seed=0, step=0)
    view = {name: x[0] for name, x in data.decode(stored, [EDGES]).items()}
    flipped = data.augmentation.flip(view, data.entries_of([EDGES]))
    found = edges({"segmentation": flipped["segmentation"][None]})
    np.testing.assert_array_equal(found, edges(stored)[:1, :, ::-1])


@pytest.mark.slow
def test_its_column_and_its_pictures_are_in_the_report(trained, registered, tmp_path):
    page = write_report([trained.folder], tmp_path / "report").read_text()
    head, _, ours, floor = (tmp_path / "report" / "table.md").read_text().splitlines()[:4]
    cells = [[cell.strip() for cell in line.split("|")] for line in (head, ours, floor)]
    column = cells[0].index("F % ↑")
    value = 100 * trained.result["metrics"]["edges/f"]
    assert [line[column].strip("*") for line in cells[1:]] == [f"{value:.2f}", "0.00"]
    assert "Edges" in page
    assert "the mean normal and the share of edges of the training split" in page
    assert (tmp_path / "report" / "loss_edges.png").exists()
    samples = read_run(trained.folder).samples
    drawn = strips.paint(samples, CLASS_NAMES)[-3:]
    columns = {column.title: column.pictures for column in drawn}
    assert list(columns) == ["True edges", "Predicted edges", "Error"]
    mistaken = np.all(columns["Error"] == columns["Error"].min(axis=(0, 1, 2)), axis=-1)
    valid = samples["edges"] >= 0
    expected = (samples["edges"] == 1) != (samples["predicted_edges"] == 1)
    np.testing.assert_array_equal(mistaken[valid], expected[valid])
    bright = columns["True edges"][..., 0] == 250
    np.testing.assert_array_equal(bright, samples["edges"] == 1)
    legend = strips.strip_figure(samples, CLASS_NAMES).legends[0]
    assert {"inside", "edge", "void"} <= {text.get_text() for text in legend.get_texts()}


@pytest.mark.slow
def test_its_best_and_worst_images_are_in_the_report(trained, registered, tmp_path):
    samples = trained.judge.show(trained.variables, "test", range(2))
    valid = samples["edges"] >= 0
    mistaken = (samples["edges"] == 1) != (samples["predicted_edges"] == 1)
    expected = [np.mean(x[v]) for x, v in zip(mistaken, valid, strict=True)]
    with np.load(trained.folder / "evaluation.npz") as found:
        np.testing.assert_allclose(found["edges/errors"], expected, rtol=1e-5)
    page = write_report([trained.folder], tmp_path / "report").read_text()
    assert "<h3>Edges</h3>" in page
    names = {path.name for path in (tmp_path / "report").glob("errors_edges_*")}
    assert names == {"errors_edges_best_edges.png", "errors_edges_worst_edges.png"}


@pytest.mark.slow
def test_its_predictions_are_stored_with_its_own_colours(trained, registered, tmp_path):
    samples = read_run(trained.folder).samples
    pixels, found = samples["image"][0], samples["predicted_edges"][0]
    photo = Photo(Path("a.png"), pixels, None, ())
    outputs.write(photo, "a", {"edges": found}, outputs.Form(tmp_path, (EDGES,), CLASS_NAMES))
    with Image.open(tmp_path / "a_edges.png") as image:
        np.testing.assert_array_equal(np.asarray(image), found)
        assert image.getpalette()[:6] == [40, 40, 40, 250, 250, 90]
        assert image.text["Classes"] == "0 inside, 1 edge"
    assert (tmp_path / "a_view.png").stat().st_size > 1000
    first = {"edges": samples["predicted_edges"]}
    frame = view.make_frame((EDGES,), first, (120, 160), CLASS_NAMES)
    assert len(frame.boxes) == 2


@pytest.mark.slow
def test_a_report_that_does_not_know_the_task_shows_the_others(trained, tmp_path):
    page = write_report([trained.folder], tmp_path / "report").read_text()
    assert "mIoU % ↑" in (tmp_path / "report" / "table.md").read_text()
    assert not re.search("True edges|F %", page)


def test_it_is_chosen_by_name_once_it_is_in_the_table(registered):
    assert select(["edges", "depth"])[0] is EDGES
