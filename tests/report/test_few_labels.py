"""The curve of mIoU over the part of the labels."""

import math

import numpy as np
import pytest

from mtl_jax.report import few_labels, write_report
from mtl_jax.report.read import read_runs

BOTH = "+ depth + normals, Nash-MTL"


@pytest.fixture
def study(write_run):
    """Two seeds of segmentation alone and with both other tasks, at three parts of the labels."""
    folders = []
    for part, alone, both in ((0.125, 0.20, 0.24), (0.25, 0.26, 0.30), (1.0, 0.38, 0.40)):
        for seed in (0, 1):
            shared = {"seed": seed, "label_seed": seed, "label_fraction": part}
            for tasks, miou in (
                (("segmentation",), alone),
                (("segmentation", "depth", "normals"), both),
            ):
                folders.append(
                    write_run(
                        f"{len(tasks)}-{part}-{seed}", tasks=tasks, weighting="nash",
                        metrics={"segmentation/miou": miou + 0.02 * seed}, **shared,
                    )
                )  # fmt: skip
    return folders


def test_arms_parts_and_seeds(study):
    results = few_labels.collect(read_runs(study))
    assert list(results) == [few_labels.ALONE, BOTH]
    assert list(results[BOTH]) == [0.125, 0.25, 1.0]
    assert results[BOTH][0.25] == pytest.approx([30.0, 32.0])
    assert few_labels.is_study(results)
    assert not few_labels.is_study({few_labels.ALONE: results[few_labels.ALONE]})


def test_pretrained_runs_are_an_arm_of_their_own_beside_others(study, write_run):
    shared = {"weighting": "nash", "metrics": {"segmentation/miou": 0.3}, "label_fraction": 0.125}
    started = write_run("p", tasks=("segmentation", "depth"), pretrained="free-{seed}", **shared)
    assert list(few_labels.collect(read_runs([started]))) == ["+ depth, Nash-MTL"]
    results = few_labels.collect(read_runs([*study, started]))
    assert list(results) == [few_labels.ALONE, BOTH, "+ depth, Nash-MTL, pretrained"]


def test_arms_are_named_by_what_differs_in_the_paths_of_their_files(study, write_run):
    def started(name):
        path = f"runs/a/{name}-{{seed}}/export/weights.safetensors"
        shared = {"metrics": {"segmentation/miou": 0.3}, "label_fraction": 0.125}
        return write_run(name, tasks=("segmentation",), pretrained=path, **shared)

    results = few_labels.collect(read_runs([*study, started("rooms"), started("free")]))
    assert list(results) == [
        few_labels.ALONE,
        BOTH,
        f"{few_labels.ALONE}, pretrained rooms-{{seed}}",
        f"{few_labels.ALONE}, pretrained free-{{seed}}",
    ]


def test_the_mean_of_an_arm_leaves_out_no_run_that_failed(study, write_run):
    failed = write_run(
        "failed", tasks=("segmentation",), seed=2, label_seed=2, label_fraction=0.125,
        metrics={"segmentation/miou": None},
    )  # fmt: skip
    results = few_labels.collect(read_runs([*study, failed]))
    (line,) = [x for x in few_labels.to_markdown(results).splitlines() if few_labels.ALONE in x]
    cells = ["nan (3 runs)", "27.00 ± 1.00 (2 runs)", "39.00 ± 1.00 (2 runs)"]
    assert line == f"| {' | '.join([few_labels.ALONE, *cells])} |"


def test_labels_saved_by_hand(study):
    alone = few_labels.collect(read_runs(study))[few_labels.ALONE]
    # Means are 21, 27 and 39; 33 lies half-way between those of a quarter and of all.
    assert few_labels.parts_needed(alone, 33.0) == pytest.approx(math.sqrt(0.25))
    assert few_labels.parts_needed(alone, 27.0) == pytest.approx(0.25)
    assert few_labels.parts_needed(alone, 50.0) is None
    assert few_labels.parts_needed(alone, 1.0) is None


def test_the_table_by_hand(study):
    lines = few_labels.to_markdown(few_labels.collect(read_runs(study))).splitlines()
    assert lines[0] == "| mIoU % ↑ | 1/8 | 1/4 | 1 |"
    assert lines[2] == f"| {few_labels.ALONE} | 21.00 ± 1.00 | 27.00 ± 1.00 | 39.00 ± 1.00 |"
    # 25 needs 1/8 * 2^(2/3) of the labels alone, and 31 a quarter times 4^(1/3).
    saved = [100 * (1 - 2 ** (-2 / 3)), 100 * (1 - 4 ** (-1 / 3))]
    assert lines[3].startswith(f"| {BOTH} | 25.00 ± 1.00 ({saved[0]:+.0f} % labels saved) | 31.00")
    assert f"({saved[1]:+.0f} % labels saved)" in lines[3]
    assert lines[3].endswith("| 41.00 ± 1.00 |")
    assert lines[4:] == ["", "Each cell is the mean of 2 runs, with its standard error."]


def test_parts_are_named_as_they_were_given():
    parts = (0.0333, 0.125, 1 / 3, 0.4, 0.99, 1.0)
    text = few_labels.to_markdown({few_labels.ALONE: dict.fromkeys(parts, [20.0])})
    assert text.splitlines()[0] == "| mIoU % ↑ | 0.0333 | 1/8 | 1/3 | 0.4 | 0.99 | 1 |"


