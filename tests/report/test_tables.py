"""The tables of a report: rows, ranks, bold values, notes and CSV."""

import csv
import io
import math
import re

import pytest

from mtl_jax.report import tables
from mtl_jax.report.grouping import group_runs
from mtl_jax.report.notes import DELTA_M_MEANING, missing_notes, table_notes
from mtl_jax.report.read import read_runs
from mtl_jax.report.rows import result_rows
from mtl_jax.report.spread import mean_and_error
from tests.report.literature import (
    EQUAL,
    NAMES,
    NASH,
    SINGLE,
    WITHOUT_DEPTH,
    named,
    of_task,
    parse,
    rows_of,
)


def test_the_literatures_table(literature):
    heads, body = parse(tables.to_markdown(tables.standard_table(rows_of(*literature))))
    assert heads == [
        "mIoU % ↑", "PixAcc % ↑", "AbsErr m ↓", "RelErr ↓", "Mean° ↓", "Median° ↓",
        "<11.25° % ↑", "<22.5° % ↑", "<30° % ↑", "Δm by metrics % ↓", "Δm by tasks % ↓",
        "Mean rank ↓", "ms per step ↓",
    ]  # fmt: skip
    assert list(body) == ["Single task", "Equal weights", "Nash-MTL", "Trivial predictor"]
    assert body["Single task"] == [
        "38.30", "63.76", "0.6754", "0.2780", "**25.01**", "**19.21**", "**30.14**", "**57.20**",
        "**69.15**", "–", "–", "1.89", "–",
    ]  # fmt: skip
    assert body["Nash-MTL"][:4] == ["**40.13**", "**65.93**", "**0.5261**", "**0.2171**"]
    # As the literature prints them: -4.04 (from unrounded results) and 5.59.
    assert body["Nash-MTL"][9] == "**-4.05**"
    assert body["Equal weights"][9] == "+5.59"
    assert body["Trivial predictor"] == [
        "2.00", "28.00", "0.9000", "0.4000", "60.00", "61.00", "5.00", "10.00", "20.00",
        "–", "–", "–", "–",
    ]  # fmt: skip


def test_seeds_are_averaged_with_their_standard_error(literature, write_run):
    seeds = [
        write_run(f"uw-{seed}", weighting="uw", seed=seed, metrics=named(EQUAL) | {NAMES[0]: value})
        for seed, value in enumerate((0.40, 0.42, 0.47))
    ]
    rows = rows_of(*literature, *seeds)
    _, body = parse(tables.to_markdown(tables.standard_table(rows)))
    # Mean 43; squared deviations 9 + 1 + 16 over 2 is 13; sqrt(13 / 3) = 2.08.
    assert body["UW"][0] == "**43.00 ± 2.08**"
    assert body["UW"][1] == "65.33 ± 0.00"
    # Delta-m of the seeds differs by their mIoU alone, a ninth of it by metrics.
    assert body["UW"][9].endswith(f"± {100 * 0.0208167 / 0.383 / 9:.2f}")
    assert "± is the standard error" in " ".join(table_notes(group_runs(read_runs(seeds)), rows))


@pytest.mark.parametrize(
    ("values", "mean", "error"),
    [([2.0], 2.0, None), ([1.0, 3.0], 2.0, 1.0), ([1.0, 2.0, 6.0], 3.0, math.sqrt(7 / 3))],
)
def test_mean_and_error(values, mean, error):
    assert mean_and_error(values) == (pytest.approx(mean), error and pytest.approx(error))


