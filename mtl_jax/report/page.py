"""A self-contained HTML page: inline style, pictures in base64, no script."""

import base64
import html
import re
from collections.abc import Sequence

from mtl_jax.report.tables import Table, cells
from mtl_jax.tasks import TASKS

# The meta tag that lists the report's other files, separated by slashes.
FILES = "report-files"
SCROLLS = ' class="scrolls"'
CSS = """
:root { color-scheme: light dark;
  --paper: #fff; --ink: #20242b; --soft: #667080; --line: #dfe3e8; --accent: #2f6db5; }
@media (prefers-color-scheme: dark) {
  :root { --paper: #14171c; --ink: #e4e8ee; --soft: #9aa5b4; --line: #3a424e; --accent: #7fb2ec; }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.55 "Source Serif 4", "Charter", "Georgia", "DejaVu Serif", serif; }
main { max-width: 1280px; margin: 0 auto; padding: 48px 32px 96px; }
h1 { font-size: 32px; line-height: 1.2; margin: 0 0 6px; letter-spacing: -0.01em; }
h2 { font-size: 21px; margin: 56px 0 12px; padding-top: 14px; border-top: 1px solid var(--line); }
h3 { font-size: 16px; margin: 28px 0 6px; }
p, li { max-width: 78ch; }
.subtitle, figcaption, .notes { color: var(--soft); font-size: 14px; }
.subtitle { margin: 0 0 28px; font-size: 16px; }
.notes { padding-left: 18px; margin: 12px 0; }
.notes li { margin: 3px 0; max-width: 108ch; }
.notes strong { color: var(--ink); }
.wide { overflow-x: auto; margin: 12px 0; }
table { border-collapse: collapse; white-space: nowrap;
  font: 13.5px/1.4 "Inter", "Helvetica Neue", "Liberation Sans", "Arial", sans-serif;
  font-variant-numeric: tabular-nums; }
thead tr:first-child th { border-top: 2px solid var(--ink); }
tbody tr:last-child > * { border-bottom: 2px solid var(--ink); }
thead tr:last-child th { border-bottom: 1px solid var(--ink); }
th, td { padding: 5px 9px; vertical-align: top; text-align: right; font-weight: 400; }
th:first-child, td:first-child { text-align: left; padding-left: 2px; }
thead th { color: var(--soft); }
thead th.task { text-align: center; color: var(--ink); font-weight: 600; }
td.first, th.first { border-left: 1px solid var(--line); }
tr.floor > * { color: var(--soft); font-style: italic; border-top: 1px solid var(--line); }
thead tr:last-child th { vertical-align: bottom; }
tbody td:first-child { white-space: normal; min-width: 130px; max-width: 300px;
  position: sticky; left: 0; background: var(--paper); }
small { display: block; font-size: 11px; line-height: 1.2; color: var(--soft); }
td b { font-weight: 700; }
table.plain th, table.plain td { text-align: left; }
figure { margin: 20px 0 28px; }
.grid { display: grid; gap: 0 28px;
  grid-template-columns: repeat(auto-fit, minmax(min(480px, 100%), 1fr)); }
.grid figure { margin: 8px 0; }
figure img { max-width: 100%; height: auto; display: block; }
figure.scrolls { overflow-x: auto; }
figure.scrolls img { max-width: max(100%, 900px); }
figcaption { margin-top: 6px; max-width: 90ch; }
details { margin: 6px 0; }
summary { cursor: pointer; color: var(--accent); font-size: 14px; }
code { font: 13px "DejaVu Sans Mono", "Menlo", monospace; }
@media (max-width: 700px) { main { padding: 24px 16px 48px; } }
"""


def page(
    title: str,
    subtitle: str,
    sections: Sequence[str],
    *,
    files: Sequence[str] = (),
    style: str = "",
) -> str:
    """Returns the whole document.

    Args:
      title: plain text.
      subtitle: plain text.
      sections: HTML.
      files: names of the report's other files, which the page holds but does not show.
      style: CSS in addition to that of all pages.
    """
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta name="{FILES}" content="{html.escape("/".join(files))}">\n'
        f"<title>{html.escape(title)}</title>\n<style>{CSS}{style}</style>\n</head>\n<body>\n<main>\n"
        f'<h1>{html.escape(title)}</h1>\n<p class="subtitle">{html.escape(subtitle)}</p>\n'
        + "\n".join(sections)
        + "\n</main>\n</body>\n</html>\n"
    )


def section(title: str, *parts: str) -> str:
    """Returns a heading and the parts below it; nothing if all parts are empty."""
    body = "\n".join(part for part in parts if part)
    return f"<h2>{html.escape(title)}</h2>\n{body}" if body else ""


