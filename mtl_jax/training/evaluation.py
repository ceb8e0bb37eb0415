"""Evaluation: the metrics of a split over all its pixels, next to those of a trivial predictor."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mtl_jax import data, models, parallel
from mtl_jax.tasks import (
    IMAGE,
    INTRINSICS,
    TASKS,
    Batch,
    Task,
    average_mirrored,
    metrics,
    with_predictions,
)
from mtl_jax.tasks.images import in_colour
from mtl_jax.weighting.contract import PyTree

PROTOCOLS = ("pooled", "mtan")
# Number of images whose predictions a run keeps.
SAMPLES = 6
# (variables, decoded batch) -> predictions by the name of a task.
Predict = Callable[[PyTree, Batch], dict[str, jax.Array]]
# Sums of each task over a batch, and the mean errors f32[B] of its images.
Measured = tuple[dict[str, dict[str, jax.Array]], dict[str, jax.Array]]


class Evaluation(NamedTuple):
    """What a judge measures on a split.

    Attributes:
      metrics: `task/metric` -> value, `task/loss` among them, and `class_iou/0`, ... of each class.
      sums: task -> its tally over all images.
      errors: task -> mean of its `Task.errors` over each image, f32[n] in the order of the split;
        NaN for an image without labels.
    """

    metrics: dict[str, float]
    sums: dict[str, dict[str, np.ndarray]]
    errors: dict[str, np.ndarray]


class Judge(NamedTuple):
    """Measures a network on the splits of a data set; `make_judge` makes it.

    Attributes:
      predict: pure function that predicts all tasks.
      tasks: tasks to judge.
      splits: from `data.open_splits`.
      step: the compiled part, (variables, sharded batch) -> what is measured on the batch.
      eval_batch_size: images per step, over all devices.
      devices: devices to run on.
      metric_protocol: see `make_judge`.
    """

    predict: Predict
    tasks: tuple[Task, ...]
    splits: dict[str, data.Dataset]
    step: Callable[[PyTree, PyTree], Measured]
    eval_batch_size: int
    devices: tuple[jax.Device, ...]
    metric_protocol: str

    def metrics(self, variables: PyTree, split: str) -> dict[str, float]:
        """Returns the metrics of `evaluate`."""
        return self.evaluate(variables, split).metrics

    def evaluate(self, variables: PyTree, split: str) -> Evaluation:
        """Measures the network on a split, every image counted once."""
        batches = data.evaluation_batches(
            self.splits[split], self.tasks, batch_size=self.eval_batch_size
        )

        def put(batch: dict[str, np.ndarray]) -> PyTree:
            return parallel.shard(parallel.own_part(batch, self.devices), self.devices)

        shards = data.prefetch(batches, put)
        sums, errors = zip(*(jax.device_get(self.step(variables, x)) for x in shards), strict=True)
        results, totals = {}, {}
        for task in self.tasks:
            batches = [batch[task.name] for batch in sums]
            results |= summarize(task, batches, self.metric_protocol)
            totals[task.name] = metrics.add(batches)
        # The last batch is filled up with blank images.
        count = len(self.splits[split])
        means = {name: np.concatenate([batch[name] for batch in errors]) for name in errors[0]}
        return Evaluation(results, totals, {name: x[:count] for name, x in means.items()})

    def floor(self, split: str) -> dict[str, float]:
        """Returns the results of the trivial predictor of the split `train` on a split."""
        # Its losses are computed from the labels even if a task learned from something else.
        tasks = [TASKS.get(task.name, task) for task in self.tasks]
        trivial = judge_predictions(
            predict_constant,
            tasks,
            self.splits,
            eval_batch_size=self.eval_batch_size,
            devices=self.devices,
            metric_protocol=self.metric_protocol,
        )
        return trivial.metrics(trivial_predictor(self.splits["train"], tasks), split)

    def labels(self, split: str) -> dict[str, dict[str, int]]:
        """Returns how many images have labels of each task; see `data.labels_found`."""
        return data.labels_found(self.splits, split, self.tasks)

    def samples(self, variables: PyTree, split: str) -> dict[str, np.ndarray]:
        """Returns up to `SAMPLES` images spread over a split, see `show`, and their cameras."""
        dataset = self.splits[split]
        places = np.linspace(0, len(dataset) - 1, min(SAMPLES, len(dataset))).astype(int)
        examples = [dataset.source[int(dataset.indices[i])] for i in places]
        return {
            **self.show(variables, split, places),
            **data.batch_of(examples, [INTRINSICS.name]),
        }

    def show(
        self, variables: PyTree, split: str, places: Sequence[int] | np.ndarray
    ) -> dict[str, np.ndarray]:
        """Returns the images at these places of a split, with labels and predictions.

        Images are u8[n, H, W, 3]. Labels and predictions (`predicted_*`) have the types in which
        labels are stored.
        """
        dataset = self.splits[split]
        examples = [dataset.source[int(dataset.indices[i])] for i in places]
        batch = data.batch_of(examples, data.evaluation_entries(self.tasks))
        predictions = jax.jit(self.predict)(variables, data.decode(batch, self.tasks))
        samples = {"image": in_colour(batch["image"])}
        for task in self.tasks:
            prediction = np.asarray(task.decode(predictions[task.name]))
            labels = np.asarray(task.label(batch))
            samples[task.name] = labels
            samples[f"predicted_{task.name}"] = task.sample(prediction).astype(labels.dtype)
        return samples


def make_judge(
    network: models.Network,
    splits: dict[str, data.Dataset],
    *,
    eval_batch_size: int,
    devices: Sequence[jax.Device],
    metric_protocol: str = "pooled",
    flip_test: bool = False,
) -> Judge:
    """Makes a judge of a network's predictions for all its tasks.

    Args:
      network: built with `axis_name=parallel.AXIS`.
      splits: from `data.open_splits`.
      eval_batch_size: images per step; changes nothing but speed and memory under "pooled".
      devices: devices to run on; their number must divide the batch size.
      metric_protocol: "pooled", over all pixels of the split, or "mtan": tasks that are not
        `Task.pooled` batch by batch, then averaged over the batches that have labels, as the
        multi-task literature does (with batch size 2).
      flip_test: whether to judge means of the predictions for the images and for the mirrored
        images; losses are those of the images.

    Raises:
      ValueError: for an unknown protocol.
    """
    return judge_predictions(
        partial(models.predict, network),
        network.tasks,
        splits,
        eval_batch_size=eval_batch_size,
        devices=devices,
        metric_protocol=metric_protocol,
        flip_test=flip_test,
    )


def judge_predictions(
    predict: Predict,
    tasks: Sequence[Task],
    splits: dict[str, data.Dataset],
    *,
    eval_batch_size: int,
    devices: Sequence[jax.Device],
    metric_protocol: str = "pooled",
    flip_test: bool = False,
) -> Judge:
    """Makes a judge of any pure function's predictions; see `make_judge`.

    Args:
      predict: (variables, decoded batch) -> predictions by the name of a task.
      splits: as for `make_judge`, and so are the other arguments.
    """
    if metric_protocol not in PROTOCOLS:
        raise ValueError(
            f"`metric_protocol`={metric_protocol}: unknown, choose from {', '.join(PROTOCOLS)}"
        )
    tasks, devices = tuple(tasks), tuple(devices)

    def decode(predictions: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
        return {task.name: task.decode(predictions[task.name]) for task in tasks}

    def step(variables: PyTree, batch: Batch) -> Measured:
        batch = data.decode(batch, tasks)
        predictions = predict(variables, batch)
        judged = decode(predictions)
        if flip_test:
            mirrored = predict(variables, {IMAGE.name: batch[IMAGE.name][:, :, ::-1]})
            judged = average_mirrored(tasks, judged, decode(mirrored))
        seen = with_predictions(batch, tasks, predictions)
        sums, errors = {}, {}
        for task in tasks:
            decoded, labels = judged[task.name], jnp.asarray(task.label(batch))
            loss, count = task.loss(predictions[task.name], seen)
            sums[task.name] = {
                **task.tally(decoded, labels),
                "loss": loss,
                "labelled": count,
            }
            if task.errors is not None:
                errors[task.name] = mean_errors(task.errors.of(task.sample(decoded), labels))
        sums = jax.lax.psum(sums, parallel.AXIS)
        return sums, jax.lax.all_gather(errors, parallel.AXIS, tiled=True)

    compiled = parallel.data_parallel(step, devices)
    return Judge(predict, tasks, splits, compiled, eval_batch_size, devices, metric_protocol)


def mean_errors(errors: jax.Array) -> jax.Array:
    """Returns the mean f32[B] of the pixels [B, H, W] that are not NaN; NaN for none."""
    known = ~jnp.isnan(errors)
    return jnp.sum(jnp.where(known, errors, 0.0), (1, 2)) / jnp.sum(known, (1, 2), jnp.float32)


def summarize(
    task: Task, batches: Sequence[dict[str, np.ndarray]], metric_protocol: str
) -> dict[str, float]:
    """Returns one task's results from the sums of all batches; see `make_judge`."""
    total = metrics.add(batches)
    results = {f"{task.name}/loss": metrics.ratio(total["loss"], total["labelled"])}
    if metric_protocol == "pooled" or task.pooled:
        results |= task.summarize(total)
    else:
        # A batch without labels has no average; if no batch has labels, the result is NaN. This
        # depends on the labels and not on the pixels of the loss, which may learn from others.
        labelled = [batch for batch in batches if batch["count"]] or batches[:1]
        each = [task.summarize(metrics.add([batch])) for batch in labelled]
        results |= {key: float(np.mean([row[key] for row in each])) for key in each[0]}
    if task.by_class is not None:
        iou = task.by_class(total)
        results |= {f"class_iou/{index}": float(value) for index, value in enumerate(iou)}
    return results


def trivial_predictor(train: data.Dataset, tasks: Sequence[Task]) -> dict[str, np.ndarray]:
    """Returns each task's `Trivial.constant` f32[...] of the labels of `data.counted_images`."""
    sums: dict[str, np.ndarray] = {}
    for index in data.counted_images(train.indices):
        example = train.source[int(index)]
        for task in tasks:
            stored = data.batch_of([example], [entry.name for entry in task.labels])
            labels = np.asarray(task.label(stored))[0]
            counted = task.trivial.count(labels, len(train.class_names))
            sums[task.name] = sums.get(task.name, 0) + counted
    return {
        task.name: np.asarray(task.trivial.constant(sums[task.name]), np.float32) for task in tasks
    }


def predict_constant(constants: PyTree, batch: Batch) -> dict[str, jax.Array]:
    """Predicts the constants of the trivial predictor at every pixel."""
    return {
        name: jnp.broadcast_to(value, (*batch["image"].shape[:3], *value.shape))
        for name, value in constants.items()
    }
