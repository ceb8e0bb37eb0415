"""Measures how the cost of a step grows, and writes pictures and tables into docs/growth.md.

python docs/growth.py             measures on the devices that JAX finds: minutes, on idle cores
python docs/growth.py --draw      draws and writes again what was measured before
python docs/growth.py --tasks=2,4 measures for these numbers of tasks only

What was measured is in docs/growth_cpu.json or docs/growth_gpu.json.
"""

import argparse
import json
import multiprocessing
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import jax
import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from mtl_jax import models, parallel, tasks
from mtl_jax.bench import growth, speed
from mtl_jax.bench.growth import Cost, Kind
from mtl_jax.commands import memory
from mtl_jax.report.figures import COLOURS, SINGLE_TASK_COLOUR, STYLE
from mtl_jax.runs import workdir
from mtl_jax.weighting import METHODS

DOCS = Path(__file__).parent
NUMBERS = (2, 4, 8, 16)
ROUNDS = 4
CLASSES = 13
EVERY = 10
KINDS = {
    "equal": Kind(METHODS["equal"]()),
    "nash": Kind(METHODS["nash"]()),
    "nash, recomputed": Kind(METHODS["nash"](), "recomputed"),
    "upgrad": Kind(METHODS["upgrad"]()),
    "nash, features": Kind(METHODS["nash"](), "features"),
    "famo": Kind(METHODS["famo"]()),
}
EVERY_TENTH = f"nash, every {EVERY}"
# Name of a step -> the passes that it is made of, see `growth.least`.
LEAST = {
    "equal": {"forward + 1": 1},
    "nash": {"forward + K": 1},
    "nash, recomputed": {"forward + K": 1, "forward + 1": 1, "forward": -1},
    "upgrad": {"forward + K": 1},
    EVERY_TENTH: {"forward + K": 1 / EVERY, "forward + 1": 1 - 1 / EVERY},
    "nash, features": {"forward + 1": 1},
    "famo": {"forward + 1": 1, "forward": 1},
}
COLOUR = dict(zip(LEAST, [*COLOURS[:6], COLOURS[7]], strict=True))
# Steps that cost as much as another are drawn around it.
POINTS = {"marker": "o", "markersize": 4}
RINGS = POINTS | {"markersize": 8, "fillstyle": "none"}
LOOK = dict.fromkeys(LEAST, POINTS) | {"upgrad": RINGS, "nash, features": RINGS}
PASSES_LOOK = {"linestyle": (0, (3, 2)), "linewidth": 1.0}


class Setting(NamedTuple):
    """What a step is measured with.

    Attributes:
      num_tasks: K.
      batch_size: images per step, over all devices.
      image_size: height and width.
      backbone: that of a ResNet-U-Net.
      devices: number of devices.
    """

    num_tasks: int = 4
    batch_size: int = 4
    image_size: tuple[int, int] = (96, 128)
    backbone: str = "resnet18"
    devices: int = 1


Measured = list[tuple[Setting, dict[str, Cost]]]
# In every setting all values but one are those of `START`.
START = {"cpu": Setting(), "gpu": Setting(batch_size=8, image_size=(288, 384))}
VARIED: dict[str, dict[str, Sequence[Any]]] = {
    "cpu": {
        "batch_size": (2, 8),
        "image_size": ((192, 256),),
        "backbone": ("resnet50",),
        "devices": (4,),
    },
    "gpu": {
        "batch_size": (2, 16),
        "image_size": ((144, 192), (192, 256)),
        "backbone": ("resnet50",),
        "devices": (2, 4, 8),
    },
}
# Name of a varied value -> label of its axis, value -> number or text.
AXES = {
    "batch_size": ("images per batch", lambda value: value),
    "image_size": ("thousand pixels per image", lambda value: value[0] * value[1] / 1000),
    "backbone": ("backbone", lambda value: value.replace("resnet", "ResNet-")),
    "devices": ("devices, one batch in all", lambda value: value),
}


def measure(setting: Setting, kinds: Sequence[str], rounds: int = ROUNDS) -> dict[str, Cost]:
    """Returns the costs of steps, names of `KINDS`, and of passes in a setting."""
    chosen = tasks.select(["segmentation", "depth", "normals"])
    network = models.build(
        growth.repeat(chosen, setting.num_tasks),
        num_classes=CLASSES,
        model=f"resnet_unet:backbone={setting.backbone}",
        axis_name=parallel.AXIS,
    )
    batch = speed.synthetic_batch(
        network.tasks,
        image_size=setting.image_size,
        batch_size=setting.batch_size,
        num_classes=CLASSES,
    )
    devices = parallel.choose_devices(setting.devices, setting.batch_size)
    steps = {name: KINDS[name] for name in kinds}
    return growth.measure(steps, network, batch, devices=devices, rounds=rounds)


def settings(platform: str, numbers: Sequence[int], devices: int) -> list[Setting]:
    """Returns the settings to measure: each number of tasks first, and then all else."""
    start = START[platform]
    chosen = [start._replace(num_tasks=number) for number in (*numbers, start.num_tasks)]
    for name, values in VARIED[platform].items():
        chosen += [start._replace(**{name: value}) for value in values]
    return [setting for setting in dict.fromkeys(chosen) if setting.devices <= devices]


