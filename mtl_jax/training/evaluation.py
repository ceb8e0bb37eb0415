"""Evaluation: the metrics of a split over all its pixels, and the trivial predictor beside them."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mtl_jax import data, models, parallel
from mtl_jax.tasks import Batch, Task, metrics, select, with_predictions

PROTOCOLS = ("pooled", "mtan")
Predict = Callable[[Any, Batch], dict[str, jax.Array]]


def network_predictor(network: models.Network, tasks: Sequence[Task]) -> Predict:
    """(variables, decoded batch) -> predictions, for `evaluate`."""
    return lambda variables, batch: models.predict(network, tasks, variables, batch)


def evaluation_step(
    predict: Predict, tasks: Sequence[Task], devices: Sequence[jax.Device]
) -> Callable[[Any, Any], Any]:
    """The compiled part of `evaluate`: (variables, sharded batch) -> each task's sums.

    Args:
      predict: pure, (variables, decoded batch) -> predictions of the tasks.
      tasks: to judge.
      devices: on which to run.
    """

    def step(variables: Any, batch: dict[str, jax.Array]) -> dict[str, dict[str, jax.Array]]:
        batch = data.decode(batch)
        predictions = predict(variables, batch)
        seen = with_predictions(batch, tasks, predictions)
        sums = {}
        for task in tasks:
            prediction = predictions[task.name]
            loss, count = task.loss(prediction, seen)
            sums[task.name] = {
                **task.tally(task.decode(prediction), batch[task.name]),
                "loss": loss,
                "labelled": count.astype(jnp.int32),
            }
        return jax.lax.psum(sums, parallel.AXIS)

    return parallel.data_parallel(step, devices)


def evaluate(
    step: Callable[[Any, Any], Any],
    variables: Any,
    dataset: data.Dataset,
    tasks: Sequence[Task],
    *,
    batch_size: int,
    devices: Sequence[jax.Device],
    protocol: str = "pooled",
) -> dict[str, float]:
    """Metrics and losses of a split, every image counted once.

    Args:
      step: from `evaluation_step`.
      variables: of its predictor.
      dataset: the split.
      tasks: to judge.
      batch_size: changes nothing but speed and memory under "pooled".
      devices: those of the step; they must divide the batch size.
      protocol: "pooled", over all pixels of the split, or "mtan": depth and normals batch by batch,
        then averaged over the batches that have labels, as the multi-task literature does (with
        batch size 2).

    Returns:
      `task/metric` -> value, `task/loss` among them, and `class_iou/0`, ... of each class.

    Raises:
      ValueError: for an unknown protocol.
    """
    if protocol not in PROTOCOLS:
        raise ValueError(f"unknown protocol {protocol!r}: choose from {', '.join(PROTOCOLS)}")
    batches = data.evaluation_batches(dataset, tasks, batch_size=batch_size)

    def feed(batch: dict[str, np.ndarray]) -> Any:
        return parallel.shard(parallel.own_part(batch, devices), devices)

    shards = data.prefetch(batches, feed)
    sums = [jax.device_get(step(variables, batch)) for batch in shards]
    results = {}
    for task in tasks:
        results |= summarize(task, [batch[task.name] for batch in sums], protocol)
    return results


def summarize(
    task: Task, batches: Sequence[dict[str, np.ndarray]], protocol: str
) -> dict[str, float]:
    """One task's results from the sums of all batches; see `evaluate` for the protocols."""
    total = metrics.add(batches)
    results = {f"{task.name}/loss": float(total["loss"] / max(total["labelled"], 1))}
    # The literature, too, takes segmentation from one confusion matrix of the whole split.
    if protocol == "pooled" or task.name == "segmentation":
        results |= task.summarize(total)
    else:
        # A batch without a single label has no average; without any, the answer is not a number.
        # The labels count, and not the pixels of the loss, which may learn from other ones.
        labelled = [batch for batch in batches if batch["count"]] or batches[:1]
        each = [task.summarize(metrics.add([batch])) for batch in labelled]
        results |= {key: float(np.mean([row[key] for row in each])) for key in each[0]}
    if "confusion" in total:
        iou = metrics.class_iou(total["confusion"])
        iou = np.full_like(iou, np.nan) if total["unknown"] else iou
        results |= {f"class_iou/{index}": float(value) for index, value in enumerate(iou)}
    return results


