"""The sections of the page, in their order; most of them add pictures to the report's files."""

import statistics
from collections.abc import Sequence

from mtl_jax.report import comparison, few_labels, figures, page, sphere, tables
from mtl_jax.report.grouping import Group
from mtl_jax.report.pictures import (
    MOST_PICTURED,
    Contents,
    class_names,
    file_name,
    numbered,
    save,
    to_png,
    to_webp,
    width_of,
)
from mtl_jax.report.read import Epoch, Run
from mtl_jax.report.rows import Row
from mtl_jax.report.strips import captions, merge_samples, strip_figure
from mtl_jax.runs.text import shown
from mtl_jax.tasks import TASKS
from mtl_jax.tasks.codebook import CAPTION as CODEBOOK

STRIPS = (
    "Images of the evaluated split with their labels, the network's predictions and their "
    "errors. Void and missing pixels are black."
)
OTHER_STRIPS = (
    f"Only the first {MOST_PICTURED} groups are here; the files strips_*.png next to this page "
    "show all runs."
)
# Width of the page's text in CSS pixels.
WIDEST = 1216


def results_section(
    all_tables: dict[str, tables.Table], lines: Sequence[str], missing: Sequence[str]
) -> list[str]:
    """Shows the tables, the notes on them and what is missing."""
    parts = []
    for title, table in all_tables.items():
        if title and table.rows:
            parts.append(page.subsection(title, page.table(table)))
        elif not title:
            parts += [page.table(table), page.notes(lines)]
    if missing:
        parts.append(page.subsection("Missing", page.notes(missing)))
    return [page.section("Results", *parts)]


def comparison_section(rows: Sequence[Row], contents: Contents) -> list[str]:
    """Draws the gain of each weighting, if two or more can be compared."""
    compared = comparison.comparable(rows)
    if len(compared) < 2:
        return []
    png = save(comparison.comparison_figure(compared), "comparison.png", contents)
    timed = any(row.values.get(comparison.STEP_TIME) for row in compared)
    caption = (
        "Δm of each weighting against the single-task runs, with its standard error over the "
        f"seeds{', and the mean time per step' * timed}."
    )
    if len({row.block for row in compared}) > 1:
        caption += " Rows that differ in the settings in brackets have separate baselines."
    return [page.section("Comparison", page.picture(png, caption, width=760))]


def few_labels_section(runs: Sequence[Run], contents: Contents) -> tuple[list[str], list[str]]:
    """Makes the curve of few labels; returns it and lines about runs that it leaves out."""
    results = few_labels.collect(runs)
    if not few_labels.is_study(results):
        return [], []
    contents["labels.md"] = few_labels.to_markdown(results)
    png = save(few_labels.labels_figure(results), "labels.png", contents)
    caption = (
        f"{few_labels.METRIC.label} over the fraction of the training images with "
        f"{few_labels.TASK.name} labels, with its standard error over the seeds. Numbers, and the "
        "labels saved, are in labels.md."
    )
    curve = page.section("Few labels", page.picture(png, caption, width=640))
    return [curve], few_labels.left_out(runs)


def loss_section(groups: Sequence[Group], contents: Contents) -> list[str]:
    """Draws a figure for each task, or several if runs measure its loss differently."""
    palette = palette_of(groups)
    parts = []
    for task in TASKS:
        kinds: dict[str, dict[str, list[tuple[Epoch, ...]]]] = {}
        for group in groups:
            curves = [run.epochs for run in group.runs if _has_loss(run, task)]
            if curves:
                kind = figures.loss_kind(task, group.config)
                kinds.setdefault(kind, {})[group.label] = curves
        for kind, curves in kinds.items():
            name = f"loss_{task}.png" if len(kinds) == 1 else f"loss_{task}_{kind}.png"
            figure = figures.loss_figure(task, curves, palette, kind=kind)
            caption = f"{task.capitalize()} loss per epoch: mean over training, and in evaluation."
            if any(len(runs) > 1 for runs in curves.values()):
                caption += " Each seed has a line of its own."
            parts.append(page.picture(save(figure, name, contents), caption, width=650))
    return [page.section("Losses", page.side_by_side(parts))]


def _has_loss(run: Run, task: str) -> bool:
    name = f"{task}/loss"
    return any(name in epoch.train or name in epoch.evaluation for epoch in run.epochs)


def palette_of(groups: Sequence[Group]) -> dict[str, str]:
    """Returns the colour of each group; single tasks are grey."""
    grey = [group.label for group in groups if group.single_task]
    return figures.colours([group.label for group in groups], grey)