def prepare() -> None:
    """Prepares a process that measures."""
    # As launch.py does.
    memory.keep_freed()
    # Simulated devices; most settings use one of them.
    jax.config.update("jax_num_cpu_devices", max(VARIED["cpu"]["devices"]))


def found_devices() -> tuple[str, int]:
    """Returns the platform that JAX finds, and the number of its devices."""
    return jax.default_backend(), len(jax.devices())


def fresh_processes() -> Executor:
    """Returns a pool that runs each function in a process of its own.

    A process that compiles the programs of all settings runs out of memory mappings.
    """
    spawn = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(1, spawn, prepare, max_tasks_per_child=1)


def run(pool: Executor, numbers: Sequence[int]) -> None:
    """Measures all settings, and writes what is known after each of them."""
    found: Measured = []
    platform, devices = pool.submit(found_devices).result()
    for setting in settings(platform, numbers, devices):
        all_else = setting._replace(num_tasks=START[platform].num_tasks) != START[platform]
        kinds = ["equal", "nash"] if all_else else list(KINDS)
        found.append((setting, pool.submit(measure, setting, kinds).result()))
        print(setting, {name: round(cost.milliseconds) for name, cost in found[-1][1].items()})
        rows = [
            {**setting._asdict(), "costs": {name: cost._asdict() for name, cost in costs.items()}}
            for setting, costs in found
        ]
        facts = {"rows": rows, "rounds": ROUNDS, "versions": workdir.versions()}
        workdir.write_json(DOCS / f"growth_{platform}.json", facts)


def read(platform: str) -> Measured:
    """Returns what was measured before."""
    rows = json.loads((DOCS / f"growth_{platform}.json").read_text(encoding="utf-8"))["rows"]
    found = []
    for row in rows:
        costs = {name: Cost(**cost) for name, cost in row.pop("costs").items()}
        found.append((Setting(**row | {"image_size": tuple(row["image_size"])}), costs))
    return found


def by_tasks(measured: Measured, platform: str) -> dict[int, dict[str, Cost]]:
    """Returns the costs for each number of tasks, all else as at the start."""
    start = START[platform]
    found = {
        setting.num_tasks: with_every(costs)
        for setting, costs in measured
        if setting == start._replace(num_tasks=setting.num_tasks)
    }
    return dict(sorted(found.items()))


def with_every(costs: dict[str, Cost]) -> dict[str, Cost]:
    """Adds the mean cost of a step of `nash` with new weights at every tenth of them.

    The steps in between make the passes of `equal`.
    """
    if not {"equal", "nash"} <= costs.keys():
        return costs
    equal, nash = costs["equal"], costs["nash"]
    mean = (nash.milliseconds + (EVERY - 1) * equal.milliseconds) / EVERY
    return {**costs, EVERY_TENTH: Cost(mean, nash.megabytes)}


def curve_of_passes(
    found: Mapping[Any, Mapping[str, Cost]], name: str
) -> tuple[list[Any], list[float]]:
    """Returns where a step and its passes were measured, and the milliseconds of the passes."""
    known = [key for key, costs in found.items() if {name, *LEAST[name]} <= costs.keys()]
    return known, [growth.least(found[key], LEAST[name]) for key in known]


def curve(
    found: Mapping[Any, Mapping[str, Cost]], name: str, field: str
) -> tuple[list[Any], list[float]]:
    """Returns where a step was measured, and its milliseconds or megabytes."""
    known = [key for key, costs in found.items() if name in costs]
    return known, [getattr(found[key][name], field) for key in known]


def draw_time(axes: Axes, found: Mapping[int, Mapping[str, Cost]]) -> None:
    """Draws the time of each step over the number of tasks, and the least of it."""
    for name, colour in COLOUR.items():
        axes.plot(*curve(found, name, "milliseconds"), color=colour, **LOOK[name])
        axes.plot(*curve_of_passes(found, name), color=colour, **PASSES_LOOK)
    axes.set(xlim=(0, None), ylim=(0, None), xlabel="tasks", ylabel="ms", title="Time of a step")


def draw_memory(axes: Axes, found: Mapping[int, Mapping[str, Cost]]) -> None:
    """Draws the memory of each step over the number of tasks."""
    for name, colour in COLOUR.items():
        if name != EVERY_TENTH:
            axes.plot(*curve(found, name, "megabytes"), color=colour, **LOOK[name])
    axes.set(xlim=(0, None), ylim=(0, None), xlabel="tasks", ylabel="MiB")
    axes.set(title="Memory of a step")


def draw_varied(axes: Axes, measured: Measured, platform: str, name: str) -> None:
    """Draws the time of `equal` and `nash` over one of the values other than the tasks."""
    start = START[platform]
    label, convert = AXES[name]
    near = [
        (getattr(setting, name), costs)
        for setting, costs in measured
        if setting == start._replace(**{name: getattr(setting, name)})
    ]
    found = {convert(value): costs for value, costs in sorted(near, key=lambda pair: pair[0])}
    for kind in ("equal", "nash"):
        axes.plot(*curve(found, kind, "milliseconds"), color=COLOUR[kind], **LOOK[kind])
        axes.plot(*curve_of_passes(found, kind), color=COLOUR[kind], **PASSES_LOOK)
    axes.set(ylim=(0, 1.08 * axes.get_ylim()[1]), xlabel=label)
    axes.set(xlim=(-0.5, len(found) - 0.5) if name == "backbone" else (0, None))


