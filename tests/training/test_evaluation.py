"""Evaluation with a cheap predictor against NumPy over all pixels, and the trivial predictor."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtl_jax import data, models
from mtl_jax.tasks import Entry, losses
from mtl_jax.training import evaluation
from tests import fakes, tiny
from tests.fakes import TASKS

ALL = tuple(TASKS.values())
CLASSES = 4
NUMBER, HEIGHT, WIDTH = 7, 6, 10  # neither 2, 3, 4 nor 8 divides the number


def example(rng):
    normals = rng.normal(size=(HEIGHT, WIDTH, 3)) + [0.0, 0.0, -2.0]
    normals /= np.linalg.norm(normals, axis=-1, keepdims=True)
    missing = rng.random((3, HEIGHT, WIDTH)) < rng.uniform(0.0, 0.6)
    depth = rng.uniform(0.5, 9.0, (HEIGHT, WIDTH))
    labels = rng.choice(CLASSES - 1, (HEIGHT, WIDTH), p=[0.2, 0.5, 0.3])
    return {
        "image": rng.integers(0, 256, (HEIGHT, WIDTH, 3)).astype(np.uint8),
        "segmentation": np.where(missing[0], -1, labels).astype(np.int8),
        "depth": np.where(missing[1], 0, depth).astype(np.float16),
        "normals": np.where(missing[2][..., None], 0, normals).astype(np.float16),
        "intrinsics": np.float32([8, 8, 4.5, 2.5]),
    }


@pytest.fixture(scope="module")
def dataset():
    rng = np.random.default_rng(0)
    source = [example(rng) for _ in range(NUMBER + 3)]
    # Some of the source only, in an order of their own, as a held-out split has them.
    indices = rng.permutation(len(source))[:NUMBER]
    return data.Dataset(source, indices, tuple("abcd"))


@pytest.fixture(scope="module")
def pixels(dataset):
    """Images and labels of the split as stored, f64[7, ...]."""
    examples = [dataset.source[i] for i in dataset.indices]
    return {
        name: np.stack([np.asarray(view[name], np.float64) for view in examples])
        for name in ("image", *TASKS)
    }


def predict(scale, batch):
    """A prediction from the colours of each pixel alone."""
    image = batch["image"]
    logits = jnp.concatenate([image, 1.0 - image[..., :1]], axis=-1) * scale
    return {
        "segmentation": jax.nn.log_softmax(logits),
        "depth": 0.5 + scale * jnp.mean(image, axis=-1),
        "normals": losses.normalize(image - jnp.array([0.5, 0.5, 1.5])),
    }


SCALE = np.float32(5.0)


@functools.cache
def step_on(count):
    devices = jax.local_devices()[:count]
    return evaluation.judge_predictions(predict, ALL, {}, eval_batch_size=1, devices=devices).step


def judge(dataset, *, batch_size=4, devices=1, by=predict, tasks=ALL, **options):
    """A judge of one split, whose step is compiled once for all tests."""
    made = evaluation.judge_predictions(
        by,
        tasks,
        {"test": dataset},
        eval_batch_size=batch_size,
        devices=jax.local_devices()[:devices],
        **options,
    )
    return made._replace(step=step_on(devices)) if (by, tasks) == (predict, ALL) else made


def run(dataset, **options):
    return judge(dataset, **options).metrics(SCALE, "test")


def errors(pixels, chosen=slice(None)):
    """Per-pixel depth errors, relative ones, and angles of some images, float64 throughout."""
    image = pixels["image"][chosen] / 255.0
    target = pixels["depth"][chosen]
    known = target > 0
    distance = np.abs(0.5 + SCALE * image.mean(-1) - target)[known]
    normals, truth = image - [0.5, 0.5, 1.5], pixels["normals"][chosen]
    present = np.any(truth != 0, axis=-1)
    cosine = (normals * truth).sum(-1) / np.linalg.norm(normals, axis=-1)
    cosine = cosine[present] / np.linalg.norm(truth, axis=-1)[present]
    return distance, distance / target[known], np.degrees(np.arccos(cosine))


def statistics(distance, relative, angle):
    return {
        "depth/absolute_error": distance.mean(),
        "depth/relative_error": relative.mean(),
        "depth/rmse": np.sqrt((distance**2).mean()),
        "normals/mean": angle.mean(),
        "normals/median": np.median(angle),
        "normals/within_11.25": np.mean(angle < 11.25),
        "normals/within_22.5": np.mean(angle < 22.5),
        "normals/within_30": np.mean(angle < 30.0),
    }


def assert_agree(found, expected):
    for name, value in expected.items():
        # The median is known to half a bin of the histogram of angles.
        slack = 0.0051 if name == "normals/median" else 0.0
        assert found[name] == pytest.approx(value, rel=1e-5, abs=slack), name


def test_a_flip_test_judges_the_mean_of_both_predictions(dataset, pixels):
    def leaning(scale, batch):
        """Farther to the right, and everything turned to one side."""
        found = predict(scale, batch)
        return found | {"depth": found["depth"] + jnp.arange(WIDTH, dtype=jnp.float32)}

    found = judge(dataset, by=leaning, flip_test=True).metrics(SCALE, "test")
    image, target, truth = (pixels[name] for name in ("image", "depth", "normals"))
    mean = 0.5 + SCALE * image.mean(-1) / 255.0 + (WIDTH - 1) / 2
    expected = np.abs(mean - target)[target > 0].mean()
    assert found["depth/absolute_error"] == pytest.approx(expected, rel=1e-5)
    upright = (image / 255.0 - [0.5, 0.5, 1.5]) * [0.0, 1.0, 1.0]
    present = np.any(truth != 0, axis=-1)
    cosine = (upright * truth).sum(-1) / np.linalg.norm(upright, axis=-1)
    angle = np.degrees(np.arccos(cosine[present] / np.linalg.norm(truth, axis=-1)[present]))
    assert found["normals/mean"] == pytest.approx(angle.mean(), rel=1e-5)
    # Losses are those of the images as they are.
    plain = judge(dataset, by=leaning).metrics(SCALE, "test")
    assert found["depth/loss"] == plain["depth/loss"] == plain["depth/absolute_error"]


def segmentation_of(pixels):
    """Predicted classes, true classes and log-probabilities of the labelled pixels."""
    image = pixels["image"] / 255.0
    logits = SCALE * np.concatenate([image, 1.0 - image[..., :1]], axis=-1)
    log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    labelled = pixels["segmentation"] >= 0
    return (
        logits.argmax(-1)[labelled],
        pixels["segmentation"][labelled].astype(int),
        log_p[labelled],
    )


def test_pooled_results_agree_with_numpy_over_all_pixels(dataset, pixels):
    found = run(dataset, batch_size=3)
    assert_agree(found, statistics(*errors(pixels)))
    predicted, true, log_p = segmentation_of(pixels)
    assert found["segmentation/pixel_accuracy"] == pytest.approx(np.mean(predicted == true))
    iou = [
        np.sum((predicted == c) & (true == c)) / np.sum((predicted == c) | (true == c))
        for c in range(CLASSES)
    ]
    assert found["segmentation/miou"] == pytest.approx(np.mean(iou))
    assert [found[f"class_iou/{c}"] for c in range(CLASSES)] == pytest.approx(iou)
    assert found["segmentation/loss"] == pytest.approx(
        -np.mean(log_p[np.arange(len(true)), true]), rel=1e-5
    )
    assert found["depth/loss"] == pytest.approx(found["depth/absolute_error"], rel=1e-5)


@pytest.mark.parametrize(("batch_size", "devices"), [(1, 1), (8, 1), (4, 4), (8, 4)])
def test_pooled_results_depend_neither_on_batch_size_nor_on_devices(dataset, batch_size, devices):
    found = run(dataset, batch_size=batch_size, devices=devices)
    assert found == pytest.approx(run(dataset, batch_size=3), rel=1e-6)


@pytest.mark.parametrize(("batch_size", "devices"), [(3, 1), (8, 4)])
def test_the_mean_error_of_each_image_agrees_with_numpy(dataset, pixels, batch_size, devices):
    """In batches of any size, and without the images that fill up the last one."""
    found = judge(dataset, batch_size=batch_size, devices=devices).evaluate(SCALE, "test").errors
    for i in range(NUMBER):
        one = {name: x[i : i + 1] for name, x in pixels.items()}
        distance, _, angle = errors(one)
        predicted, true, _ = segmentation_of(one)
        assert found["depth"][i] == pytest.approx(distance.mean(), rel=1e-5)
        assert found["normals"][i] == pytest.approx(angle.mean(), rel=1e-5)
        assert found["segmentation"][i] == pytest.approx(np.mean(predicted != true), rel=1e-5)
    assert {len(x) for x in found.values()} == {NUMBER}


@pytest.mark.parametrize("devices", [1, 2])
def test_mtan_protocol_averages_the_averages_of_batches(dataset, pixels, devices):
    found = run(dataset, batch_size=2, devices=devices, metric_protocol="mtan")
    each = [statistics(*errors(pixels, slice(i, i + 2))) for i in range(0, NUMBER, 2)]
    assert_agree(found, {name: np.mean([row[name] for row in each]) for name in each[0]})
    pooled = run(dataset, batch_size=2)
    assert found["depth/absolute_error"] != pytest.approx(pooled["depth/absolute_error"], rel=1e-3)
    assert found["segmentation/miou"] == pooled["segmentation/miou"]


def blank(view):
    labels = [entry for task in ALL for entry in task.labels]
    return view | {entry.name: np.full_like(view[entry.name], entry.missing) for entry in labels}


def test_mtan_protocol_passes_over_batches_without_labels(dataset):
    source = [blank(view) if i == 0 else view for i, view in enumerate(dataset.source)]
    two = data.Dataset(source, np.array([0, 1]), dataset.class_names)
    one = data.Dataset(source, np.array([1]), dataset.class_names)
    found, expected = (run(x, batch_size=1, metric_protocol="mtan") for x in (two, one))
    assert found == pytest.approx(expected, nan_ok=True)
    assert np.isfinite(found["normals/median"])


@pytest.mark.parametrize("seen", [0.0, 1.0])
def test_mtan_protocol_asks_for_labels_and_not_for_pixels_of_the_loss(dataset, seen):
    """Depth may be learned from stereo pairs, normals from depth: from other pixels."""
    source = [blank(view) if i == 0 else view for i, view in enumerate(dataset.source)]
    two, one = (data.Dataset(source, np.array(x), dataset.class_names) for x in ([0, 1], [1]))

    def loss(prediction, batch):
        return jnp.zeros(()), jnp.float32(seen * prediction.size)

    tasks = tuple(task._replace(loss=loss) for task in ALL)
    found = run(two, batch_size=1, metric_protocol="mtan", tasks=tasks)
    expected = run(one, batch_size=1, metric_protocol="mtan")
    for task in ALL:
        for metric in task.metrics:
            assert np.isfinite(found[metric.name])
            assert found[metric.name] == pytest.approx(expected[metric.name])


@pytest.mark.parametrize("batch_size", [1, 4])
def test_a_loss_is_divided_by_the_number_that_it_counts(dataset, batch_size):
    """That of stereo pairs counts pixels of several scales, in fractions of a pixel."""

    def loss(prediction, batch):
        labelled = jnp.sum(batch["depth"] > 0, dtype=jnp.float32)
        return 3.0 * labelled, labelled / 7.0

    task = TASKS["depth"]._replace(loss=loss)
    found = run(dataset, batch_size=batch_size, tasks=(task,))
    assert found["depth/loss"] == pytest.approx(21.0)


@pytest.mark.parametrize("batch_size", [1, 4])
def test_an_image_that_fills_up_a_batch_lacks_all_that_a_loss_reads(dataset, batch_size):
    """A task of one's own may learn from other labels than those by which it is judged."""
    guessed = Entry("guessed", missing=-1)
    source = [view | {"guessed": np.full((HEIGHT, WIDTH), 2, np.int8)} for view in dataset.source]

    def loss(prediction, batch):
        known = batch["guessed"] >= 0
        return jnp.sum(jnp.where(known, batch["guessed"], 0.0)), losses.count(known)

    task = TASKS["depth"]._replace(loss=loss, reads=(guessed,))
    guesses = data.Dataset(source, dataset.indices, dataset.class_names)
    found = run(guesses, batch_size=batch_size, tasks=(task,))
    assert found["depth/loss"] == pytest.approx(2.0)


