"""Results of the multi-task literature on NYU-Depth V2, and how tables of runs are read."""

from mtl_jax.report.grouping import group_runs
from mtl_jax.report.read import read_runs
from mtl_jax.report.rows import result_rows
from tests.fakes import TASKS

METRICS = {metric.name: metric for task in TASKS.values() for metric in task.metrics}
NAMES = [metric.name for metric in METRICS.values() if metric.standard]
# Results on NYU-Depth V2 in the multi-task literature, with the Delta-m printed next to them.
SINGLE = [0.3830, 0.6376, 0.6754, 0.2780, 25.01, 19.21, 0.3014, 0.5720, 0.6915]
NASH = [0.4013, 0.6593, 0.5261, 0.2171, 25.26, 20.08, 0.2840, 0.5547, 0.6815]
EQUAL = [0.3929, 0.6533, 0.5493, 0.2263, 28.15, 23.96, 0.2209, 0.4750, 0.6108]
FLOOR = [0.02, 0.28, 0.9, 0.4, 60.0, 61.0, 0.05, 0.1, 0.2]


def named(values):
    return dict(zip(NAMES, values, strict=True))


def of_task(values, task):
    return {name: value for name, value in named(values).items() if name.startswith(task)}


WITHOUT_DEPTH = {n: None if n.startswith("depth") else x for n, x in named(NASH).items()}


def rows_of(*paths):
    return result_rows(group_runs(read_runs(paths)))


def parse(markdown):
    """Rows of a Markdown table: label -> cells."""
    lines = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in markdown.splitlines()
    ]
    assert len({len(line) for line in lines}) == 1
    return lines[0][1:], {line[0]: line[1:] for line in lines[2:]}
