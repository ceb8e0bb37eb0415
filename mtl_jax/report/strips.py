"""Strips of image | true | predicted, as papers print them."""

import math
from collections.abc import Mapping, Sequence
from functools import partial

import matplotlib
import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from mtl_jax.report.figures import STYLE
from mtl_jax.report.runs import Run
from mtl_jax.tasks import class_colours

TITLES = {
    "image": "Image",
    "segmentation": "True classes",
    "predicted_segmentation": "Predicted classes",
    "depth": "True depth",
    "predicted_depth": "Predicted depth",
    "normals": "True normals",
    "predicted_normals": "Predicted normals",
}
# In inches: a picture's width, the titles' height.
TILE = 1.75
HEADER = 0.28
LEGEND_COLUMNS = 4
DEPTH_MAP = "viridis_r"
# In metres: beyond it a depth is that of a network that diverged.
FARTHEST = 1e6


def paint_segmentation(labels: np.ndarray, num_classes: int) -> np.ndarray:
    """Class labels [..., H, W] as uint8[..., H, W, 3]; void (-1) is black."""
    palette = np.concatenate([np.zeros((1, 3), np.uint8), class_colours(num_classes)])
    return palette[np.clip(np.asarray(labels, np.int64), -1, num_classes - 1) + 1]


def paint_depth(depth: np.ndarray, nearest: float, farthest: float) -> np.ndarray:
    """Depth [..., H, W] in metres as uint8[..., H, W, 3]; 0 or NaN is black."""
    depth = np.asarray(depth, np.float64)
    missing = ~(depth > 0)
    scaled = Normalize(nearest, farthest, clip=True)(np.where(missing, nearest, depth))
    colours = matplotlib.colormaps[DEPTH_MAP](np.asarray(scaled), bytes=True)[..., :3]
    return np.where(missing[..., None], np.uint8(0), colours)


def paint_normals(normals: np.ndarray) -> np.ndarray:
    """Normals [..., H, W, 3] (x right, y down, z forward) as uint8; zero or NaN is black."""
    # A unit vector has no larger entries; a broken one must not overflow.
    normals = np.clip(np.nan_to_num(np.asarray(normals, np.float64)), -2.0, 2.0)
    viewed = normals * np.array([1, -1, -1], np.float32)
    colours = np.clip(np.round(127.5 * (viewed + 1.0)), 0, 255).astype(np.uint8)
    return np.where(np.any(normals != 0, axis=-1, keepdims=True), colours, np.uint8(0))


def depth_range(samples: Mapping[str, np.ndarray]) -> tuple[float, float]:
    """Nearest and farthest true depth in metres; of the predictions where no depth is known."""
    for name in ("depth", "predicted_depth"):
        depth = np.asarray(samples.get(name, ()), np.float64)
        known = depth[(depth > 0) & (depth < FARTHEST)]
        if known.size and known.min() < known.max():
            return float(known.min()), float(known.max())
    return 0.0, 1.0


@matplotlib.rc_context(STYLE)
def strip_figure(
    samples: Mapping[str, np.ndarray], class_names: Sequence[str] = (), *, rows: int = 6
) -> Figure:
    """Rows of image | true | predicted for each task that the samples hold.

    Args:
      samples: `image` u8[n, H, W, 3] and, as far as they exist, `segmentation` i[n, H, W]
        (-1 void), `depth` f[n, H, W] in metres (0 missing), `normals` f[n, H, W, 3] (x right,
        y down, z forward; zero missing) and the same with `predicted_` before the name.
      class_names: by index; classes beyond them are numbered.
      rows: how many of the samples to draw at most.

    Returns:
      A figure of one axes a picture, with a legend of the classes that occur, one depth scale for
      all pictures and a key to the normals' colours below.
    """
    samples = {name: array[:rows] for name, array in samples.items()}
    # A class that has no name still has its own colour.
    numbered = range(len(class_names), max(_classes(samples), default=0) + 1)
    names = [*class_names, *(f"class {i}" for i in numbered)]
    columns = paint(samples, len(names))
    count, height, width = samples["image"].shape[:3]
    entries = _legend_entries(samples, names)
    footer = max(0.75, 0.2 + 0.17 * math.ceil(len(entries) / LEGEND_COLUMNS))
    inches = TILE * len(columns), TILE * height / width * count + HEADER + footer
    figure = Figure(figsize=inches)
    grid = figure.subplots(
        count, len(columns), squeeze=False,
        gridspec_kw={
            "left": 0.0, "right": 1.0, "wspace": 0.03, "hspace": 0.03 * width / height,
            "top": 1.0 - HEADER / inches[1], "bottom": footer / inches[1],
        },
    )  # fmt: skip
    for axes, (name, pictures) in zip(grid.T, columns.items(), strict=True):
        for tile, picture in zip(axes, pictures, strict=True):
            tile.imshow(picture, interpolation="nearest", aspect="auto")
            tile.set_axis_off()
        axes[0].set_title(TITLES[name], loc="center", fontsize=9.5)
    _footer(figure, list(columns), entries, depth_range(samples), footer)
    return figure


