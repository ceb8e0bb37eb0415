"""Writes the report: tables, figures and the page that shows them all."""

import html
import io
import json
import re
import shutil
import statistics
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from mtl_jax import files
from mtl_jax.report import comparison, few_labels, figures, notes, page, sphere, tables
from mtl_jax.report.grouping import Setting, describe, distinct, group
from mtl_jax.report.read import Epoch, Run, read_runs
from mtl_jax.report.rows import Row, result_rows
from mtl_jax.report.strips import captions, merge_samples, strip_figure
from mtl_jax.tasks import TASKS

# Files of the report, name -> content.
Contents = dict[str, str | bytes]
PAGE = "report.html"
# Names that a report gives to files which another report may not have.
OPTIONAL = re.compile(r"(comparison|labels|loss_|weights|cosines|strips_|codebook_)[\w.-]*")
DPI = 160
# Most characters of a folder's name in the name of a picture: four bytes each still fit.
LONGEST_NAME = 50
STRIPS = (
    "Images of the evaluated split with their labels and the network's predictions. Void and "
    "missing pixels are black."
)
CODEBOOK = (
    "The directions that normals are classified into, and the triangles between them, as the "
    "camera sees them: the middle faces it, the circle is seen from the side; x to the right, y up."
)


def write_report(folders: Sequence[str | Path], out: str | Path) -> Path:
    """Makes table.md, table.csv, figures in PNG and report.html of one run or of many.

    Args:
      folders: folders of training runs. Seeds of one setting are averaged; single-task runs share
        one row.
      out: folder to write to, created if it does not exist. Files of an earlier report are removed
        once this one is written.

    Returns:
      The path of report.html.

    Raises:
      ValueError: if there is no folder, or one does not belong to a run.
      OSError: if `out` can't be written.
    """
    contents = _contents(read_runs(folders))
    out = Path(out)
    try:
        out.mkdir(parents=True, exist_ok=True)
        _replace(out, contents)
    except OSError as error:
        name = Path(str(error.filename)).name
        raise OSError(
            f"can't write the report: {out / name if name in contents else out} "
            f"({error.strerror or error}); make room, or set another `out`"
        ) from error
    return out / PAGE


def _contents(runs: Sequence[Run]) -> Contents:
    """Makes all files of the report of these runs."""
    contents: Contents = {}
    leaks, missing = notes.leak_notes(runs), notes.missing_notes(runs)
    runs, repeated = distinct(runs)
    settings = group(runs)
    rows = result_rows(settings)
    all_tables = {
        "": tables.standard_table(rows),
        "Further metrics": tables.further_table(rows),
        "IoU per class, %": tables.class_table(rows),
    }
    label_gain, outside = _few_labels(runs, contents)
    lines = [*leaks, *notes.table_notes(settings, rows), *repeated, *outside]
    contents["table.md"] = _markdown(all_tables, lines, missing)
    contents["table.csv"] = tables.to_csv(rows, list(all_tables.values()))
    sections = [
        _table_section(all_tables, lines, missing),
        *_comparison(rows, contents),
        *label_gain,
        page.section("Losses", *_loss_figures(settings, contents)),
        page.section("Task weights and gradient cosines", *_weighting_figures(settings, contents)),
        page.section("Predictions", *_strip_figures(settings, contents)),
        *_codebooks(settings, contents),
        page.section("Runs", *_run_sections(settings)),
    ]
    contents[PAGE] = page.page(*_title(settings), sections, files=sorted(contents))
    return contents


def _replace(out: Path, contents: Contents) -> None:
    """Replaces the earlier report once all files of this one are written.

    Raises:
      OSError: if the files can't be written; the earlier report is then untouched.
    """
    before = _files_of_report(out)
    # Names of folders may hold bytes that are not text.
    encoded = {
        name: content.encode("utf-8", "replace") if isinstance(content, str) else content
        for name, content in contents.items()
    }
    for killed in out.glob(".report-*"):
        shutil.rmtree(killed, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=".report-", dir=out) as folder:
        for name, content in encoded.items():
            files.write(Path(folder, name), content)
        for name in encoded:
            Path(folder, name).replace(out / name)
    for name in before - contents.keys():
        (out / name).unlink(missing_ok=True)


