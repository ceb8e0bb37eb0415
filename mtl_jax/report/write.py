"""Writes the report: tables, figures and the page that shows them all."""

import html
import re
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from mtl_jax import files
from mtl_jax.report import labels, notes, page, sections, tables
from mtl_jax.report.errors import error_parts
from mtl_jax.report.grouping import Group, distinct, group_runs
from mtl_jax.report.pictures import Contents
from mtl_jax.report.read import Run, read_runs
from mtl_jax.report.rows import result_rows
from mtl_jax.report.wording import data_set
from mtl_jax.tasks import TASKS

PAGE = "report.html"
# Names of files that not every report has.
OPTIONAL = re.compile(r"(comparison|labels|loss_|weights|cosines|strips_|errors_|codebook_)[\w.-]*")


def write_report(folders: Sequence[str | Path], out: str | Path) -> Path:
    """Makes table.md, table.csv, figures in PNG and report.html of one run or of many.

    Args:
      folders: folders of training runs. Seeds of one group are averaged; single-task runs share
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
    failed = notes.trial_notes(runs)
    runs, repeated = distinct(labels.apart(runs))
    groups = group_runs(runs)
    rows = result_rows(groups)
    all_tables = {
        "": tables.standard_table(rows),
        "Further metrics": tables.further_table(rows),
        "IoU per class, %": tables.class_table(rows),
    }
    few_labels, outside = sections.few_labels_section(runs, contents)
    lines = [*leaks, *notes.table_notes(groups, rows), *repeated, *outside, *failed]
    contents["table.md"] = _markdown(all_tables, lines, missing)
    contents["table.csv"] = tables.to_csv(rows, list(all_tables.values()))
    parts = [
        *sections.results_section(all_tables, lines, missing),
        *sections.comparison_section(rows, contents),
        *few_labels,
        *sections.loss_section(groups, contents),
        *sections.weighting_section(groups, contents),
        *sections.prediction_section(groups, contents),
        page.section("Errors", *error_parts(groups, sections.palette_of(groups), contents)),
        *sections.codebook_section(groups, contents),
        *sections.runs_section(groups),
    ]
    contents[PAGE] = page.page(*_title(groups), parts, files=sorted(contents))
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


def _title(groups: Sequence[Group]) -> tuple[str, str]:
    """Returns title and subtitle of the page."""
    runs = [run for group in groups for run in group.runs]
    named = [data_set(run.config) for run in runs if "dataset" in run.config]
    datasets = dict.fromkeys(named)
    where = f" on {' and '.join(datasets)}" if datasets else ""
    tasks = [task for task in TASKS if any(task in group.tasks for group in groups)]
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
