"""The tasks, one file each.

Your own task is a `Task` like those of `TASKS`. Networks, data, training and evaluation accept it
as it is; add it to `TASKS` to choose it by name and to see it in reports.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mtl_jax.tasks import depth, normals, segmentation
from mtl_jax.tasks.charts import Chart, Confusion, Distribution, Profile
from mtl_jax.tasks.codebook import Codebook
from mtl_jax.tasks.depth import DEPTH
from mtl_jax.tasks.inverse_depth import INVERSE_DEPTH
from mtl_jax.tasks.normals import NORMALS
from mtl_jax.tasks.pictures import Classes, Colours, Picture, Scale, class_colours
from mtl_jax.tasks.segmentation import SEGMENTATION
from mtl_jax.tasks.stored import Stored
from mtl_jax.tasks.task import (
    IMAGE,
    INTRINSICS,
    Batch,
    Entry,
    Errors,
    LossSum,
    Metric,
    Sums,
    Task,
    Trivial,
    average_mirrored,
    with_predictions,
)
from mtl_jax.weighting import options

__all__ = [
    "ARMS",
    "DEPTH",
    "DEPTH_LOSSES",
    "IMAGE",
    "INTRINSICS",
    "INVERSE_DEPTH",
    "NORMALS",
    "NORMALS_LOSSES",
    "NORMALS_SOURCES",
    "SEGMENTATION",
    "SEGMENTATION_LOSSES",
    "TASKS",
    "WITHHELD",
    "Batch",
    "Chart",
    "Classes",
    "Codebook",
    "Colours",
    "Confusion",
    "Distribution",
    "Entry",
    "Errors",
    "LossSum",
    "Metric",
    "Picture",
    "Profile",
    "Scale",
    "Stored",
    "Sums",
    "Task",
    "Trivial",
    "class_colours",
    "select",
    "average_mirrored",
    "with_predictions",
]

TASKS: dict[str, Task] = {task.name: task for task in (SEGMENTATION, DEPTH, NORMALS, INVERSE_DEPTH)}
SEGMENTATION_LOSSES = segmentation.LOSSES
DEPTH_LOSSES = depth.LOSSES
NORMALS_LOSSES = normals.LOSSES
NORMALS_SOURCES = normals.SOURCES
# The task whose labels can be withheld, which a study with few labels is about.
WITHHELD = next(task for task in TASKS.values() if any(entry.withheld for entry in task.labels))
# The default sets of tasks that a study compares.
ARMS = "segmentation,segmentation+depth,segmentation+normals,segmentation+depth+normals"


def select(
    names: Sequence[str],
    *,
    segmentation_loss: str = "ce",
    depth_loss: str = "l1",
    normals_loss: str = "cosine",
    normals_source: str = "labels",
    codebook: Codebook | None = None,
) -> tuple[Task, ...]:
    """Returns the tasks of these names, in the order given.

    Args:
      names: keys of `TASKS`.
      segmentation_loss: a key of `SEGMENTATION_LOSSES` with options, such as `focal:gamma=2`.
      depth_loss: a key of `DEPTH_LOSSES` with options, such as `stereo:nearest=0.5`.
      normals_loss: a key of `NORMALS_LOSSES` with options, such as `codebook:codewords=40`.
      normals_source: "labels", or "depth": normals are learned from the normals of the depth labels
        or, where depth is learned from stereo pairs, of the depth that the network predicts.
      codebook: codebook of a `normals_loss` with codewords, see `normals.as_classes`.

    Raises:
      ValueError: for an unknown, repeated or missing name, an unknown loss, option or source.
    """
    if not names or len(set(names)) != len(names):
        raise ValueError(f"`tasks` must be one or more different names, got {list(names)}")
    for name in names:
        if name not in TASKS:
            raise ValueError(f"`tasks`: unknown task {name!r}: choose from {', '.join(TASKS)}")
    if normals_source not in NORMALS_SOURCES:
        raise ValueError(f"`normals_source`={normals_source}: unknown, choose labels or depth")
    chosen = dict(TASKS)
    chosen["segmentation"] = _form("segmentation_loss", segmentation_loss, SEGMENTATION_LOSSES, {})
    chosen["depth"] = _form("depth_loss", depth_loss, DEPTH_LOSSES, {})
    source = normals_source
    if source == "depth" and "depth" in names and depth.LABELS not in chosen["depth"].reads:
        source = "predicted_depth"
    context = {"source": source, "codebook": codebook}
    chosen["normals"] = _form("normals_loss", normals_loss, NORMALS_LOSSES, context)
    return tuple(chosen[name] for name in names)


def _form(
    name: str, text: str, table: Mapping[str, Callable[..., Task]], context: Mapping[str, Any]
) -> Task:
    """Returns the form of a task that a text selects from a table.

    Args:
      name: name of the argument that holds the text.
      text: a text such as `stereo:nearest=0.5`.
      table: name -> factory.
      context: arguments of the factories that are not options.

    Raises:
      ValueError: for an unknown name or option.
    """
    try:
        choice = options.parse(text, table, context=context)
    except ValueError as error:
        raise ValueError(f"`{name}`: {error}") from error
    try:
        return choice.factory(**choice.options, **context)
    except ValueError as error:
        raise ValueError(f"`{name}`={text}: {error}") from error
