"""What the other tasks are worth in labels: mIoU over the part of the images that are labelled."""

import math
from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from mtl_jax.report.figures import STYLE, colours
from mtl_jax.report.rows import mean_and_error
from mtl_jax.report.runs import Run
from mtl_jax.report.settings import TITLES, protocol

ALONE = "Segmentation alone"
METRIC = "segmentation/miou"
# Arm -> part of the images with labels -> mIoU of each seed, in percent.
Gains = dict[str, dict[float, list[float]]]


def collect(runs: Sequence[Run]) -> Gains:
    """The mIoU of finished runs that learn segmentation, arms in the order of their first runs.

    Nothing if they are not of one data set, size, backbone and length. Runs that start from
    pretrained weights are arms of their own beside such that don't.
    """
    gains: Gains = {}
    runs = [run for run in runs if run.result and METRIC in run.result.metrics]
    if len({protocol(run.config) for run in runs}) > 1:
        return gains
    mixed = len({bool(run.config.get("pretrained")) for run in runs}) > 1
    for run in runs:
        part = float(run.config.get("label_fraction", 1.0))
        suffix = ", pretrained" if mixed and run.config.get("pretrained") else ""
        arm = gains.setdefault(_arm(run) + suffix, {})
        arm.setdefault(part, []).append(100.0 * run.result.metrics[METRIC])
    return {arm: dict(sorted(parts.items())) for arm, parts in gains.items()}


def is_study(gains: Gains) -> bool:
    """Whether there is a curve to draw: several parts, of segmentation alone among others."""
    parts = {part for arm in gains.values() for part in arm}
    return len(parts) > 1 and ALONE in gains and len(gains) > 1


def parts_needed(alone: Mapping[float, Sequence[float]], miou: float) -> float | None:
    """The part of the labels with which segmentation alone reaches a mIoU; None if with none.

    Interpolated between the parts that were tried, in the logarithm of the part.
    """
    parts = sorted(alone)
    means = [mean_and_error(alone[part])[0] for part in parts]
    for (low, below), (high, above) in zip(
        zip(parts, means, strict=True), list(zip(parts, means, strict=True))[1:], strict=False
    ):
        if below <= miou <= above and above > below:
            way = (miou - below) / (above - below)
            return math.exp((1 - way) * math.log(low) + way * math.log(high))
    return None


def to_markdown(gains: Gains) -> str:
    """mIoU of each arm and part, with standard errors, and the labels that it saves.

    Labels are saved if segmentation alone needs more of them for the same mIoU.
    """
    parts = sorted({part for arm in gains.values() for part in arm})
    lines = ["| mIoU % ↑ | " + " | ".join(_part(part) for part in parts) + " |"]
    lines.append("|:--" + "|--:" * len(parts) + "|")
    for arm, values in gains.items():
        cells = [_cell(gains, arm, part) if part in values else "–" for part in parts]
        lines.append(f"| {arm} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


@matplotlib.rc_context(STYLE)
def gain_figure(gains: Gains) -> Figure:
    """mIoU of each arm over the part of the images with labels, with standard errors."""
    figure = Figure(figsize=(6.4, 4.0), layout="constrained")
    axes = figure.subplots()
    palette = colours(list(gains), [ALONE])
    for arm, values in gains.items():
        means, errors = zip(*(mean_and_error(seeds) for seeds in values.values()), strict=True)
        errors = [error or 0.0 for error in errors]
        axes.errorbar(
            list(values), means, errors, color=palette[arm], label=arm, marker="o", markersize=4,
            capsize=3, linestyle="--" if arm == ALONE else "-",
        )  # fmt: skip
    parts = sorted({part for arm in gains.values() for part in arm})
    axes.set_xscale("log")
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xticks(parts, [_part(part) for part in parts])
    axes.set(xlabel="part of the images with segmentation labels", ylabel="mIoU / %")
    axes.legend()
    return figure


def _arm(run: Run) -> str:
    others = [task for task in run.tasks if task != "segmentation"]
    if not others:
        return ALONE
    weighting = str(run.config.get("weighting"))
    return f"+ {' + '.join(others)}, {TITLES.get(weighting, weighting)}"


def _part(part: float) -> str:
    inverse = 1.0 / part
    return (
        f"1/{round(inverse)}" if part < 1 and abs(inverse - round(inverse)) < 0.02 else f"{part:g}"
    )


def _cell(gains: Gains, arm: str, part: float) -> str:
    mean, error = mean_and_error(gains[arm][part])
    text = f"{mean:.2f}" if error is None else f"{mean:.2f} ± {error:.2f}"
    needed = None if arm == ALONE else parts_needed(gains[ALONE], float(np.round(mean, 6)))
    if needed is None:
        return text
    return f"{text} ({100 * (1 - part / needed):+.0f} % labels saved)"
