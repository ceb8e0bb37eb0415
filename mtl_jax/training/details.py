"""What a report shows of an evaluation: charts, and the best and worst images of each task."""

import math

import numpy as np

from mtl_jax.tasks import IMAGE
from mtl_jax.training.evaluation import SAMPLES, Evaluation, Judge
from mtl_jax.weighting.contract import PyTree

# The most images of each task that are kept as its best, and as its worst.
EXTREMES = 5
# Pictures with more pixels than this are thinned out, so that the file stays small.
MOST_PIXELS = 128 * 128


def collect(
    judge: Judge, variables: PyTree, split: str, evaluation: Evaluation
) -> dict[str, np.ndarray]:
    """Returns what `evaluation.npz` holds.

    Args:
      judge: the judge that evaluated.
      variables: of the network that it evaluated.
      split: the split that it evaluated on.
      evaluation: from `Judge.evaluate`.

    Returns:
      `task/chart` for each of `Task.charts`. For tasks with `Task.errors` also `task/errors`
      f32[n], the error of each image; `task/best` and `task/worst`, places in the split that begin
      with the best and the worst image; and, where there are any, `task/image`, `task/true` and
      `task/predicted` of these images, the best ones first.
    """
    found = {
        f"{task.name}/{chart.name}": np.asarray(chart.collect(evaluation.sums[task.name]))
        for task in judge.tasks
        for chart in task.charts
    }
    ends = {name: extremes(errors) for name, errors in evaluation.errors.items()}
    places = {place for best, worst in ends.values() for place in best + worst}
    shown = show(judge, variables, split, sorted(places))
    for name, (best, worst) in ends.items():
        found[f"{name}/errors"] = evaluation.errors[name]
        found |= {f"{name}/best": np.array(best, int), f"{name}/worst": np.array(worst, int)}
        entries = {"image": IMAGE.name, "true": name, "predicted": f"predicted_{name}"}
        for key, entry in entries.items() if best else ():
            found[f"{name}/{key}"] = np.stack([shown[place][entry] for place in best + worst])
    return found


def extremes(errors: np.ndarray) -> tuple[list[int], list[int]]:
    """Returns the places of the smallest errors, smallest first, and of the largest, largest first.

    No place is in both, and one whose error is not finite is in neither.
    """
    order = [int(i) for i in np.argsort(errors, kind="stable") if np.isfinite(errors[i])]
    count = min(EXTREMES, math.ceil(len(order) / 2))
    return order[:count], order[: count - 1 : -1][:EXTREMES]


def show(
    judge: Judge, variables: PyTree, split: str, places: list[int]
) -> dict[int, dict[str, np.ndarray]]:
    """Returns thinned out samples of images by their place in a split; see `Judge.show`."""
    # In batches of the size that `Judge.samples` shows: the network is compiled for it anyway.
    size = min(SAMPLES, len(judge.splits[split]))
    found = {}
    for start in range(0, len(places), size):
        part = places[start : start + size]
        samples = judge.show(variables, split, part + part[:1] * (size - len(part)))
        found |= {
            place: {name: thin_out(array[i]) for name, array in samples.items()}
            for i, place in enumerate(part)
        }
    return found


def thin_out(picture: np.ndarray) -> np.ndarray:
    """Returns every nth row and column of a picture [H, W, ...], at most about `MOST_PIXELS`."""
    step = math.ceil(math.sqrt(math.prod(picture.shape[:2]) / MOST_PIXELS))
    return picture[::step, ::step].copy()
