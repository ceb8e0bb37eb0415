"""Work directories: what they refuse, and what survives a killed process."""

import json

import numpy as np
import pytest

from mtl_jax import workdir

CONFIG = {"tasks": ("segmentation", "depth"), "weighting": "nash", "epochs": 3, "seed": 0}


def test_claim_makes_the_folder_and_says_what_it_holds(tmp_path):
    folder = workdir.claim(tmp_path / "runs" / "a", CONFIG)
    assert json.loads((folder / "config.json").read_text()) == {
        **CONFIG, "tasks": ["segmentation", "depth"]
    }  # fmt: skip
    versions = json.loads((folder / "versions.json").read_text())
    assert {"python", "jax", "numpy", "device"} <= versions.keys()


def test_the_same_run_is_taken_up_again(tmp_path):
    workdir.claim(tmp_path, CONFIG)
    assert workdir.claim(tmp_path, CONFIG) == workdir.check(tmp_path, CONFIG) == tmp_path


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weighting": "uw"}, "holds a run with weighting=nash, not uw: set another --workdir"),
        ({"tasks": ("depth",)}, "holds a run with tasks=segmentation,depth, not depth"),
        ({"backbone": "resnet50"}, "holds a run with backbone=None, not resnet50"),
    ],
)
def test_another_run_is_refused_by_name_and_left_alone(tmp_path, change, message):
    workdir.claim(tmp_path, CONFIG)
    before = (tmp_path / "config.json").read_text()
    for refuse in (workdir.claim, workdir.check):
        with pytest.raises(ValueError, match=message) as caught:
            refuse(tmp_path, CONFIG | change)
        assert "\n" not in str(caught.value)
    assert (tmp_path / "config.json").read_text() == before


def test_only_a_finished_checkpoint_is_one(tmp_path):
    assert not workdir.has_checkpoint(tmp_path)
    (tmp_path / "checkpoints" / "5.orbax-checkpoint-tmp").mkdir(parents=True)
    assert not workdir.has_checkpoint(tmp_path)
    (tmp_path / "checkpoints" / "5").mkdir()
    assert workdir.has_checkpoint(tmp_path)


def test_free_keys_may_change_and_are_written_down(tmp_path):
    workdir.claim(tmp_path, CONFIG)
    workdir.claim(tmp_path, CONFIG | {"epochs": 5}, free=["epochs"])
    assert workdir.read_json(tmp_path / "config.json")["epochs"] == 5
    with pytest.raises(ValueError, match="epochs=5, not 3"):
        workdir.check(tmp_path, CONFIG)


def test_a_folder_without_a_run_is_no_run(tmp_path):
    with pytest.raises(ValueError, match="there is no run"):
        workdir.check(tmp_path, CONFIG)


def test_a_file_in_the_way_is_an_os_error_that_names_it(tmp_path):
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(OSError, match="file"):
            workdir.claim(path, CONFIG)


def test_broken_json_is_named(tmp_path):
    (tmp_path / "config.json").write_text('{"epochs": 3')
    with pytest.raises(ValueError, match="config.json is not valid JSON"):
        workdir.claim(tmp_path, CONFIG)


@pytest.mark.parametrize("write", [workdir.write_json, workdir.write_metrics])
def test_a_write_that_fails_leaves_the_old_file(tmp_path, write):
    rows = [{"epoch": 1}]
    workdir.write_metrics(tmp_path, rows)
    target = tmp_path if write is workdir.write_metrics else tmp_path / "metrics.jsonl"
    with pytest.raises(TypeError):
        write(target, [*rows, {"epoch": object()}])
    assert workdir.read_metrics(tmp_path) == rows


def test_a_process_that_dies_while_writing_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "result.json"
    workdir.write_json(path, {"epoch": 1})

    def die(*_):
        raise KeyboardInterrupt

    # Death just before the new file takes the old one's place.
    monkeypatch.setattr("pathlib.Path.replace", die)
    with pytest.raises(KeyboardInterrupt):
        workdir.write_json(path, {"epoch": 2})
    assert workdir.read_json(path) == {"epoch": 1}


def test_metrics_are_read_back_without_an_unfinished_last_line(tmp_path):
    assert workdir.read_metrics(tmp_path) == []
    rows = [{"epoch": 1, "train": {"depth/loss": 0.5}}, {"epoch": 2, "train": {"depth/loss": 0.4}}]
    workdir.write_metrics(tmp_path, rows)
    assert workdir.read_metrics(tmp_path) == rows
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"epoch": 3, "train": {"dep')
    assert workdir.read_metrics(tmp_path) == rows


def test_samples_are_read_back(tmp_path):
    samples = {"image": np.zeros((2, 4, 4, 3), np.uint8), "depth": np.ones((2, 4, 4), np.float16)}
    workdir.write_samples(tmp_path, samples)
    with np.load(tmp_path / "samples.npz") as found:
        assert set(found) == set(samples)
        for name, value in samples.items():
            assert found[name].dtype == value.dtype
            np.testing.assert_array_equal(found[name], value)