@pytest.mark.parametrize("metric_protocol", evaluation.PROTOCOLS)
def test_a_split_without_labels_has_no_results(dataset, metric_protocol):
    nothing = data.Dataset([blank(view) for view in dataset.source], np.arange(2), "abcd")
    found = run(nothing, batch_size=1, metric_protocol=metric_protocol)
    names = [metric.name for task in ALL for metric in task.metrics]
    losses = [f"{task.name}/loss" for task in ALL]
    assert all(np.isnan(found[name]) for name in (*names, *losses))


def test_trivial_predictor_agrees_with_numpy(dataset, pixels):
    constants = evaluation.trivial_predictor(dataset, ALL)
    assert {name: x.dtype for name, x in constants.items()} == dict.fromkeys(TASKS, np.float32)
    labels = pixels["segmentation"]
    frequencies = [np.mean(labels[labels >= 0] == c) for c in range(CLASSES)]
    np.testing.assert_allclose(np.exp(constants["segmentation"])[:3], frequencies[:3], rtol=1e-5)
    assert np.exp(constants["segmentation"])[3] < 1 / labels.size  # never occurs
    depth = pixels["depth"]
    assert constants["depth"] == np.float32(np.median(depth[depth > 0]))
    direction = pixels["normals"].sum((0, 1, 2))
    direction /= np.linalg.norm(direction)
    np.testing.assert_allclose(constants["normals"], direction, atol=1e-6)


