import shutil

import pytest

from mtl_jax.report.grouping import (
    difference,
    distinct,
    group_runs,
    protocol,
    set_apart,
)
from mtl_jax.report.read import read_run, read_runs
from mtl_jax.runs.settings import MAY_DIFFER


def labels(*paths):
    return [group.label for group in group_runs(read_runs(paths))]


def test_seeds_of_one_group_belong_together(write_run):
    paths = [
        write_run(f"{w}-{seed}", weighting=w, seed=seed) for seed in (0, 1) for w in ("nash", "uw")
    ]
    groups = group_runs(read_runs(paths))
    assert [group.label for group in groups] == ["Nash-MTL", "UW"]
    assert [len(group.runs) for group in groups] == [2, 2]
    assert not any(group.single_task for group in groups)


def test_single_task_runs_are_one_group_that_comes_first(write_run):
    paths = [write_run("all", weighting="equal")]
    paths += [
        write_run(task, tasks=(task,), weighting=weighting)
        for task, weighting in (("normals", "nash"), ("segmentation", "uw"), ("depth", "equal"))
    ]
    single, equal = group_runs(read_runs(paths))
    assert (single.label, equal.label) == ("Single task", "Equal weights")
    assert single.single_task
    assert set(single.tasks) == {"segmentation", "depth", "normals"}
    assert len(single.runs) == 3


def test_labels_say_what_differs_and_no_more(write_run):
    first = write_run("a", weighting="nash")
    assert labels(first) == ["Nash-MTL"]
    other = write_run("b", weighting="uw", dataset="nyu_depth_v2", image_size=[288, 384])
    assert labels(first, other) == ["Nash-MTL (rooms)", "UW (nyu_depth_v2)"]
    longer = write_run("c", weighting="nash", epochs=5)
    assert labels(first, longer) == ["Nash-MTL (2 epochs)", "Nash-MTL (5 epochs)"]
    batch = write_run("d", weighting="nash", batch_size=2)
    assert labels(first, batch) == ["Nash-MTL (batch_size 8)", "Nash-MTL (batch_size 2)"]


def test_data_sets_and_networks_are_described_in_words(write_run):
    first = write_run("a", weighting="nash", dataset="rooms:train=40,test=8")
    other = write_run("b", weighting="nash", dataset="rooms:train=400", epochs=3)
    assert labels(first, other) == [
        "Nash-MTL (rooms with train=40 and test=8)",
        "Nash-MTL (rooms with train=400)",
    ]
    texts = ("mtan", "resnet_unet:backbone=resnet50")
    runs = [write_run(f"m{n}", model=text) for n, text in enumerate(texts)]
    assert labels(*runs) == [
        "Equal weights (mtan)",
        "Equal weights (resnet_unet with backbone=resnet50)",
    ]


@pytest.mark.parametrize(
    ("weighting", "label"),
    [
        ("fairgrad:alpha=1", "FairGrad (alpha=1)"),
        ("sdmgrad:pull=1,momentum=0", "SDMGrad (pull=1, momentum=0)"),
        ("dir/my_file.py:mine", "mine"),
        ("my_file.py:mine:alpha=2", "mine (alpha=2)"),
        (5, "run"),
    ],
)
def test_options_of_a_weighting_are_part_of_its_label(write_run, weighting, label):
    assert labels(write_run(weighting=weighting)) == [label]


def test_options_set_rows_apart_that_are_compared(write_run):
    paths = [
        write_run(f"{n}", weighting=text, batch_size=size)
        for n, (text, size) in enumerate((("fairgrad", 8), ("fairgrad:alpha=1", 8), ("uw", 2)))
    ]
    assert labels(*paths) == [
        "FairGrad (batch_size 8)", "FairGrad (alpha=1, batch_size 8)", "UW (batch_size 2)",
    ]  # fmt: skip


def test_a_label_names_no_more_settings_than_tell_runs_apart(write_run):
    runs = [
        write_run(f"{n}", **{f"setting_{key}": n if key == 9 else n > 0 for key in range(10)})
        for n in range(3)
    ]
    assert labels(*runs) == [
        f"Equal weights (setting_0 {first}, setting_9 {last})"
        for first, last in (("false", 0), ("true", 1), ("true", 2))
    ]


def test_a_label_names_what_readers_know_before_other_settings(write_run):
    first = write_run("a", a_flag_added_later=0, keep_prob=1, model="small")
    second = write_run("b", a_flag_added_later=1, keep_prob=2, model="mtan")
    assert labels(first, second) == ["Equal weights (small)", "Equal weights (mtan)"]