def draw(measured: Measured, platform: str) -> Figure:
    """Draws time and memory over the number of tasks, and time over all else."""
    found = by_tasks(measured, platform)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(9.6, 7.2), layout="constrained")
        upper, lower = figure.subfigures(2, 1, height_ratios=[3, 2])
        left, right = upper.subplots(1, 2)
        draw_time(left, found)
        draw_memory(right, found)
        shown = [
            Line2D([], [], color=colour, label=name, **LOOK[name])
            for name, colour in COLOUR.items()
        ]
        shown.append(Line2D([], [], color=SINGLE_TASK_COLOUR, label="its passes", **PASSES_LOOK))
        left.legend(handles=shown, fontsize=8, loc="upper left")
        panels = lower.subplots(1, len(AXES), sharey=False)
        for axes, name in zip(panels, AXES, strict=True):
            draw_varied(axes, measured, platform, name)
        panels[0].set(ylabel="ms", title=f"Time of a step of {START[platform].num_tasks} tasks")
    return figure


def section(measured: Measured, platform: str) -> str:
    """Returns the part of the page that shows what was measured: the picture and the tables."""
    text = "Time and memory of a step over the number of tasks, and time over all else"
    return f"![{text}](growth_{platform}.png)\n\n{tables(measured, platform)}"


def tables(measured: Measured, platform: str) -> str:
    """Returns a table of the time and one of the memory of each step over the number of tasks."""
    found = by_tasks(measured, platform)
    known = [name for name in LEAST if curve(found, name, "milliseconds")[0]]
    heads = " | ".join(f"{number} tasks" for number in found)
    lines = [
        f"| ms per step | {heads} | per task | per task, passes alone | difference |",
        f"|:--|{'--:|' * (len(found) + 3)}",
        *(time_row(found, name) for name in known),
        "",
        f"| MiB | {heads} | per task |",
        f"|:--|{'--:|' * (len(found) + 1)}",
        *(memory_row(found, name) for name in known if name != EVERY_TENTH),
    ]
    return "\n".join(lines)


def time_row(found: Mapping[int, Mapping[str, Cost]], name: str) -> str:
    """Returns the row of a step in the table of times."""
    cells = [number(costs, name, "milliseconds") for costs in found.values()]
    numbers, milliseconds = curve(found, name, "milliseconds")
    ends, (known, least) = ["–"] * 3, curve_of_passes(found, name)
    if len(numbers) > 1:
        ends[0] = f"{growth.slope(numbers, milliseconds):.1f}"
        if known == numbers:
            ratio = growth.slope(numbers, milliseconds) / growth.slope(known, least)
            ends[1:] = f"{growth.slope(known, least):.1f}", f"{round(100 * (ratio - 1)):+d} %"
    return f"| `{name}` | {' | '.join([*cells, *ends])} |"


def memory_row(found: Mapping[int, Mapping[str, Cost]], name: str) -> str:
    """Returns the row of a step in the table of memory."""
    cells = [number(costs, name, "megabytes") for costs in found.values()]
    numbers, megabytes = curve(found, name, "megabytes")
    grown = f"{growth.slope(numbers, megabytes):.0f}" if len(numbers) > 1 else "–"
    return f"| `{name}` | {' | '.join([*cells, grown])} |"


def number(costs: Mapping[str, Cost], name: str, field: str) -> str:
    """Returns a cell of a table, with a dash for what was not measured."""
    if name not in costs:
        return "–"
    value = getattr(costs[name], field)
    return f"{value:.1f}" if value < 100 and field == "milliseconds" else f"{value:.0f}"


def write(measured: Measured, platform: str) -> None:
    """Draws the picture, and puts it and the tables between their marks in the page."""
    draw(measured, platform).savefig(DOCS / f"growth_{platform}.png", dpi=110)
    page = DOCS / "growth.md"
    begin, end = f"<!-- measured: {platform} -->\n\n", "\n\n<!-- end -->"
    before, rest = page.read_text(encoding="utf-8").split(begin)
    after = rest.split(end, 1)[1]
    text = f"{before}{begin}{section(measured, platform)}{end}{after}"
    page.write_text(text, encoding="utf-8")


def main() -> None:
    """Measures, unless only drawing is asked for, and writes pictures and tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--draw", action="store_true", help="draw what was measured before")
    parser.add_argument("--tasks", default=",".join(map(str, NUMBERS)), help="numbers of tasks")
    args = parser.parse_args()
    if not args.draw:
        with fresh_processes() as pool:
            run(pool, [int(text) for text in args.tasks.split(",")])
    for platform in START:
        if (DOCS / f"growth_{platform}.json").exists():
            write(read(platform), platform)


if __name__ == "__main__":
    main()