def test_median_depth_of_an_even_number_of_pixels_is_between_the_two_in_the_middle():
    depth = np.float16([[0, 1, 2, 4, 8]])
    source = [{"depth": depth}, {"depth": depth[:, :1]}]
    train = data.Dataset(source, np.arange(2), ())
    assert evaluation.trivial_predictor(train, [TASKS["depth"]]) == {"depth": 3.0}


def test_negative_zero_is_no_depth():
    """It is what is missing in maps of z along an axis that points backwards, once negated."""
    source = [{"depth": -np.float16([[0, 0, 0, 0, -1, -2, -4]])}]
    train = data.Dataset(source, np.arange(1), ())
    assert evaluation.trivial_predictor(train, [TASKS["depth"]]) == {"depth": 2.0}


def test_trivial_predictor_of_no_labels_is_finite():
    source = [blank(example(np.random.default_rng(1)))]
    constants = evaluation.trivial_predictor(data.Dataset(source, np.arange(1), "abcd"), ALL)
    assert all(np.all(np.isfinite(x)) for x in constants.values())


def test_trivial_predictor_scores_what_its_constants_say(dataset, pixels):
    constants = evaluation.trivial_predictor(dataset, ALL)
    found = judge(dataset, by=evaluation.predict_constant).metrics(constants, "test")
    labels = pixels["segmentation"]
    majority = max(np.mean(labels[labels >= 0] == c) for c in range(CLASSES))
    assert found["segmentation/pixel_accuracy"] == pytest.approx(majority)
    assert found["segmentation/miou"] == pytest.approx(majority / 3)  # of the 3 that occur
    depth = pixels["depth"][pixels["depth"] > 0]
    assert found["depth/absolute_error"] == pytest.approx(np.abs(depth - np.median(depth)).mean())
    # No other constant has a smaller mean absolute error.
    assert found["depth/absolute_error"] < np.abs(depth - depth.mean()).mean()


