"""Delta-m and the single-task runs that it is measured against."""

import pytest

from mtl_jax.report import tables
from mtl_jax.report.grouping import group_runs
from mtl_jax.report.notes import table_notes
from mtl_jax.report.read import read_runs
from mtl_jax.report.rows import result_rows
from mtl_jax.report.wording import describe
from tests.report.literature import (
    METRICS,
    NAMES,
    NASH,
    SINGLE,
    WITHOUT_DEPTH,
    named,
    of_task,
    parse,
    rows_of,
)


def test_delta_m_by_tasks_averages_each_tasks_metrics_first(literature):
    higher = [METRICS[name].higher_is_better for name in NAMES]
    drops = [
        (-1 if up else 1) * (value - base) / base
        for up, value, base in zip(higher, NASH, SINGLE, strict=True)
    ]
    means = [sum(drops[:2]) / 2, sum(drops[2:4]) / 2, sum(drops[4:]) / 5]
    row = rows_of(*literature)[2]
    assert row.label == "Nash-MTL"
    assert row.values["delta_m/tasks"] == pytest.approx([100 * sum(means) / 3])
    assert row.values["delta_m/metrics"] == pytest.approx([100 * sum(drops) / 9])


def test_no_delta_m_without_a_single_task_run_of_each_task(literature, write_run):
    rows = rows_of(*literature[1:])
    assert not any("delta_m/metrics" in row.values for row in rows)
    heads, _ = parse(tables.to_markdown(tables.standard_table(rows)))
    assert not any("Δm" in head for head in heads)
    # Two of the tasks need two single-task runs.
    two = {**of_task(SINGLE, "depth"), **of_task(NASH, "normals")}
    path = write_run("two", tasks=("depth", "normals"), weighting="uw", metrics=two)
    by_label = {row.label: row for row in rows_of(*literature[1:3], path)}
    normals = sum(
        (-1 if METRICS[name].higher_is_better else 1) * (two[name] / named(SINGLE)[name] - 1)
        for name in NAMES[4:]
    )
    assert by_label["UW"].values["delta_m/metrics"] == pytest.approx([100 * normals / 7])


@pytest.mark.parametrize(
    "other",
    [{"dataset": "nyu"}, {"image_size": [1, 2]}, {"model": "resnet_unet"}, {"epochs": 3},
     {"dataset": "rooms:test=7"}, {"metric_protocol": "mtan"}, {"model": "mtan"},
     {"label_fraction": 0.125}, {"validation": 95}, {"pretrained": "free-{seed}.pth"},
     {"precision": "bfloat16"}, {"batch_size": 2}, {"learning_rate": 0.1}, {"augment": False},
     {"depth_loss": "stereo"}, {"a_flag_added_later": 0}],
)  # fmt: skip
def test_no_delta_m_against_runs_of_another_protocol(literature, write_run, other):
    path = write_run("other", weighting="uw", metrics=named(NASH), **other)
    rows = rows_of(*literature[:3], path)
    assert len(rows) == 2
    assert "delta_m/metrics" not in rows[1].values
    groups = group_runs(read_runs([*literature[:3], path]))
    ((key, value),) = other.items()
    (line,) = [x for x in table_notes(groups, rows) if x.startswith("No Δm for UW")]
    reading = {"label_fraction": "segmentation", "depth_loss": "depth"}
    tasks = reading.get(key, "segmentation, depth and normals")
    assert f"the single-task runs of {tasks} differ in " in line
    assert f"{key} (" in line
    assert describe(key, value).split()[-1] in line.replace(", 2)", ", 1×2)")


def test_a_baseline_may_differ_in_what_its_task_does_not_read(literature, write_run):
    stereo = {"depth_loss": "stereo"}
    path = write_run("other", weighting="uw", metrics=named(NASH), **stereo)
    depth = write_run("alone", tasks=("depth",), metrics=of_task(NASH, "depth"), **stereo)
    by_label = {row.label: row for row in rows_of(*literature[:3], depth, path)}
    (label,) = [label for label in by_label if label.startswith("UW")]
    drops = [
        0.0
        if name.startswith("depth/")
        else (-1 if METRICS[name].higher_is_better else 1) * (named(NASH)[name] / base - 1)
        for name, base in named(SINGLE).items()
    ]
    found = by_label[label].values["delta_m/metrics"]
    assert found == pytest.approx([100 * sum(drops) / len(drops)])