def weighting_section(groups: Sequence[Group], contents: Contents) -> list[str]:
    """Draws the weights and cosines of the groups that have them."""
    kinds = (
        (
            "weights.png",
            figures.has_weights,
            figures.weights_figure,
            "Weights of the tasks' gradients in the shared parameters, mean over an epoch's "
            "steps, scaled so that the weights of the K tasks add up to K.",
        ),
        (
            "cosines.png",
            figures.has_cosines,
            figures.cosines_figure,
            "Cosines between the tasks' gradients of the shared parameters, mean over an "
            "epoch's steps in which both took part. Below zero two tasks conflict.",
        ),
    )
    parts = []
    for name, has, draw, caption in kinds:
        curves = {g.label: [run.epochs for run in g.runs if has(run.epochs)] for g in groups}
        curves = {label: epochs for label, epochs in curves.items() if epochs}
        if curves:
            if any(len(runs) > 1 for runs in curves.values()):
                caption += " Each seed has a line of its own."
            png = save(draw(curves), name, contents)
            parts.append(page.picture(png, caption, width=width_of(png)))
    return [page.section("Task weights and gradient cosines", *parts)]


def prediction_section(groups: Sequence[Group], contents: Contents) -> list[str]:
    """Draws strips of every run as files; on the page one for each of the first groups."""
    parts = []
    names: set[str] = set()
    captioned: dict[str, None] = {}
    for number, group in enumerate(groups):
        pictured = [run for run in group.runs if _has_predictions(run)]
        pictures = {}
        for run in pictured:
            name = f"strips_{file_name(run, names)}.png"
            png = save(strip_figure(run.samples, class_names(run)), name, contents)
            pictures.setdefault(run.tasks, png)
            captioned |= dict.fromkeys(captions(run.samples))
        for samples in merge_samples(pictured) if number < MOST_PICTURED else ():
            png = next(iter(pictures.values()))
            if len(pictures) > 1:
                png = to_png(strip_figure(samples, class_names(pictured[0])))
            width = min(width_of(png), WIDEST)
            picture = page.picture(to_webp(png, width), "", width=width, scrolls=True)
            parts.append(page.subsection(group.label, picture))
    if len(groups) > MOST_PICTURED:
        parts.append(page.notes([OTHER_STRIPS]))
    if not captioned:
        return []
    intro = page.paragraph(" ".join([STRIPS, *captioned]))
    return [page.section("Predictions", intro, *parts)]


def codebook_section(groups: Sequence[Group], contents: Contents) -> list[str]:
    """Draws the codebooks of groups that have one; seeds of a group have the same."""
    parts = []
    names: set[str] = set()
    for group in groups:
        books = [run.codebook for run in group.runs if run.codebook]
        if books:
            name = numbered(f"codebook_{len(books[0].codewords)}", names)
            png = save(sphere.sphere_figure(books[0]), f"{name}.png", contents)
            parts.append(page.subsection(group.label, page.picture(png, "", width=480)))
    return [page.section("Codebook", page.paragraph(CODEBOOK), *parts)] if parts else []


def _has_predictions(run: Run) -> bool:
    return any(name.startswith("predicted_") for name in run.samples)


def runs_section(groups: Sequence[Group]) -> list[str]:
    """Lists the runs with facts about their training, and the settings of each group."""
    heads = (
        "Run",
        "Group",
        "Epochs",
        "Hours",
        "Images/s",
        "Skipped steps",
        "Fallbacks, % of steps",
    )
    rows = [[str(run.path), g.label, *_facts(run)] for g in groups for run in g.runs]
    parts = [page.facts(heads, rows)]
    for group in groups:
        if group.config:
            rows = [[key, shown(key, value)] for key, value in group.config.items()]
            parts.append(page.folded(f"Settings of {group.label}", page.facts(["", ""], rows)))
    return [page.section("Runs", *parts)]


def _facts(run: Run) -> list[str]:
    """Returns facts about the training: epochs, hours, speed, skipped steps, fallbacks."""
    speeds = [e.facts["images_per_second"] for e in run.epochs if "images_per_second" in e.facts]
    fallback = [e.diagnostics["fallback"] for e in run.epochs if "fallback" in e.diagnostics]
    planned = run.config.get("epochs", "?")
    return [
        f"{run.epochs[-1].epoch if run.epochs else 0} of {planned}",
        f"{sum(epoch.facts.get('seconds', 0.0) for epoch in run.epochs) / 3600:.2f}",
        f"{statistics.median(speeds):.1f}" if speeds else tables.ABSENT,
        f"{sum(epoch.facts.get('skipped_steps', 0.0) for epoch in run.epochs):g}",
        f"{100 * statistics.mean(fallback):.2f}" if fallback else tables.ABSENT,
    ]