def test_rows_of_two_datasets_compete_and_end_apart(write_run):
    paths = [
        write_run(f"{dataset}-{weighting}", dataset=dataset, weighting=weighting,
                  metrics={"depth/absolute_error": value},
                  result={"floor": {"depth/absolute_error": 0.01}})
        for dataset, weighting, value in (
            ("a", "uw", 0.5), ("a", "nash", 0.4), ("b", "uw", 0.2), ("b", "nash", 0.3),
        )
    ]  # fmt: skip
    _, body = parse(tables.to_markdown(tables.standard_table(rows_of(*paths))))
    assert body == {
        "UW (a)": ["0.5000"],
        "Nash-MTL (a)": ["**0.4000**"],
        "Trivial predictor (a)": ["0.0100"],
        "UW (b)": ["**0.2000**"],
        "Nash-MTL (b)": ["0.3000"],
        "Trivial predictor (b)": ["0.0100"],
    }


def test_numbers_averaged_otherwise_do_not_compete(write_run):
    paths = [
        write_run(protocol, weighting="uw", metric_protocol=protocol, precision="bfloat16",
                  metrics={"depth/absolute_error": value},
                  result={"floor": {"depth/absolute_error": floor}})
        for protocol, value, floor in (("pooled", 0.5, 0.8), ("mtan", 0.4, 0.7))
    ]  # fmt: skip
    _, body = parse(tables.to_markdown(tables.standard_table(rows_of(*paths))))
    assert [values for values in body.values()] == [["0.5000"], ["0.8000"], ["0.4000"], ["0.7000"]]
    floors = [label for label in body if label.startswith("Trivial")]
    assert ["mtan" in label for label in floors] == [False, True]
    assert not any("13" in label for label in floors)


@pytest.mark.parametrize(
    ("more", "names"),
    [
        ({"batch_size": 2, "learning_rate": 0.1, "label_fraction": 0.5, "model": "mtan"}, ["", ""]),
        ({"image_size": [48, 64], "batch_size": 2}, [" (96×128)", " (48×64)"]),
        ({"validation": 50, "batch_size": 2}, ["", " (validation 50)"]),
        ({"dataset": "folder", "folder": "/a/cats", "data": "cats-0123456789"},
         [" (rooms)", " (folder cats)"]),
    ],
)  # fmt: skip
def test_the_trivial_predictor_is_named_after_what_it_depends_on(write_run, more, names):
    """Its values differ, so that each run has a row of it."""
    paths = [
        write_run(name, metrics={"depth/absolute_error": 0.5}, **settings,
                  result={"floor": {"depth/absolute_error": floor}})
        for name, settings, floor in (("a", {}, 0.8), ("b", more, 0.7))
    ]  # fmt: skip
    rows = [row.label for row in rows_of(*paths) if not row.ranked]
    assert rows == [f"Trivial predictor{name}" for name in names]


def test_the_tasks_tell_trivial_predictors_apart(write_run):
    paths = [
        write_run(name, tasks=tasks, batch_size=size, metrics={"depth/absolute_error": 0.5},
                  result={"floor": dict.fromkeys([f"{task}/rmse" for task in tasks], 0.8)})
        for name, tasks, size in (("a", ("depth", "normals"), 8), ("b", ("depth",), 2))
    ]  # fmt: skip
    rows = [row.label for row in rows_of(*paths) if not row.ranked]
    assert rows == ["Trivial predictor (depth + normals)", "Trivial predictor (depth)"]


def test_ties_are_all_bold_one_row_and_nan_are_not(write_run):
    def table(*values):
        paths = [
            write_run(f"{len(values)}-{index}", weighting=f"w{index}",
                      metrics={"depth/absolute_error": value})
            for index, value in enumerate(values)
        ]  # fmt: skip
        _, body = parse(tables.to_markdown(tables.standard_table(rows_of(*paths))))
        return [cells[0] for cells in body.values()]

    assert table(0.5) == ["0.5000"]
    assert table(0.50001, 0.50002, 0.6) == ["**0.5000**", "**0.5000**", "0.6000"]
    assert table(math.nan, 0.5, 0.6, 0.7) == ["nan", "**0.5000**", "0.6000", "0.7000"]