def test_the_table_of_one_seed_says_so(study):
    first = [folder for folder in study if str(folder).endswith("-0")]
    text = few_labels.to_markdown(few_labels.collect(read_runs(first)))
    assert f"| {few_labels.ALONE} | 20.00 | 26.00 | 38.00 |" in text
    assert text.endswith("\nEach cell is the result of one run.\n")


def test_the_figure_shows_means_and_errors(study):
    (axes,) = few_labels.labels_figure(few_labels.collect(read_runs(study))).axes
    curve = axes.containers[1]
    np.testing.assert_allclose(curve[0].get_ydata(orig=False), [25.0, 31.0, 41.0])
    np.testing.assert_allclose(curve[2][0].get_segments()[0][:, 1], [24.0, 26.0])


def test_the_report_of_a_study_has_them(study, tmp_path):
    page = write_report(study, tmp_path / "out").read_text()
    assert "Few labels" in page
    assert (tmp_path / "out" / "labels.md").exists()
    assert (tmp_path / "out" / "labels.png").exists()
    # Which images have labels is chance like the seed: one row for an arm and a part.
    rows = [x for x in (tmp_path / "out" / "table.md").read_text().splitlines() if "21.00 ±" in x]
    assert [row.split("|")[1].strip() for row in rows] == ["Single task (label_fraction 0.125)"]


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ({"model": "mtan"}, "model (mtan, resnet_unet:backbone=resnet18)"),
        ({"learning_rate": 1e-2}, "learning_rate (0.01, not recorded)"),
        ({"epochs": 7}, "epochs (7, 2)"),
        ({"a_flag_added_later": True}, "a_flag_added_later (true, not recorded)"),
    ],
)
def test_runs_of_other_settings_are_left_out_of_the_curve_and_named(study, write_run, other, words):
    path = write_run(
        "other", tasks=("segmentation",), weighting="nash", metrics={"segmentation/miou": 0.5},
        seed=2, label_fraction=0.125, **other,
    )  # fmt: skip
    runs = read_runs([*study, path])
    assert few_labels.collect(runs) == few_labels.collect(read_runs(study))
    assert few_labels.left_out(runs) == [
        f"{path} is not in the curve of few labels: it differs in {words}."
    ]
    assert few_labels.left_out(read_runs(study)) == []


def test_runs_with_all_labels_belong_to_the_curve_of_any_number_per_batch(write_run):
    """They record the default of a setting that has no effect on them."""

    def run(tasks, part, number, miou):
        return write_run(
            f"{len(tasks)}-{part}-{number}", tasks=tasks, weighting="nash", label_fraction=part,
            labelled_per_batch=number, metrics={"segmentation/miou": miou},
        )  # fmt: skip

    alone, both = ("segmentation",), ("segmentation", "depth", "normals")
    folders = [run(alone, 0.25, 3, 0.2), run(both, 0.25, 3, 0.3)]
    folders += [run(alone, 1.0, 0, 0.4), run(both, 1.0, 0, 0.5)]
    runs = read_runs(folders)
    expected = {few_labels.ALONE: {0.25: [20.0], 1.0: [40.0]}, BOTH: {0.25: [30.0], 1.0: [50.0]}}
    assert few_labels.collect(runs) == expected
    assert few_labels.left_out(runs) == []
    # Other numbers of labelled images are other settings where labels are withheld.
    other = run(alone, 0.25, 2, 0.9)
    assert few_labels.collect(read_runs([*folders, other])) == expected
    (line,) = few_labels.left_out(read_runs([*folders, other]))
    assert line.endswith("it differs in labelled_per_batch (2, 3).")


def test_other_pretrained_files_and_options_are_other_arms(study, write_run):
    shared = {
        "tasks": ("segmentation", "depth", "normals"), "weighting": "nash", "label_fraction": 0.125,
        "metrics": {"segmentation/miou": 0.3},
    }  # fmt: skip
    started = [
        write_run(f"p{n}", pretrained=f"free-{n}-{{seed}}.pth", seed=n, **shared) for n in (0, 1)
    ]
    other = write_run("every", weigh_every=4, **shared)
    results = few_labels.collect(read_runs([*study, *started, other]))
    assert {arm: len(parts[0.125]) for arm, parts in results.items()} == {
        few_labels.ALONE: 2,
        f"{BOTH}": 2,
        f"{BOTH}, pretrained free-0-{{seed}}.pth": 1,
        f"{BOTH}, pretrained free-1-{{seed}}.pth": 1,
        f"{BOTH}, weigh_every 4": 1,
    }


def test_a_wrong_fraction_of_labels_stops_nothing(study, write_run):
    odd = [
        write_run(f"odd-{n}", metrics={"segmentation/miou": 0.5}, label_fraction=part)
        for n, part in enumerate((0, -1, "half", [1], 1e999, None))
    ]
    runs = read_runs([*study, *odd])
    assert few_labels.collect(runs) == few_labels.collect(read_runs(study))
    assert len(few_labels.left_out(runs)) == len(odd)
