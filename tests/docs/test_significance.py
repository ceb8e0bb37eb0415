"""The script that says which weightings of a sweep differ from equal weights."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
from scipy import stats

from mtl_jax.report.grouping import Group
from tests.docs import scripts

ANGLES = ("mean", "median", "within_11.25", "within_22.5", "within_30")
NAMES = {"equal": "Equal weights", "nash": "Nash-MTL", "uw": "UW"}


@pytest.fixture(scope="module")
def script():
    return scripts.load("significance")


def test_the_pooled_error_is_that_of_two_paired_columns(script):
    equal, other = np.array([1.0, 4.0, 2.0]), np.array([2.0, 3.0, 7.0])
    found = script.compare({"other": other}, equal)
    paired = stats.ttest_rel(other, equal)
    np.testing.assert_allclose(np.mean(found.differences["other"]) / found.error, paired.statistic)
    np.testing.assert_allclose(found.threshold, stats.t.ppf(0.975, 2))


def test_chance_is_seldom_a_difference_and_a_shift_always_is(script):
    rng, wrong = np.random.default_rng(0), 0
    for _ in range(200):
        seeds = 3.0 * rng.normal(size=3)
        gains = {str(index): seeds + rng.normal(size=3) for index in range(20)}
        gains["shifted"] = seeds + rng.normal(size=3) + 10.0
        found = script.compare(gains, seeds + rng.normal(size=3))
        assert "shifted" in found.different(1)
        wrong += len(found.different(1)) > 1 or len(found.different(-1)) > 0
    assert wrong <= 20


def test_ranks_are_of_each_seed(script):
    values = {
        "a": {"depth/absolute_error": np.array([1.0, 2.0]), "segmentation/miou": np.array([9, 9])},
        "b": {"depth/absolute_error": np.array([2.0, 1.0]), "segmentation/miou": np.array([8, 8])},
    }
    found = script.ranks(values)
    np.testing.assert_allclose(found["a"], [1.0, 1.5])
    np.testing.assert_allclose(found["b"], [2.0, 1.5])


def test_a_row_that_failed_has_no_rank_and_takes_none_from_the_others(script):
    errors = {"a": [1.0, 2.0], "failed": [0.5, np.nan], "b": [2.0, 1.0]}
    found = script.ranks({k: {"depth/absolute_error": np.array(x)} for k, x in errors.items()})
    assert {k: x.tolist() for k, x in found.items()} == {"a": [1.0, 2.0], "b": [2.0, 1.0]}


def sweep(**seeds):
    """The groups of a sweep of two tasks: each task alone with seeds 0 and 1, and weightings."""

    def run(seed, *tasks):
        return SimpleNamespace(tasks=tasks, config={"seed": seed}, result="")

    alone = [run(seed, task) for seed in (0, 1) for task in ("depth", "normals")]
    groups = [Group("single", True, {}, tuple(alone))]
    for label, own in seeds.items():
        runs = [run(seed, "depth", "normals") for seed in own]
        groups.append(Group(label, False, {}, tuple(runs)))
    return groups


def test_only_the_same_seeds_are_paired(script):
    groups = sweep(equal=(0, 1), nash=(1, 2), uw=(1, 0))
    assert script.with_seeds_of_equal(groups, NAMES) == {"single", "equal", "uw"}


@pytest.mark.parametrize(
    ("seeds", "message"), [((0,), "two seeds or more"), ((0, 2), "must have the same seeds")]
)
def test_a_sweep_without_pairs_is_refused(script, seeds, message):
    with pytest.raises(ValueError, match=message):
        script.with_seeds_of_equal(sweep(equal=seeds, nash=seeds), NAMES)


def test_runs_are_paired_by_seed_and_not_by_folder(script, tmp_path):
    def write(name, errors, **config):
        folder = tmp_path / name
        folder.mkdir()
        metrics = {f"depth/{kind}_error": x for kind in ("absolute", "relative") for x in errors}
        metrics = {name: x for name, x in metrics.items() if config["tasks"] != ["normals"]}
        metrics |= {f"normals/{angle}": 1.0 for angle in ANGLES if "normals" in config["tasks"]}
        result = {"split": "test", "metrics": metrics}
        (folder / "result.json").write_text(json.dumps(result))
        (folder / "config.json").write_text(json.dumps({"learning_rate": 0.1} | config))

    errors = {"equal": {0: 1.0, 1: 1.2}, "nash": {0: 1.1, 1: 1.3}}
    names = {("equal", 0): "z", ("equal", 1): "a", ("nash", 0): "b", ("nash", 1): "y"}
    for seed in (0, 1):
        for task in ("depth", "normals"):
            write(f"{task}-{seed}", [1.0], tasks=[task], weighting="equal", seed=seed)
        for name, own in errors.items():
            both = {"tasks": ["depth", "normals"], "weighting": name, "seed": seed}
            write(names[name, seed], [own[seed]], **both)
    # With each seed, a tenth more in two of seven metrics, whose single-task values are one.
    assert "| +2.9 ± 0.0 |" in script.report(str(tmp_path))