def test_a_training_of_a_task_counts_once_in_the_baseline(write_run):
    """Depth reads no segmentation labels: with a part of them, seed 0 is the same training."""
    names = ("depth/absolute_error", "depth/relative_error")
    paths = [
        write_run(f"{part}-{seed}", tasks=("depth",), label_fraction=part, label_seed=seed,
                  seed=seed, metrics=dict.fromkeys(names, error))
        for part, seed, error in ((0.5, 0, 1.0), (1.0, 0, 1.0), (0.5, 1, 2.0))
    ] + [
        write_run("normals", tasks=("normals",), metrics=of_task(SINGLE, "normals")),
        write_run("both", tasks=("depth", "normals"), weighting="uw",
                  metrics=of_task(SINGLE, "normals") | dict.fromkeys(names, 3.0)),
    ]  # fmt: skip
    row = rows_of(*paths)[-1]
    # Of the mean 1.5 of both seeds, 3.0 is twice as much; the normals are those of their baseline.
    assert row.values["delta_m/tasks"] == pytest.approx([50.0])


def test_each_row_has_the_baseline_of_its_own_settings(literature, write_run):
    halved = [value / 2 for value in SINGLE]
    small = [
        write_run(f"small-{task}", tasks=(task,), batch_size=2, metrics=of_task(halved, task))
        for task in ("segmentation", "depth", "normals")
    ]
    path = write_run("uw", weighting="uw", batch_size=2, metrics=named(halved))
    rows = {row.label: row for row in rows_of(*small, *literature, path)}
    assert rows["UW (batch_size 2)"].values["delta_m/metrics"] == pytest.approx([0.0])
    nash = rows["Nash-MTL (batch_size 8)"].values["delta_m/metrics"]
    assert nash == pytest.approx([-4.05], abs=0.005)


def test_a_baseline_of_zero_gives_no_delta_m(literature, write_run):
    zero = write_run("zero", tasks=("segmentation",), metrics={NAMES[0]: 0.0, NAMES[1]: 0.5})
    groups = group_runs(read_runs([zero, *literature[1:]]))
    rows = result_rows(groups)
    assert not any("delta_m/metrics" in row.values for row in rows)
    assert (
        "No Δm for Equal weights, Nash-MTL: mIoU of the single-task runs is 0, from which no drop "
        "is relative."
    ) in table_notes(groups, rows)


def test_a_run_of_unknown_tasks_gives_no_delta_m(literature, write_run):
    path = write_run("new", tasks=("edges",), weighting="uw", metrics={"edges/f": 0.5})
    assert "delta_m/metrics" not in rows_of(*literature, path)[-2].values


def test_single_task_runs_of_which_one_failed_are_no_baseline(literature, write_run):
    lacking = {n: x for n, x in WITHOUT_DEPTH.items() if n.startswith("depth")}
    failed = write_run("failed", tasks=("depth",), seed=1, metrics=lacking)
    groups = group_runs(read_runs([*literature, failed]))
    (line,) = [x for x in table_notes(groups, result_rows(groups)) if x.startswith("No Δm")]
    assert line.endswith("AbsErr and RelErr of the single-task runs is not finite.")


def test_a_missing_single_task_run_is_named(literature):
    groups = group_runs(read_runs(literature[1:]))
    (line,) = [x for x in table_notes(groups, result_rows(groups)) if x.startswith("No Δm")]
    assert line == (
        "No Δm for Equal weights, Nash-MTL: there is no finished single-task run of segmentation "
        "(--tasks=segmentation trains one, and --mode=sweep includes them)."
    )


def test_several_missing_single_task_runs_are_named_and_how_to_make_them(literature):
    groups = group_runs(read_runs(literature[3:]))
    (line,) = [x for x in table_notes(groups, result_rows(groups)) if x.startswith("No Δm")]
    assert line == (
        "No Δm for Equal weights, Nash-MTL: there are no finished single-task runs of "
        "segmentation, depth or normals (--tasks=segmentation trains one of them, and --mode=sweep "
        "includes them)."
    )


def test_single_task_runs_alone_need_no_delta_m(literature):
    groups = group_runs(read_runs(literature[:3]))
    rows = result_rows(groups)
    assert not any(line.startswith("No Δm") for line in table_notes(groups, rows))
    assert not any("delta_m/metrics" in row.values for row in rows)
