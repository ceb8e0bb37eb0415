"""Draws docs/inference.png from the tables of docs/inference.md and docs/results.md.

python docs/inference.py
"""

import re
from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mtl_jax.report.figures import COLOURS, SINGLE_TASK_COLOUR, STYLE

DOCS = Path(__file__).parent
FORMS = ("one network", "one per task")
# The network of the runs whose quality is shown.
TRAINED = "ResNet-18"
LABELLED = ("FairGrad", "Nash-MTL", "Equal weights", "MoCo")
# Delta-m in percent; weightings that are worse are left out.
WORST = 20.0


def table(page: str, *, column: str) -> list[dict[str, str]]:
    """Returns the rows of a page's first table with a column, as texts by the heads of columns."""
    lines = (DOCS / page).read_text(encoding="utf-8").splitlines()
    found = [cells(line) if line.startswith("|") else [] for line in lines]
    start = next(number for number, heads in enumerate(found) if column in heads)
    rows = []
    for row in found[start + 2 :]:
        if not row:
            break
        rows.append(dict(zip(found[start], row, strict=True)))
    return rows


def cells(line: str) -> list[str]:
    """Returns the texts of the cells in a row of a Markdown table."""
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def costs() -> dict[str, tuple[list[float], list[float]]]:
    """Returns the costs of networks for one image at a time: one for all tasks, and one per task.

    Returns:
      Network -> parameters in millions, and ms per image.
    """
    columns = [f"parameters, {x}, M" for x in FORMS], [f"ms per image, {x}" for x in FORMS]
    sizes, times = (table("inference.md", column=names[0]) for names in columns)
    single = [row for row in times if row["images"] == "1"]
    return {
        row["network"]: ([float(row[x]) for x in columns[0]], [float(time[x]) for x in columns[1]])
        for row, time in zip(sizes, single, strict=True)
    }


def gains() -> dict[str, float]:
    """Returns Delta-m by metrics of each weighting in percent."""
    rows = table("results.md", column="Δm by metrics % ↓")
    texts = {row[""]: re.match(r"[+-][\d.]+", row["Δm by metrics % ↓"]) for row in rows}
    return {name: float(found[0]) for name, found in texts.items() if found}


def draw_costs(axes: Axes, found: dict[str, tuple[list[float], list[float]]]) -> None:
    """Draws a line for each network, from one for all tasks to one per task."""
    for (network, (parameters, times)), colour in zip(found.items(), COLOURS, strict=False):
        axes.plot(parameters, times, color=colour, label=network)
        axes.plot(parameters[:1], times[:1], "o", color=colour, markersize=7)
        axes.plot(parameters[1:], times[1:], "o", color=colour, markersize=7, fillstyle="none")
    axes.plot([], [], "o", color=SINGLE_TASK_COLOUR, label="one network for three tasks")
    axes.plot([], [], "o", color=SINGLE_TASK_COLOUR, fillstyle="none", label="three networks")
    # With room for the legend.
    most = max(times[1] for _, times in found.values())
    axes.set(xlim=(0, None), ylim=(0, 1.5 * most), xlabel="parameters / million")
    axes.set(ylabel="ms per image", title="Cost of three tasks")
    axes.legend(fontsize=8, loc="upper left", ncols=2)


def draw_quality(axes: Axes, times: list[float], found: dict[str, float]) -> None:
    """Draws Delta-m of each weighting over the time of its network."""
    shown = {name: gain for name, gain in found.items() if gain <= WORST}
    together, alone = times
    axes.plot([together] * len(shown), shown.values(), "o", color=COLOURS[0], alpha=0.6)
    for name in LABELLED:
        axes.annotate(
            name, (together, shown[name]), (8, 0), textcoords="offset points", va="center"
        )
    axes.plot([alone], [0.0], "o", color=COLOURS[0], fillstyle="none", markersize=7)
    axes.annotate("three networks", (alone, 0.0), (-8, 0), textcoords="offset points", ha="right")
    axes.invert_yaxis()
    axes.set(xlim=(0, 1.15 * alone), xlabel="ms per image")
    axes.set(ylabel="Delta-m / %, better upwards", title=f"Quality, {TRAINED} on rooms")


def draw() -> Figure:
    """Draws the cost of each network, and what is known of the quality at that cost."""
    found = costs()
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(9.6, 3.9), layout="constrained")
        left, right = figure.subplots(1, 2)
        draw_costs(left, found)
        draw_quality(right, found[TRAINED][1], gains())
    return figure


if __name__ == "__main__":
    draw().savefig(DOCS / "inference.png", dpi=110)
