import pytest

from mtl_jax.report.runs import read_runs
from mtl_jax.report.settings import describe, group


def labels(*paths):
    return [setting.label for setting in group(read_runs(paths))]


def test_seeds_of_one_setting_belong_together(write_run):
    paths = [
        write_run(f"{w}-{seed}", weighting=w, seed=seed) for seed in (0, 1) for w in ("nash", "uw")
    ]
    settings = group(read_runs(paths))
    assert [setting.label for setting in settings] == ["Nash-MTL", "UW"]
    assert [len(setting.runs) for setting in settings] == [2, 2]
    assert not any(setting.single_task for setting in settings)


def test_single_task_runs_are_one_setting_that_comes_first(write_run):
    paths = [write_run("all", weighting="equal")]
    paths += [
        write_run(task, tasks=(task,), weighting=weighting)
        for task, weighting in (("normals", "nash"), ("segmentation", "uw"), ("depth", "equal"))
    ]
    single, equal = group(read_runs(paths))
    assert (single.label, equal.label) == ("Single task", "Equal weights")
    assert single.single_task
    assert set(single.tasks) == {"segmentation", "depth", "normals"}
    assert len(single.runs) == 3


def test_labels_say_what_differs_and_no_more(write_run):
    first = write_run("a", weighting="nash")
    assert labels(first) == ["Nash-MTL"]
    other = write_run("b", weighting="uw", dataset="nyu_depth_v2", image_size=[288, 384])
    assert labels(first, other) == ["Nash-MTL (rooms, 96×128)", "UW (nyu_depth_v2, 288×384)"]
    longer = write_run("c", weighting="nash", epochs=5)
    assert labels(first, longer) == ["Nash-MTL (2 epochs)", "Nash-MTL (5 epochs)"]
    batch = write_run("d", weighting="nash", batch_size=2)
    assert labels(first, batch) == ["Nash-MTL (batch_size 8)", "Nash-MTL (batch_size 2)"]


def test_options_of_another_weighting_make_no_setting(write_run):
    same = [write_run(f"uw-{n}", weighting="uw", seed=n, cagrad_c=n) for n in (1, 2)]
    single = [write_run(t, tasks=(t,), cagrad_c=i) for i, t in enumerate(("depth", "normals"))]
    assert labels(*same, *single) == ["Single task", "UW"]
    other = [write_run(f"nash-{n}", weighting="nash", nash_every=n) for n in (1, 2)]
    assert labels(*other) == ["Nash-MTL (nash_every 1)", "Nash-MTL (nash_every 2)"]


def test_a_run_without_config_is_named_after_its_directory(write_run):
    paths = [write_run(name) for name in ("x/one", "y/one")]
    for path in paths:
        (path / "config.json").unlink()
    assert labels(paths[0]) == ["one"]
    assert labels(*paths) == [f"one [{path}]" for path in paths]


def test_an_unknown_weighting_keeps_its_name(write_run):
    assert labels(write_run(weighting="mine")) == ["mine"]


@pytest.mark.parametrize(
    ("key", "value", "text"),
    [
        ("image_size", [96, 128], "96×128"),
        ("epochs", 15, "15 epochs"),
        ("epochs", 1, "1 epoch"),
        ("tasks", ["depth", "normals"], "depth + normals"),
        ("dataset", "rooms", "rooms"),
        ("learning_rate", 1e-4, "learning_rate 0.0001"),
        ("augment", True, "augment true"),
        ("pretrained", None, "no pretrained"),
    ],
)
def test_describe(key, value, text):
    assert describe(key, value) == text


def test_a_value_of_none_is_no_difference(write_run):
    paths = [write_run("a", seed=0), write_run("b", seed=1, eval_batch_size=None)]
    assert len(group(read_runs(paths))) == 1