def paint(samples: Mapping[str, np.ndarray], num_classes: int) -> dict[str, np.ndarray]:
    """The pictures u8[n, H, W, 3] of a strip's columns, from left to right."""
    nearest, farthest = depth_range(samples)
    painters = {
        "image": np.asarray,
        "segmentation": partial(paint_segmentation, num_classes=num_classes),
        "depth": partial(paint_depth, nearest=nearest, farthest=farthest),
        "normals": paint_normals,
    }
    painted = {
        name: painters[name.removeprefix("predicted_")] for name in TITLES if name in samples
    }
    return {name: painter(samples[name]) for name, painter in painted.items()}


def merge_samples(runs: Sequence[Run]) -> list[dict[str, np.ndarray]]:
    """Samples of the same images in one: of each task the first run's that has it.

    The single-task runs of one setting make one strip of all the tasks in this way.
    """
    merged: list[dict[str, np.ndarray]] = []
    for run in runs:
        image = run.samples["image"]
        same = next((one for one in merged if np.array_equal(one["image"], image)), None)
        if same is None:
            merged.append(dict(run.samples))
        else:
            same |= {name: array for name, array in run.samples.items() if name not in same}
    return merged


def _footer(
    figure: Figure,
    columns: Sequence[str],
    entries: Sequence[Patch],
    limits: tuple[float, float],
    height: float,
) -> None:
    """Legend of the classes, scale of the depths, key to the normals, each under its columns."""
    inch = 1.0 / figure.get_figheight()
    top = (height - 0.08) * inch
    tasks = [name.removeprefix("predicted_") for name in columns]
    place = {task: tasks.index(task) / len(tasks) for task in tasks}
    if entries:
        figure.legend(
            handles=entries, loc="upper left", bbox_to_anchor=(0.0, top), ncols=LEGEND_COLUMNS,
            fontsize=8, handlelength=1.0, handleheight=1.0, columnspacing=1.2, labelspacing=0.35,
            borderpad=0.1,
        )  # fmt: skip
    if "depth" in tasks:
        width = tasks.count("depth") / len(tasks)
        box = (place["depth"] + 0.05 * width, top - 0.2 * inch, 0.9 * width, 0.12 * inch)
        scale = ScalarMappable(Normalize(*limits), DEPTH_MAP)
        bar = figure.colorbar(scale, cax=figure.add_axes(box), orientation="horizontal")
        bar.set_label("depth / m", labelpad=1)
        bar.outline.set_visible(False)
    if "normals" in tasks:
        side = 0.58 * inch
        left = place["normals"] + 0.3 / len(tasks)
        axes = figure.add_axes((left, top - side, 0.58 / figure.get_figwidth(), side))
        axes.imshow(normals_key(200), aspect="auto")
        axes.set_axis_off()
        axes.text(
            1.15, 0.5, "x right, y up,\nz to the viewer",
            transform=axes.transAxes, va="center", fontsize=8,
        )  # fmt: skip


def normals_key(size: int) -> np.ndarray:
    """A sphere u8[size, size, 3] whose normals are painted, on white."""
    x, y = np.meshgrid(*2 * [np.linspace(-1.02, 1.02, size, dtype=np.float32)])
    outside = x**2 + y**2 > 1
    z = -np.sqrt(np.maximum(1 - x**2 - y**2, 0))
    colours = paint_normals(np.stack([x, y, z], axis=-1))
    return np.where(outside[..., None], np.uint8(255), colours)


def _legend_entries(samples: Mapping[str, np.ndarray], names: Sequence[str]) -> list[Patch]:
    colours = class_colours(len(names)) / 255.0
    entries = [Patch(facecolor=colours[i], label=names[i]) for i in _classes(samples)]
    return [*entries, Patch(facecolor="black", label="void")] if entries else []


def _classes(samples: Mapping[str, np.ndarray]) -> list[int]:
    """Classes that occur as truth or prediction, in order."""
    maps = [samples[name] for name in ("segmentation", "predicted_segmentation") if name in samples]
    return sorted({int(index) for labels in maps for index in np.unique(labels) if index >= 0})