@pytest.mark.parametrize(
    ("first", "second", "third", "bold"),
    [
        # The means 0.4 and 0.5 with errors of 0.03 and 0.04 are 0.1 apart, more than 0.05.
        ([0.37, 0.43], [0.46, 0.54], [9.0], [True, False, False]),
        # With errors of 0.06 and 0.08 that is no more than their difference's.
        ([0.34, 0.46], [0.42, 0.58], [9.0], [False, False, False]),
        # A single value counts as exact; an error that is the third's says nothing of the first.
        ([0.4], [0.46, 0.54], [0.1, 2.9], [True, False, False]),
        # The best mean is that of a run that diverged once.
        ([-3.0, 1.0], [0.5], [0.6], [False, False, False]),
        ([0.4, 0.4], [0.4], [0.5], [True, True, False]),
    ],
)
def test_bold_is_what_leads_by_more_than_the_errors_of_both(write_run, first, second, third, bold):
    values = {"equal": first, "uw": second, "nash": third}
    paths = [
        write_run(f"{name}-{seed}", weighting=name, seed=seed,
                  metrics={"depth/absolute_error": value})
        for name, seeds in values.items()
        for seed, value in enumerate(seeds)
    ]  # fmt: skip
    column = [line[0] for line in tables.cells(tables.standard_table(rows_of(*paths)))[:3]]
    assert [best for _, best in column] == bold


@pytest.mark.parametrize("order", [("equal", "uw", "nash"), ("equal", "nash", "uw")])
def test_bold_does_not_depend_on_the_order_of_rows_that_share_the_next_place(write_run, order):
    # Both others have a mean of 0.5; the error of one, 0.2, is more than the lead.
    values = {"equal": [0.4], "uw": [0.5], "nash": [0.3, 0.7]}
    paths = [
        write_run(f"{name}-{seed}", weighting=name, seed=seed, metrics={NAMES[2]: value})
        for name in order
        for seed, value in enumerate(values[name])
    ]
    column = [line[0] for line in tables.cells(tables.standard_table(rows_of(*paths)))]
    assert [best for _, best in column] == [False, False, False]


def test_a_row_with_nan_has_no_rank(write_run):
    paths = [
        write_run(f"{x}", weighting=name, metrics={"depth/absolute_error": x})
        for name, x in (("equal", math.nan), ("uw", 0.3), ("nash", 0.2), ("mgda", 0.1))
    ]
    ranks = [row.values.get("mean_rank") for row in rows_of(*paths)]
    assert ranks == [None, (3.0,), (2.0,), (1.0,)]


def first_cells(*paths):
    (line, *_) = tables.cells(tables.standard_table(rows_of(*paths)))
    return [text for text, _ in line][:4]


def test_a_mean_over_seeds_leaves_out_no_run_that_failed(write_run):
    """The predictions of one are not finite, for which a run writes null."""
    paths = [
        write_run(f"{seed}", weighting="nash", seed=seed, metrics=metrics)
        for seed, metrics in enumerate((named(NASH), named(NASH), WITHOUT_DEPTH))
    ]
    assert first_cells(*paths) == ["40.13 ± 0.00", "65.93 ± 0.00", "nan", "nan"]
    (line,) = [x for x in missing_notes(read_runs(paths)) if "no number" in x]
    assert line.startswith(str(paths[2]))
    assert "result.json has no number for depth/absolute_error, depth/relative_error" in line


def test_the_mean_of_a_class_leaves_out_no_run_that_failed(write_run):
    results = [(0.4, {"bed": 0.5, "tv": None}), (0.6, {"bed": 0.7, "tv": None})]
    results += [(None, {"bed": None, "tv": None})]
    paths = [
        write_run(f"{n}", seed=n, metrics={NAMES[0]: miou}, result={"class_iou": iou})
        for n, (miou, iou) in enumerate(results)
    ]
    # A class that does not occur is no failure.
    assert parse(tables.to_markdown(tables.class_table(rows_of(*paths[:2])))) == (
        ["bed"], {"Equal weights": ["60.00 ± 10.00"]},
    )  # fmt: skip
    _, body = parse(tables.to_markdown(tables.class_table(rows_of(*paths))))
    assert body["Equal weights"][0] == "nan"