def test_labels_name_folders_of_images_and_neither_their_paths_nor_versions(write_run):
    rooms = write_run("a", folder=None, data=None)
    own = [
        write_run(f"{name}-{weighting}", dataset="folder:channels=4", folder=f"/home/me/{name}",
                  data=f"{name}-96x128-0123456789ab", weighting=weighting, model="small")
        for name in ("cats", "dogs")
        for weighting in ("uw", "nash")
    ]  # fmt: skip
    assert labels(rooms, *own) == [
        "Equal weights (rooms)",
        "UW (folder cats with channels=4)",
        "Nash-MTL (folder cats with channels=4)",
        "UW (folder dogs with channels=4)",
        "Nash-MTL (folder dogs with channels=4)",
    ]


def test_runs_on_versions_of_one_folder_are_distinguished_by_their_own_folders(write_run):
    """None of the settings has words that tell them apart, yet they are not compared."""
    shared = {"dataset": "folder", "folder": "/home/me/cats"}
    paths = [
        write_run(f"{name}/{weighting}", weighting=weighting, data=name, **shared)
        for name, weighting in (("old", "uw"), ("old", "nash"), ("new", "nash"))
    ]
    groups = group_runs(read_runs(paths))
    assert [group.label for group in groups] == [
        "UW [uw]", "Nash-MTL [old/nash]", "Nash-MTL [new/nash]"
    ]  # fmt: skip
    assert set_apart(read_runs(paths)) == ["version of the data set"]


def test_pretrained_weights_have_no_absolute_path_in_a_label(write_run):
    path = "/home/me/runs/rooms-nash-0/export/weights.safetensors"
    runs = [write_run("a"), write_run("b", pretrained=path), write_run("c", pretrained="a.pth")]
    assert labels(*runs) == [
        "Equal weights",
        "Equal weights (pretrained rooms-nash-0/export/weights.safetensors)",
        "Equal weights (pretrained a.pth)",
    ]


def test_a_label_has_four_settings_at_most_and_stays_unique(write_run):
    runs = [
        write_run(f"{n}", **{f"setting_{key}": int(key == n) for key in range(9)}) for n in range(8)
    ]
    found = labels(*runs)
    assert len(set(found)) == 8
    assert max(label.count("setting_") for label in found) == 4
    # The first four have a setting of their own; of the others the label says where they are.
    assert ["[" in label for label in found] == [False] * 4 + [True] * 4


@pytest.mark.parametrize(
    "other",
    [{"model": "mtan"}, {"learning_rate": 0.1}, {"pretrained": "a.pth"},
     {"label_fraction": 0.5}, {"a_flag_added_later": False}, {"tasks": ("depth", "normals")},
     {"weighting": "mine"}, {"weighting": "nash:max_norm=2"}, {"weigh_every": 4}],
)  # fmt: skip
def test_runs_that_differ_in_more_than_seeds_are_not_seeds_of_one_row(write_run, other):
    paths = [write_run("a", weighting="nash"), write_run("b", **{"weighting": "nash"} | other)]
    assert len(group_runs(read_runs(paths))) == 2


def test_a_rate_that_a_sweep_chose_does_not_keep_methods_apart(write_run):
    tuned = {"learning_rates": [0.1, 0.2]}
    paths = [
        write_run("depth", tasks=("depth",), learning_rate=0.1, **tuned),
        write_run("normals", tasks=("normals",), learning_rate=0.2, **tuned),
        write_run("equal", learning_rate=0.1, **tuned),
        write_run("nash", weighting="nash", learning_rate=0.2, **tuned),
        write_run("again", weighting="nash", learning_rate=0.1, **tuned),
    ]
    groups = group_runs(read_runs(paths))
    assert [group.label for group in groups] == [
        "Single task",
        "Equal weights (learning_rate 0.1)",
        "Nash-MTL (learning_rate 0.2)",
        "Nash-MTL (learning_rate 0.1)",
    ]
    assert len({protocol(run) for group in groups for run in group.runs}) == 1


def test_a_run_without_config_belongs_to_no_other(write_run):
    paths = [write_run(name) for name in ("a", "b")]
    for path in paths:
        (path / "config.json").unlink()
    assert len(group_runs(read_runs(paths))) == 2


@pytest.mark.parametrize(("seed", "label_seed", "count"), [(0, 0, 1), (1, 0, 2), (0, 1, 2)])
def test_the_same_seeds_count_once(write_run, seed, label_seed, count):
    metrics = {"depth/absolute_error": 0.5}
    first = write_run("a", seed=0, label_seed=0, label_fraction=0.5, metrics=metrics)
    second = write_run("b", seed=seed, label_seed=label_seed, label_fraction=0.5, metrics=metrics)
    runs, notes = distinct(read_runs([first, second]))
    assert len(runs) == count
    left_out = f"{second} is left out: it is {first} again, the same settings and seeds."
    assert notes == ([left_out] if count == 1 else [])


def test_a_seed_of_labels_is_none_where_all_labels_are_used(write_run):
    paths = [write_run(name, seed=3, label_seed=n) for n, name in enumerate("ab")]
    assert len(distinct(read_runs(paths))[0]) == 1