def _files_of_report(out: Path) -> set[str]:
    """Returns the files of an earlier report that may be removed, as its page lists them."""
    try:
        head = (out / PAGE).read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return set()
    found = re.search(f'<meta name="{page.FILES}" content="([^"]*)">', head)
    names = html.unescape(found[1]).split("/") if found else []
    return {name for name in names if OPTIONAL.fullmatch(name)}


def save(figure: Figure, name: str, contents: Contents) -> bytes:
    """Adds a figure as PNG to the files; returns the bytes."""
    png = to_png(figure)
    contents[name] = png
    return png


def to_png(figure: Figure) -> bytes:
    """Returns a figure as PNG, the same bytes for the same figure."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        # A name with letters that are not in the font is drawn as boxes; the page has it as text.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.savefig(buffer, format="png", dpi=DPI, metadata={"Software": None})
    return buffer.getvalue()


def _title(settings: Sequence[Setting]) -> tuple[str, str]:
    """Returns title and subtitle of the page."""
    runs = [run for setting in settings for run in setting.runs]
    named = [describe("dataset", run.config["dataset"]) for run in runs if "dataset" in run.config]
    datasets = dict.fromkeys(named)
    where = f" on {' and '.join(datasets)}" if datasets else ""
    tasks = [task for task in TASKS if any(task in setting.tasks for setting in settings)]
    finished = sum(run.result is not None for run in runs)
    count = f"{len(runs)} run{'s' * (len(runs) > 1)}"
    return (
        f"{'Multi-task' if len(tasks) > 1 else 'Single-task'} learning{where}",
        f"{', '.join(tasks)} · {count}, {finished} finished".removeprefix(" · "),
    )


def _markdown(
    all_tables: dict[str, tables.Table], lines: Sequence[str], missing: Sequence[str]
) -> str:
    parts = []
    for title, table in all_tables.items():
        if table.rows:
            parts += [f"### {title}\n"] * bool(title) + [tables.to_markdown(table)]
        if not title:
            parts.append(_list(lines))
    if missing:
        parts.append(f"Missing:\n\n{_list(missing)}")
    return "\n".join(parts)


def _list(lines: Sequence[str]) -> str:
    return "".join(f"- {' '.join(line.split())}\n" for line in lines)


def _table_section(
    all_tables: dict[str, tables.Table], lines: Sequence[str], missing: Sequence[str]
) -> str:
    parts = []
    for title, table in all_tables.items():
        if title and table.rows:
            parts.append(page.subsection(title, page.table(table)))
        elif not title:
            parts += [page.table(table), page.notes(lines)]
    if missing:
        parts.append(page.subsection("Missing", page.notes(missing)))
    return page.section("Results", *parts)


def _comparison(rows: Sequence[Row], contents: Contents) -> list[str]:
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


def _few_labels(runs: Sequence[Run], contents: Contents) -> tuple[list[str], list[str]]:
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


def _loss_figures(settings: Sequence[Setting], contents: Contents) -> list[str]:
    """Draws a figure for each task, or several if runs measure its loss differently."""
    palette = _palette(settings)
    parts = []
    for task in TASKS:
        kinds: dict[str, dict[str, list[tuple[Epoch, ...]]]] = {}
        for setting in settings:
            curves = [run.epochs for run in setting.runs if _has_loss(run, task)]
            if curves:
                kind = figures.loss_kind(task, setting.config)
                kinds.setdefault(kind, {})[setting.label] = curves
        for kind, curves in kinds.items():
            name = f"loss_{task}.png" if len(kinds) == 1 else f"loss_{task}_{kind}.png"
            figure = figures.loss_figure(task, curves, palette, kind=kind)
            caption = f"{task.capitalize()} loss per epoch: mean over training, and in evaluation."
            if any(len(runs) > 1 for runs in curves.values()):
                caption += " Each seed has a line of its own."
            parts.append(page.picture(save(figure, name, contents), caption, width=650))
    return [page.side_by_side(parts)]


def _has_loss(run: Run, task: str) -> bool:
    name = f"{task}/loss"
    return any(name in epoch.train or name in epoch.evaluation for epoch in run.epochs)


def _palette(settings: Sequence[Setting]) -> dict[str, str]:
    grey = [setting.label for setting in settings if setting.single_task]
    return figures.colours([setting.label for setting in settings], grey)


def _weighting_figures(settings: Sequence[Setting], contents: Contents) -> list[str]:
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
            "epoch's steps. Below zero two tasks conflict.",
        ),
    )
    parts = []
    for name, has, draw, caption in kinds:
        curves = {s.label: [run.epochs for run in s.runs if has(run.epochs)] for s in settings}
        curves = {label: epochs for label, epochs in curves.items() if epochs}
        if curves:
            figure = draw(curves)
            width = int(95 * figure.get_figwidth())
            if any(len(runs) > 1 for runs in curves.values()):
                caption += " Each seed has a line of its own."
            parts.append(page.picture(save(figure, name, contents), caption, width=width))
    return parts


def _strip_figures(settings: Sequence[Setting], contents: Contents) -> list[str]:
    """Draws strips of every run as files; on the page one for each setting."""
    parts = []
    names: set[str] = set()
    captioned: dict[str, None] = {}
    for setting in settings:
        pictured = [run for run in setting.runs if _has_predictions(run)]
        pictures = {}
        for run in pictured:
            name = f"strips_{_file_name(run, names)}.png"
            png = save(strip_figure(run.samples, _class_names(run)), name, contents)
            pictures.setdefault(run.tasks, png)
            captioned |= dict.fromkeys(captions(run.samples))
        for samples in merge_samples(pictured):
            png = next(iter(pictures.values()))
            if len(pictures) > 1:
                png = to_png(strip_figure(samples, _class_names(pictured[0])))
            width = 165 * (1 + sum(name.removeprefix("predicted_") in TASKS for name in samples))
            parts.append(page.subsection(setting.label, page.picture(png, "", width=width)))
    return [page.paragraph(" ".join([STRIPS, *captioned])), *parts] if parts else []


def _codebooks(settings: Sequence[Setting], contents: Contents) -> list[str]:
    """Draws the codebooks of settings that have one; seeds of a setting have the same."""
    parts = []
    names: set[str] = set()
    for setting in settings:
        books = [run.codebook for run in setting.runs if run.codebook]
        if books:
            name = _numbered(f"codebook_{len(books[0].codewords)}", names)
            png = save(sphere.sphere_figure(books[0]), f"{name}.png", contents)
            parts.append(page.subsection(setting.label, page.picture(png, "", width=480)))
    return [page.section("Codebook of normals", page.paragraph(CODEBOOK), *parts)] if parts else []


def _has_predictions(run: Run) -> bool:
    return any(name.startswith("predicted_") for name in run.samples)


def _class_names(run: Run) -> list[str]:
    names = run.config.get("class_names")
    return [str(name) for name in names] if isinstance(names, list) else []


def _file_name(run: Run, taken: set[str]) -> str:
    """Returns the folder's name in characters that any system accepts, numbered if taken."""
    stem = re.sub(r"[^\w.-]+", "_", run.path.resolve().name)[:LONGEST_NAME]
    return _numbered(stem or "run", taken)


def _numbered(stem: str, taken: set[str]) -> str:
    numbered = (f"{stem}-{number}" for number in range(2, len(taken) + 3))
    name = next(name for name in (stem, *numbered) if name not in taken)
    taken.add(name)
    return name


def _run_sections(settings: Sequence[Setting]) -> list[str]:
    heads = (
        "Run",
        "Setting",
        "Epochs",
        "Hours",
        "Images/s",
        "Skipped steps",
        "Fallbacks, % of steps",
    )
    rows = [[str(run.path), s.label, *_facts(run)] for s in settings for run in s.runs]
    parts = [page.facts(heads, rows)]
    for setting in settings:
        if setting.config:
            rows = [[key, _plain(value)] for key, value in setting.config.items()]
            parts.append(page.folded(f"Settings of {setting.label}", page.facts(["", ""], rows)))
    return parts


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


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