def subsection(title: str, *parts: str) -> str:
    """Returns a smaller heading and the parts below it."""
    return f"<h3>{html.escape(title)}</h3>\n" + "\n".join(parts)


def paragraph(text: str) -> str:
    """Returns a paragraph of plain text."""
    return f"<p>{html.escape(text)}</p>"


def picture(content: bytes, caption: str, *, width: int, scrolls: bool = False) -> str:
    """Returns a figure that the page embeds.

    Args:
      content: of a PNG or WebP file.
      caption: plain text.
      width: in CSS pixels; it is smaller on a narrow page.
      scrolls: whether a narrow page scrolls the picture rather than making it much smaller.
    """
    kind = "png" if content.startswith(b"\x89PNG") else "webp"
    data = base64.b64encode(content).decode("ascii")
    text = html.escape(caption)
    image = f'<img src="data:image/{kind};base64,{data}" width="{width}" alt="{text}">'
    below = f"<figcaption>{text}</figcaption>" if text else ""
    return f"<figure{SCROLLS if scrolls else ''}>{image}{below}</figure>"


def notes(lines: Sequence[str]) -> str:
    """Returns a list in small type; `**text**` is bold as in Markdown."""
    items = [re.sub(r"\*\*(.+?)\*\*", r"<strong>\1</strong>", html.escape(line)) for line in lines]
    return (
        '<ul class="notes">' + "".join(f"<li>{item}</li>" for item in items) + "</ul>"
        if items
        else ""
    )


def table(content: Table) -> str:
    """Returns a table with the best values in bold, its columns under their tasks' names."""
    if not content.rows:
        return ""
    groups = [column.name.split("/")[0] for column in content.columns]
    first = ["first" if i == 0 or groups[i] != groups[i - 1] else "" for i in range(len(groups))]
    labels = [f"{html.escape(c.label)}<br>{c.direction}" for c in content.columns]
    heads = "".join(_cell("th", text, kind) for text, kind in zip(labels, first, strict=True))
    lines = [f"<tr><th></th>{heads}</tr>"]
    if set(groups) & set(TASKS):
        lines.insert(0, f"<tr><th></th>{_task_heads(groups)}</tr>")
    body = []
    for row, line in zip(content.rows, cells(content), strict=True):
        texts = [_value(text, best) for text, best in line]
        values = "".join(_cell("td", text, f) for text, f in zip(texts, first, strict=True))
        kind = "" if row.ranked else ' class="floor"'
        body.append(f"<tr{kind}><td>{html.escape(row.label)}</td>{values}</tr>")
    return (
        f'<div class="wide"><table><thead>{"".join(lines)}</thead>'
        f"<tbody>{''.join(body)}</tbody></table></div>"
    )


def _task_heads(groups: Sequence[str]) -> str:
    heads = [
        (group.capitalize() if group in TASKS else "", groups.count(group))
        for group in dict.fromkeys(groups)
    ]
    return "".join(f'<th class="task first" colspan="{span}">{text}</th>' for text, span in heads)


def _value(text: str, best: bool) -> str:
    mean, *error = text.split(" ± ")
    mean = f"<b>{mean}</b>" if best else mean
    return f"{mean}<small>± {error[0]}</small>" if error else mean


def side_by_side(pictures: Sequence[str]) -> str:
    """Returns pictures in rows, as many per row as fit."""
    return f'<div class="grid">{"".join(pictures)}</div>' if pictures else ""


def facts(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Returns a table of plain text."""
    top = "".join(_cell("th", html.escape(text), "") for text in heads)
    lines = ["".join(_cell("td", html.escape(text), "") for text in row) for row in rows]
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    return (
        f'<div class="wide"><table class="plain"><thead><tr>{top}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def folded(summary: str, content: str) -> str:
    """Returns content that opens on a click."""
    return f"<details><summary>{html.escape(summary)}</summary>{content}</details>"


def choices(group: str, blocks: Sequence[tuple[str, str]]) -> str:
    """Returns blocks (title, HTML) of which one is open at a time, the first one to begin with.

    Args:
      group: name of the group, unique on the page.
      blocks: one of them alone has no title.
    """
    if len(blocks) < 2:
        return "".join(content for _, content in blocks)
    return "".join(
        f'<details name="{html.escape(group)}"{" open" * (number == 0)}>'
        f"<summary>{html.escape(title)}</summary>{content}</details>"
        for number, (title, content) in enumerate(blocks)
    )


def _cell(tag: str, text: str, kind: str) -> str:
    return f'<{tag} class="{kind}">{text}</{tag}>' if kind else f"<{tag}>{text}</{tag}>"