def test_the_floor_is_that_of_the_trivial_predictor_of_train(dataset):
    other = data.Dataset(dataset.source, dataset.indices[:3], dataset.class_names)
    constants = evaluation.trivial_predictor(other, ALL)
    expected = judge(dataset, by=evaluation.predict_constant).metrics(constants, "test")
    made = judge(dataset)
    found = made._replace(splits={"train": other, **made.splits}).floor("test")
    assert found == pytest.approx(expected, nan_ok=True)


def test_samples_hold_images_labels_and_predictions(dataset):
    samples = judge(dataset).samples(SCALE, "test")
    shown = [dataset.source[dataset.indices[place]] for place in (0, 1, 2, 3, 4, 6)]
    for name in ("image", *TASKS):
        np.testing.assert_array_equal(samples[name], np.stack([view[name] for view in shown]))
    for name in TASKS:
        assert samples[f"predicted_{name}"].shape == samples[name].shape
        assert samples[f"predicted_{name}"].dtype == samples[name].dtype
    brightness = samples["image"].mean(-1) / 255.0
    np.testing.assert_allclose(samples["predicted_depth"], 0.5 + 5.0 * brightness, rtol=2e-3)
    few = data.Dataset(dataset.source, dataset.indices[:2], dataset.class_names)
    assert len(judge(few).samples(SCALE, "test")["image"]) == 2


def test_a_network_is_judged_by_its_own_predictions(dataset):
    """Its tasks in its own order, with running statistics, and not those of another order."""
    tasks = tiny.TASKS[::-1]
    network = tiny.network(tasks)
    sources = [fakes.example(i) for i in range(3)]
    split = data.Dataset(sources, np.arange(3), fakes.CLASSES)
    devices = jax.local_devices()[:1]
    made = evaluation.make_judge(network, {"test": split}, eval_batch_size=2, devices=devices)
    assert made.tasks == tasks
    variables = models.init(network, jax.random.key(0), tiny.IMAGE_SIZE)
    batch = data.decode(data.batch_of(sources, data.evaluation_entries(tasks)), tasks)
    depth = np.asarray(models.predict(network, variables, batch)["depth"], np.float64)
    error = np.abs(depth - batch["depth"])[np.asarray(batch["depth"]) > 0].mean()
    found = made.metrics(variables, "test")
    assert found["depth/absolute_error"] == pytest.approx(error, rel=1e-4)


def test_an_unknown_protocol_is_refused(dataset):
    with pytest.raises(ValueError, match="`metric_protocol`=mean: .*pooled, mtan"):
        judge(dataset, metric_protocol="mean")
