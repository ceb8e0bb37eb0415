"""The part of the page on errors: charts of each task, and its best and worst images."""

from collections.abc import Mapping, Sequence

import numpy as np

from mtl_jax.report import charts, page
from mtl_jax.report.baseline import listed
from mtl_jax.report.grouping import Group
from mtl_jax.report.pictures import (
    MOST_PICTURED,
    Contents,
    class_names,
    file_name,
    save,
    to_webp,
    width_of,
)
from mtl_jax.report.read import Run
from mtl_jax.report.strips import strip_figure
from mtl_jax.tasks import TASKS, Confusion, Distribution, Profile, Task

IOU = "Intersection over union of each class, and how many pixels of the split have it."
CONFUSION = (
    "Where the pixels of each class (row) went: the percentage that is predicted as each class."
)
DISTRIBUTION = "How many pixels have which error, and how many have a smaller one."
EXTREMES = (
    "The images with the {} mean error, which is written on each after its place in the split, "
    "from 0."
)
# The most runs that a line names; it counts the others.
MOST_NAMED = 5
WIDTH = 590


def error_parts(
    groups: Sequence[Group], palette: Mapping[str, str], contents: Contents
) -> list[str]:
    """Draws the errors of each task in the final evaluations of the runs; empty if none is known.

    Args:
      groups: of the runs.
      palette: label of a group -> colour.
      contents: files of the report, to which the figures are added.
    """
    taken: dict[int, str] = {}
    names: set[str] = set()
    for group in groups:
        taken |= {id(run): file_name(run, names) for run in group.runs if run.details}
    parts = []
    for task in TASKS.values():
        curves = _curves(task, groups, palette, contents)
        pictures = _pictures(task, groups, taken, contents)
        if curves or pictures:
            blocks = page.choices(f"errors-{task.name}", pictures)
            parts.append(page.subsection(task.name.capitalize(), *curves, blocks))
    return [*parts, page.notes(_lines(groups))]


def _curves(
    task: Task, groups: Sequence[Group], palette: Mapping[str, str], contents: Contents
) -> list[str]:
    """Draws the charts of a task that show all groups in one figure."""
    parts = []
    for chart in task.charts:
        key = f"{task.name}/{chart.name}"
        found = {
            g.label: [x for run in g.runs if (x := _array(run, key)) is not None] for g in groups
        }
        found = {label: arrays for label, arrays in found.items() if arrays}
        if not found:
            continue
        if isinstance(chart, Profile):
            figure = charts.profile_figure(chart, found, palette)
            counts = {int(array[0].sum()) for arrays in found.values() for array in arrays}
            pixels = " or ".join(f"{count:,}" for count in sorted(counts))
            caption = f"Mean errors over the {chart.label.split(' / ')[0]} of {pixels} pixels."
        elif isinstance(chart, Distribution):
            figure, caption = charts.distribution_figure(chart, found, palette), DISTRIBUTION
        else:
            continue
        if any(len(arrays) > 1 for arrays in found.values()):
            caption += " Each seed has a line of its own."
        png = save(figure, f"errors_{task.name}_{chart.name}.png", contents)
        parts.append(page.picture(png, caption, width=width_of(png), scrolls=True))
    return parts


def _pictures(
    task: Task, groups: Sequence[Group], names: Mapping[int, str], contents: Contents
) -> list[tuple[str, str]]:
    """Draws what each group has of its own: the first run with it stands for all of its seeds.

    Returns:
      Pairs of a title and HTML.
    """
    firsts = [(g, next((run for run in g.runs if _has(run, task)), None)) for g in groups]
    blocks = []
    for group, run in [(group, run) for group, run in firsts if run][:MOST_PICTURED]:
        content = _confusions(task, run, names[id(run)], contents)
        content += page.side_by_side(_extremes(task, run, names[id(run)], contents))
        if content:
            blocks.append((f"{group.label}, run {run.path.name}", content))
    return blocks


def _confusions(task: Task, run: Run, name: str, contents: Contents) -> str:
    parts, widest = [], 0
    for chart in task.charts:
        matrix = _array(run, f"{task.name}/{chart.name}")
        if not isinstance(chart, Confusion) or matrix is None:
            continue
        known = class_names(run) if chart.names is None else chart.names
        labels = [*known, *(f"class {i}" for i in range(len(known), len(matrix)))][: len(matrix)]
        stem = f"errors_{task.name}_{chart.name}_{name}"
        iou = save(charts.iou_figure(matrix, labels), f"{stem}_iou.png", contents)
        rates = save(charts.confusion_figure(matrix, labels), f"{stem}.png", contents)
        for png, caption in ((iou, IOU), (rates, CONFUSION)):
            width = width_of(png)
            widest = max(widest, width)
            parts.append(page.picture(to_webp(png, width), caption, width=width, scrolls=True))
    # With many classes, the figures need the whole width of the page.
    return page.side_by_side(parts) if widest <= WIDTH else "".join(parts)


def _extremes(task: Task, run: Run, name: str, contents: Contents) -> list[str]:
    found = run.details.extremes.get(task.name) if run.details else None
    if found is None or task.errors is None:
        return []
    texts = [
        f"{place} · {task.errors.text.format(error)}"
        for place, error in zip(found.places, found.errors, strict=True)
    ]
    parts = []
    for word, end, rows in (
        ("smallest", "best", range(found.best)),
        ("largest", "worst", range(found.best, len(texts))),
    ):
        if rows:
            shown = [texts[row] for row in rows]
            figure = strip_figure(found.samples, class_names(run), rows=rows, texts=shown)
            png = save(figure, f"errors_{task.name}_{end}_{name}.png", contents)
            caption = EXTREMES.format(word)
            parts.append(page.picture(to_webp(png, WIDTH), caption, width=WIDTH))
    return parts


def _array(run: Run, key: str) -> np.ndarray | None:
    """Returns the array of a chart, if any pixel was counted."""
    array = run.details.charts.get(key) if run.details else None
    return array if array is not None and np.nansum(array) > 0 else None


def _has(run: Run, task: Task) -> bool:
    """Returns whether a run has something to show of a task."""
    if run.details is None:
        return False
    return task.name in run.details.extremes or any(
        f"{task.name}/{chart.name}" in run.details.charts for chart in task.charts
    )


def _lines(groups: Sequence[Group]) -> list[str]:
    """Returns lines about what is not shown."""
    lines = []
    runs = [run for group in groups for run in group.finished if run.details is None]
    if runs:
        named = [str(run.path) for run in runs[:MOST_NAMED]]
        named += [f"{len(runs) - MOST_NAMED} more"] if len(runs) > MOST_NAMED else []
        lines.append(
            f"Not here, because there is no evaluation.npz in the folder: {listed(named)}. "
            "--mode=evaluate --workdir=FOLDER writes it."
        )
    if sum(any(run.details for run in group.runs) for group in groups) > MOST_PICTURED:
        lines.append(
            f"Only the first {MOST_PICTURED} groups have pictures of their own here; a report of "
            "the others shows theirs."
        )
    return lines