def test_a_mean_of_evaluations_that_is_null_is_not_replaced_by_a_final_value(write_run):
    last = {"evaluations": 10, "epochs": [91, 100], "metrics": WITHOUT_DEPTH}
    path = write_run(metrics=named(EQUAL), result={"last": last}, epochs=100)
    assert first_cells(path) == ["40.13", "65.93", "nan", "nan"]


def test_the_number_of_runs_of_each_mean(literature, write_run):
    seeds = [
        write_run(f"{task}-{seed}", tasks=(task,), metrics=of_task(SINGLE, task), seed=seed)
        for task, seed in (("segmentation", 1), ("segmentation", 2), ("depth", 1))
    ]
    seeds.append(write_run("nash-1", weighting="nash", metrics=named(NASH), seed=1))
    groups = group_runs(read_runs([*literature, *seeds]))
    (line,) = [x for x in table_notes(groups, result_rows(groups)) if x.startswith("± is")]
    assert line.endswith("over seeds: 1 to 3 runs of Single task; 2 runs of Nash-MTL.")


def test_the_settings_in_which_compared_rows_differ_are_named(write_run):
    def line(name, **config):
        paths = [
            write_run(f"{name}-{w}", weighting=w, metrics=named(NASH), learning_rate=rate, **config)
            for w, rate in (("uw", 0.1), ("nash", 0.2))
        ]
        groups = group_runs(read_runs(paths))
        lines = table_notes(groups, result_rows(groups))
        return next(text for text in lines if text.startswith("Only runs that agree"))

    compared, apart = line("a", learning_rates=[1, 2]), line("b")
    assert "the tasks, the learning rate that a sweep chose and" in compared
    assert "differ in" not in compared
    assert "the tasks and the seeds" in apart
    assert apart.endswith(" Here, runs that are not compared differ in learning_rate.")


def test_notes_explain_no_column_that_is_not_there(write_run, make_epoch):
    # An epoch of two steps has no time.
    lines = [{k: v for k, v in make_epoch(n).items() if k != "images_per_second"} for n in (1, 2)]
    paths = [
        write_run(name, weighting=name, metrics={"depth/absolute_error": x}, lines=lines)
        for name, x in (("equal", 0.3), ("uw", 0.2), ("nash", 0.1))
    ]
    groups = group_runs(read_runs(paths))
    rows = result_rows(groups)
    heads, _ = parse(tables.to_markdown(tables.standard_table(rows)))
    text = "\n".join(table_notes(groups, rows))
    assert heads == ["AbsErr m ↓", "Mean rank ↓"]
    assert "Mean rank" in text
    assert "ms per step" not in text
    assert DELTA_M_MEANING not in text


def test_further_metrics_and_classes_have_tables_of_their_own(write_run):
    metrics = {"depth/rmse": 0.5, "depth/delta1": 0.8}
    class_iou = {"bed": 0.4567, "tv": math.nan, "wall": 0.7}
    path = write_run(metrics=metrics, result={"class_iou": class_iou})
    rows = rows_of(path)
    assert tables.standard_table(rows).rows == ()
    heads, body = parse(tables.to_markdown(tables.further_table(rows)))
    assert (heads, body) == (["RMSE m ↓", "δ<1.25 % ↑"], {"Equal weights": ["0.5000", "80.00"]})
    heads, body = parse(tables.to_markdown(tables.class_table(rows)))
    assert (heads, body) == (["bed", "wall"], {"Equal weights": ["45.67", "70.00"]})


def test_the_name_of_a_class_makes_no_column_of_its_own(write_run):
    path = write_run(metrics=named(NASH), result={"class_iou": {"door|gate": 0.1, "wall": 0.9}})
    heads, body = parse(tables.to_markdown(tables.class_table(rows_of(path))))
    assert (heads, body["Equal weights"]) == (["door/gate", "wall"], ["10.00", "90.00"])


