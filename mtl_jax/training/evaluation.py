"""Evaluation: the metrics of a split over all its pixels, next to those of a trivial predictor."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mtl_jax import data, models, parallel
from mtl_jax.parallel import PyTree
from mtl_jax.tasks import Batch, Task, metrics, select, with_predictions

PROTOCOLS = ("pooled", "mtan")
# (variables, decoded batch) -> predictions by the name of a task.
Predict = Callable[[PyTree, Batch], dict[str, jax.Array]]
Sums = dict[str, dict[str, jax.Array]]


class Judge(NamedTuple):
    """Measures a network on the splits of a data set; made by `make_judge`.

    Attributes:
      predict: pure, of the tasks.
      tasks: to judge.
      splits: from `data.open_splits`.
      step: the compiled part, (variables, sharded batch) -> each task's sums.
      eval_batch_size: images per step, over all devices.
      devices: on which to run.
      metric_protocol: see `make_judge`.
    """

    predict: Predict
    tasks: tuple[Task, ...]
    splits: dict[str, data.Dataset]
    step: Callable[[PyTree, PyTree], Sums]
    eval_batch_size: int
    devices: tuple[jax.Device, ...]
    metric_protocol: str

    def metrics(self, variables: PyTree, split: str) -> dict[str, float]:
        """Returns metrics and losses of a split, every image counted once.

        Args:
          variables: of the predictor.
          split: its name.

        Returns:
          `task/metric` -> value, `task/loss` among them, and `class_iou/0`, ... of each class.
        """
        batches = data.evaluation_batches(
            self.splits[split], self.tasks, batch_size=self.eval_batch_size
        )

        def put(batch: dict[str, np.ndarray]) -> PyTree:
            return parallel.shard(parallel.own_part(batch, self.devices), self.devices)

        shards = data.prefetch(batches, put)
        sums = [jax.device_get(self.step(variables, batch)) for batch in shards]
        results = {}
        for task in self.tasks:
            results |= summarize(task, [batch[task.name] for batch in sums], self.metric_protocol)
        return results

    def floor(self, split: str) -> dict[str, float]:
        """Returns what the trivial predictor of the split `train` gets on a split."""
        # Its losses are those of the labels, whatever the tasks learned from.
        tasks = select([task.name for task in self.tasks])
        trivial = judge_predictions(
            predict_constant,
            tasks,
            self.splits,
            eval_batch_size=self.eval_batch_size,
            devices=self.devices,
            metric_protocol=self.metric_protocol,
        )
        return trivial.metrics(trivial_predictor(self.splits["train"], tasks), split)

    def samples(self, variables: PyTree, split: str, *, count: int = 6) -> dict[str, np.ndarray]:
        """Returns images spread over a split, with labels and `predicted_*`, in stored types."""
        dataset = self.splits[split]
        places = np.linspace(0, len(dataset) - 1, min(count, len(dataset))).astype(int)
        examples = [dataset.source[int(dataset.indices[i])] for i in places]
        batch = data.batch_of(examples, data.evaluation_entries(self.tasks))
        predictions = jax.jit(self.predict)(variables, data.decode(batch))
        samples = {"image": batch["image"]}
        for task in self.tasks:
            prediction = np.asarray(task.decode(predictions[task.name]))
            if task.name == "segmentation":
                prediction = prediction.argmax(-1)
            samples[task.name] = batch[task.name]
            samples[f"predicted_{task.name}"] = prediction.astype(batch[task.name].dtype)
        return samples


def make_judge(
    network: models.Network,
    splits: dict[str, data.Dataset],
    *,
    eval_batch_size: int,
    devices: Sequence[jax.Device],
    metric_protocol: str = "pooled",
) -> Judge:
    """Makes a judge of a network's predictions for all its tasks.

    Args:
      network: built with `axis_name=parallel.AXIS`.
      splits: from `data.open_splits`.
      eval_batch_size: images per step; changes nothing but speed and memory under "pooled".
      devices: on which to run; they must divide the batch size.
      metric_protocol: "pooled", over all pixels of the split, or "mtan": depth and normals batch by
        batch, then averaged over the batches that have labels, as the multi-task literature does
        (with batch size 2).

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
    )


def judge_predictions(
    predict: Predict,
    tasks: Sequence[Task],
    splits: dict[str, data.Dataset],
    *,
    eval_batch_size: int,
    devices: Sequence[jax.Device],
    metric_protocol: str = "pooled",
) -> Judge:
    """Makes a judge of any pure function's predictions; see `make_judge`.

    Args:
      predict: (variables, decoded batch) -> predictions by the name of a task.
      tasks: to judge.
      splits: as for `make_judge`, and so are the other arguments.
    """
    if metric_protocol not in PROTOCOLS:
        raise ValueError(
            f"`metric_protocol`={metric_protocol}: unknown, choose from {', '.join(PROTOCOLS)}"
        )
    tasks, devices = tuple(tasks), tuple(devices)

    def step(variables: PyTree, batch: Batch) -> Sums:
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

    compiled = parallel.data_parallel(step, devices)
    return Judge(predict, tasks, splits, compiled, eval_batch_size, devices, metric_protocol)


def summarize(
    task: Task, batches: Sequence[dict[str, np.ndarray]], metric_protocol: str
) -> dict[str, float]:
    """Returns one task's results from the sums of all batches; see `make_judge`."""
    total = metrics.add(batches)
    results = {f"{task.name}/loss": float(total["loss"] / max(total["labelled"], 1))}
    # The literature, too, takes segmentation from one confusion matrix of the whole split.
    if metric_protocol == "pooled" or task.name == "segmentation":
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
    """Returns what to predict everywhere without looking: the floor that any model must clear.

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


def predict_constant(constants: PyTree, batch: Batch) -> dict[str, jax.Array]:
    """Predicts the constants of the trivial predictor at every pixel."""
    return {
        name: jnp.broadcast_to(value, (*batch["image"].shape[:3], *value.shape))
        for name, value in constants.items()
    }