def test_a_seed_of_labels_is_none_where_no_task_reads_them(write_run):
    def count(tasks, name):
        shared = {"tasks": tasks, "seed": 3, "label_fraction": 0.5}
        paths = [write_run(f"{name}-{n}", label_seed=n, **shared) for n in range(3)]
        return len(distinct(read_runs(paths))[0])

    assert count(("depth",), "a") == count(("depth", "normals"), "b") == 1
    assert count(("segmentation",), "c") == count(("segmentation", "depth"), "d") == 3


def test_of_copies_the_finished_one_counts_and_other_results_are_reported(write_run, tmp_path):
    going = write_run("going", result=None)
    done = write_run("done", metrics={"depth/absolute_error": 0.5, "depth/rmse": 1.0})
    other = write_run("other", metrics={"depth/absolute_error": 0.75, "depth/rmse": 1.0})
    shutil.copytree(done, tmp_path / "copy")
    runs, notes = distinct(read_runs([going, done, tmp_path / "copy", other]))
    assert [run.path for run in runs] == [done]
    assert [line.split(" is left out")[0] for line in notes] == [
        str(path) for path in (going, tmp_path / "copy", other)
    ]
    assert ["with other results" in line for line in notes] == [False, False, True]
    assert "depth/absolute_error (0.5, 0.75)" in notes[2]
    assert "rmse" not in notes[2]


def test_of_a_single_task_at_several_rates_the_first_counts_and_the_rates_are_named(write_run):
    paths = [
        write_run(f"{rate}", tasks=("depth",), learning_rate=rate, learning_rates=[0.1, 0.2],
                  metrics={"depth/absolute_error": rate})
        for rate in (0.1, 0.2)
    ]  # fmt: skip
    runs, (line,) = distinct(read_runs(paths))
    assert [run.path for run in runs] == paths[:1]
    assert "except the learning rate (0.1, 0.2)" in line
    assert line.endswith("yet with other results: depth/absolute_error (0.1, 0.2).")


def test_single_task_runs_of_one_seed_are_several_trainings(write_run):
    paths = [write_run(task, tasks=(task,)) for task in ("depth", "normals")]
    assert len(distinct(read_runs(paths))[0]) == 2


def test_difference_names_settings_with_both_values():
    old = {"model": "segnet", "seed": 1, "weighting": "uw", "epochs": 3}
    new = {"model": "mtan", "seed": 2, "weighting": "nash", "epochs": 3, "keep_prob": 1}
    assert difference(old, new) == "model (segnet, mtan), keep_prob (not recorded, 1)"
    assert difference(old, old) == ""
    assert difference({}, new) == "config.json (can't be read)"
    many = {f"key{n}": "x" * 99 for n in range(9)}
    assert difference(many, {"model": "mtan"}).endswith(" and 6 more")
    assert len(difference(many, {"model": "mtan"})) < 300


def test_how_tasks_are_weighed_sets_runs_of_several_tasks_apart(write_run):
    single = [write_run(t, tasks=(t,), weigh_every=i) for i, t in enumerate(("depth", "normals"))]
    assert labels(*single) == ["Single task"]
    other = [write_run(f"nash-{n}", weighting="nash", weigh_every=n) for n in (1, 2)]
    assert labels(*other) == ["Nash-MTL (weigh_every 1)", "Nash-MTL (weigh_every 2)"]


def test_runs_that_differ_only_in_what_may_differ_are_compared(write_run):
    values = {"weighting": "uw", "weigh_every": 3, "gradients": "features", "seed": 7}
    values |= {"label_seed": 7, "tasks": ("depth",)}
    assert set(values) == set(MAY_DIFFER)
    first = write_run("a", weighting="nash")
    for name, value in values.items():
        assert protocol(read_run(first)) == protocol(read_run(write_run(name, **{name: value})))
    other = read_run(write_run("b", a_flag_added_later=1))
    assert protocol(read_run(first)) != protocol(other)


def test_a_run_without_config_is_named_after_its_folder(write_run):
    paths = [write_run(name) for name in ("x/one", "y/one")]
    for path in paths:
        (path / "config.json").unlink()
    assert labels(paths[0]) == ["one"]
    assert labels(*paths) == ["one [x/one]", "one [y/one]"]


def test_an_unknown_weighting_keeps_its_name(write_run):
    assert labels(write_run(weighting="mine")) == ["mine"]


def test_an_older_run_had_the_defaults_of_settings_that_came_later(write_run):
    old, new = write_run("old", seed=0), write_run("new", seed=1, accumulate=1, average=0.0)
    (group,) = group_runs(read_runs([old, new]))
    assert len(group.runs) == 2
    other = write_run("other", seed=2, average=0.9)
    assert len(group_runs(read_runs([old, other]))) == 2


def test_a_value_of_none_makes_no_difference(write_run):
    paths = [write_run("a", seed=0), write_run("b", seed=1, eval_batch_size=None)]
    assert len(group_runs(read_runs(paths))) == 1