def test_csv_holds_the_same_numbers_unrounded(literature):
    rows = rows_of(*literature)
    text = tables.to_csv(rows, [tables.standard_table(rows), tables.further_table(rows)])
    records = {record["run"]: record for record in csv.DictReader(io.StringIO(text))}
    assert float(records["Nash-MTL"]["mIoU %"]) == pytest.approx(40.13)
    assert float(records["Nash-MTL"]["AbsErr m"]) == 0.5261
    assert records["Nash-MTL"]["AbsErr m standard error"] == ""
    assert records["Nash-MTL"]["AbsErr m n"] == "1"
    assert float(records["Nash-MTL"]["Δm by metrics %"]) == pytest.approx(-4.05, abs=0.005)
    assert records["Single task"]["Δm by metrics %"] == ""


def test_notes_say_what_the_numbers_are(literature, write_run):
    groups = group_runs(read_runs(literature))
    text = "\n".join(table_notes(groups, result_rows(groups)))
    assert DELTA_M_MEANING in text
    assert "lower is better" in text
    assert re.search(r"Split: test; dataset: rooms; resolution: 96×128; .*epochs: 2\.", text)
    assert "final evaluation" in text
    assert "most frequent class" in text
    last = {"evaluations": 10, "epochs": [91, 100], "metrics": named(NASH)}
    path = write_run("mean", metrics=named(NASH), result={"last": last}, epochs=100, model="mtan")
    unfinished = write_run("going", weighting="uw", result=None)
    groups = group_runs(read_runs([path, unfinished]))
    text = "\n".join(table_notes(groups, result_rows(groups)))
    assert "mean of the last 10 evaluations" in text
    assert "network: mtan;" in text
    assert "resnet18" not in text
    short = write_run("short", weighting="uw", metrics=named(NASH))
    groups = group_runs(read_runs([path, short]))
    text = "\n".join(table_notes(groups, result_rows(groups)))
    assert "Values are those of the final evaluation: 1 of the 2 runs have a mean" in text
    (line,) = [line for line in missing_notes(read_runs([path, unfinished])) if "result" in line]
    assert str(unfinished) in line


def test_no_finished_run_no_table(write_run):
    groups = group_runs(read_runs([write_run(result=None)]))
    assert result_rows(groups) == []
    assert table_notes(groups, []) == ["No run has finished: there is no table yet."]


def test_mean_ranks_and_prices_by_hand(write_run):
    def metrics(miou, error):
        return {"segmentation/miou": miou, "depth/absolute_error": error}

    tasks = ("segmentation", "depth")
    folders = [
        write_run("a", tasks=tasks, weighting="equal", metrics=metrics(0.25, 0.7)),
        write_run("b0", tasks=tasks, weighting="uw", metrics=metrics(0.25, 0.6)),
        write_run("b1", tasks=tasks, weighting="uw", seed=1, metrics=metrics(0.75, 0.4)),
        write_run("c", tasks=tasks, weighting="nash", metrics=metrics(0.5, 0.7)),
    ]
    rows = {row.label: row.values for row in result_rows(group_runs(read_runs(folders)))}
    # mIoU: .25, .5 and .5; error: .7, .5 and .7
    assert rows["Equal weights"]["mean_rank"] == (2.75,)
    assert rows["UW"]["mean_rank"] == (1.25,)
    assert rows["Nash-MTL"]["mean_rank"] == (2.0,)
    assert rows["UW"]["milliseconds"] == (400.0, 400.0)  # batches of 8 at 20 images a second


def test_the_time_per_step_is_the_mean_of_the_epochs_times(write_run, make_epoch):
    lines = [make_epoch(n, images_per_second=speed) for n, speed in ((1, 10.0), (2, 40.0))]
    (row,) = rows_of(write_run(weighting="nash", metrics=named(NASH), lines=lines))
    # Batches of 8 take 0.8 s in the first epoch and 0.2 s in the second.
    assert row.values["milliseconds"] == pytest.approx((500.0,))