def trivial_predictor(train: data.Dataset, tasks: Sequence[Task]) -> dict[str, np.ndarray]:
    """What to predict everywhere without looking: the floor that any model must clear.

    Returns:
      Per task, of the training labels: `segmentation` the log-frequencies f32[C] of the classes,
      of which the most frequent one wins, `depth` the median f32[] in metres, `normals` the mean
      direction f32[3].
    """
    names = {task.name for task in tasks}
    classes = np.zeros(len(train.class_names), np.int64)
    depths = np.zeros(1 << 16, np.int64)
    normal = np.zeros(3)
    for index in train.indices:
        example = train.source[int(index)]
        if "segmentation" in names:
            labels = example["segmentation"]
            classes += np.bincount(labels[labels >= 0], minlength=len(classes))
        if "depth" in names:
            # The bit patterns of positive half-precision numbers are in the numbers' own order, so
            # a histogram over them holds the exact median of any number of pixels.
            bits = example["depth"].astype(np.float16).view(np.uint16)
            depths += np.bincount(bits[bits > 0], minlength=len(depths))
        if "normals" in names:
            normal += example["normals"].astype(np.float64).sum((0, 1))
    middle = metrics.middle_bins(depths).astype(np.uint16).view(np.float16)
    constants = {
        "segmentation": np.log(np.maximum(classes, 0.5) / max(classes.sum(), 1)),
        "depth": np.mean(middle, dtype=np.float32),
        "normals": normal / max(np.linalg.norm(normal), 1e-12),
    }
    return {name: np.asarray(constants[name], np.float32) for name in names}


def predict_constant(constants: Any, batch: Batch) -> dict[str, jax.Array]:
    """The trivial predictor for `evaluate`: its constants at every pixel."""
    return {
        name: jnp.broadcast_to(value, (*batch["image"].shape[:3], *value.shape))
        for name, value in constants.items()
    }


def floor(
    splits: dict[str, data.Dataset],
    tasks: Sequence[Task],
    *,
    split: str,
    batch_size: int,
    devices: Sequence[jax.Device],
    protocol: str = "pooled",
) -> dict[str, float]:
    """What the trivial predictor of the split `train` gets on a split; see `evaluate`."""
    # Its losses are those of the labels, whatever the tasks learned from.
    tasks = select([task.name for task in tasks])
    return evaluate(
        evaluation_step(predict_constant, tasks, devices),
        trivial_predictor(splits["train"], tasks),
        splits[split],
        tasks,
        batch_size=batch_size,
        devices=devices,
        protocol=protocol,
    )


def sample_predictions(
    predict: Predict,
    variables: Any,
    dataset: data.Dataset,
    tasks: Sequence[Task],
    *,
    count: int = 6,
) -> dict[str, np.ndarray]:
    """Images spread over the split with their labels and `predicted_*`, in storage types."""
    places = np.linspace(0, len(dataset) - 1, min(count, len(dataset))).astype(int)
    examples = [dataset.source[int(dataset.indices[i])] for i in places]
    batch = data.batch_of(examples, data.evaluation_entries(tasks))
    predictions = jax.jit(predict)(variables, data.decode(batch))
    samples = {"image": batch["image"]}
    for task in tasks:
        prediction = np.asarray(task.decode(predictions[task.name]))
        if task.name == "segmentation":
            prediction = prediction.argmax(-1)
        samples[task.name] = batch[task.name]
        samples[f"predicted_{task.name}"] = prediction.astype(batch[task.name].dtype)
    return samples
