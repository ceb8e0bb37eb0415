"""The command line: a run from end to end, and one clear line for whatever a user gets wrong."""

import json
import math
import re
import subprocess
import sys
from types import SimpleNamespace

import pytest
from absl import flags
from absl.testing import flagsaver

import launch
from mtl_jax.runs import workdir
from mtl_jax.weighting import METHODS
from tests import fakes

SMALL = {"backbone": "resnet18", "batch_size": 4, "eval_batch_size": 4, "devices": 1, "epochs": 1}


@pytest.fixture(autouse=True)
def parsed_flags(tmp_path):
    if not flags.FLAGS.is_parsed():
        flags.FLAGS(["launch.py"])
    with flagsaver.flagsaver(workdir=[str(tmp_path / "run")], data_dir=str(tmp_path), **SMALL):
        yield


@pytest.fixture
def fake_data(monkeypatch):
    """A data set in memory in place of one on disk; what was asked for is in the list returned."""
    prepared = []
    builder = fakes.builder(train=9, test=5, height=96, width=96)
    in_memory = SimpleNamespace(prepare=lambda *arguments: prepared.append(arguments))
    monkeypatch.setattr(launch, "make_builder", lambda args: builder)
    monkeypatch.setattr(launch, "DATASETS", {"nyu_depth_v2": in_memory})
    return prepared


def complaint(**values):
    """The line with which launch.py leaves."""
    with flagsaver.flagsaver(**values), pytest.raises(SystemExit) as exit:
        launch.main(["launch.py"])
    message = str(exit.value.code)
    assert message.startswith("launch.py: ")
    assert "\n" not in message
    return message


def test_a_run_from_end_to_end(fake_data, tmp_path, capsys):
    launch.main(["launch.py"])
    folder = tmp_path / "run"
    output = capsys.readouterr().out
    assert "trivial predictor" in output
    assert (folder / "report" / "report.html").exists()
    result = json.loads((folder / "result.json").read_text())
    assert result["step"] == 2
    config = json.loads((folder / "config.json").read_text())
    assert config["weighting"] == "nash"
    assert config["image_size"] == [96, 96]
    lines = (folder / "flags.txt").read_text().splitlines()
    assert "--backbone=resnet18" in lines
    assert not any(line.startswith("--mode=") for line in lines)

    with flagsaver.flagsaver(mode="evaluate"):
        launch.main(["launch.py"])
    row = next(x for x in capsys.readouterr().out.splitlines() if x.startswith("latest on test"))
    assert f" {100 * result['metrics']['segmentation/miou']:.2f} " in row

    with flagsaver.flagsaver(mode="evaluate", metric_protocol="mtan", split="train"):
        launch.main(["launch.py"])
    assert "latest on train" in capsys.readouterr().out

    with flagsaver.flagsaver(mode="export", out=str(tmp_path / "weights.safetensors")):
        launch.main(["launch.py"])
    assert "tensors written to" in capsys.readouterr().out
    with flagsaver.flagsaver(
        pretrained=str(tmp_path / "weights.safetensors"), workdir=[str(tmp_path / "next")]
    ):
        launch.main(["launch.py"])
    assert "100 tensors for the encoder, 91 for the rest; not used: none" in capsys.readouterr().out

    with flagsaver.flagsaver(mode="report", out=str(tmp_path / "elsewhere")):
        launch.main(["launch.py"])
    assert (tmp_path / "elsewhere" / "table.csv").exists()

    assert "weighting=nash, not uw" in complaint(weighting="uw")
    assert "backbone=resnet18, not resnet50" in complaint(backbone="resnet50")
    assert "holds the steps [2]" in complaint(mode="evaluate", checkpoint="7")
    assert "--validation" in complaint(mode="evaluate", split="validation")
    for part in (folder / "checkpoints" / "2").rglob("*"):
        if part.is_file() and part.stat().st_size > 100:
            part.write_bytes(b"broken")
    assert "is damaged" in complaint(mode="evaluate")


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"tasks": ["segmentation", "edges"]}, "unknown task 'edges': choose from"),
        ({"tasks": ["depth", "depth"]}, "different names"),
        ({"batch_size": 0}, "--batch_size"),
        ({"batch_size": 10}, "1 to 9"),
        ({"eval_batch_size": 0}, "--eval_batch_size"),
        ({"devices": 99}, "--devices=99"),
        ({"learning_rate": -1.0}, "--learning_rate=-1.0: must be positive"),
        ({"weight_decay": -1.0}, "--weight_decay"),
        ({"warmup_epochs": 5.0}, "--warmup_epochs"),
        ({"keep": 0}, "--keep=0"),
        ({"pretrained": "nothing.pth"}, "--pretrained=nothing.pth: there is no such file"),
        (
            {"pretrained": "of-{seed}.pth", "seed": 7},
            "--pretrained=of-7.pth: there is no such file",
        ),
        ({"depth_loss": "stereo"}, "no image_right: leave depth out of --tasks or set"),
        ({"normals_loss": "codebook"}, "--normals_codewords=20: must be 4 to 3"),
        ({"mode": "compare", "weighting": "mgda"}, "--weighting=mgda: --mode=compare knows"),
        ({"nash_max_norm": -1.0}, "--nash_max_norm=-1.0: must not be negative"),
        ({"validation": 9}, "--validation=9"),
        ({"workdir": ["/proc/nowhere/run"]}, "/proc/nowhere"),
        ({"workdir": ["one", "two"]}, "takes one folder"),
        ({"weighting": "fixed", "task_weights": ["1", "x"]}, "--task_weights=1,x: give numbers"),
        (
            {"weighting": "fixed", "task_weights": ["1", "2"]},
            "--task_weights=1,2: give one number for each of the 3 tasks",
        ),
        ({"weighting": "cagrad", "cagrad_c": -1.0}, "--cagrad_c=-1.0: must not be negative"),
        ({"weighting": "modo"}, "--batch_size=4: this weighting compares three equal parts"),
        ({"mode": "sweep", "weightings": ["uw", "foo"]}, "--weightings: no 'foo'; choose from"),
        ({"mode": "sweep", "weightings": ["uw", "uw"]}, "--weightings=uw,uw: give one or more"),
        ({"mode": "sweep", "seeds": ["one"]}, "--seeds=one: give whole numbers"),
        ({"mode": "sweep", "seeds": ["3000000000"]}, "--seeds=3000000000: give whole numbers up"),
        ({"mode": "study", "seeds": []}, "--seeds=: give one or more"),
        ({"mode": "study", "label_fractions": ["1e999"]}, "--label_fractions: 1e999 is no part"),
        ({"mode": "report", "tasks": []}, "--tasks: tasks must be one or more"),
        ({"learning_rate": math.inf}, "--learning_rate=inf: give a finite number"),
        ({"weight_decay": math.inf}, "--weight_decay=inf: give a finite number"),
        ({"weight_decay": 1e5}, "--weight_decay=100000.0: must not be negative, and less than"),
        ({"colour_jitter": math.nan}, "--colour_jitter=nan: give a finite number"),
        ({"epochs": 10**15}, "--epochs=1000000000000000"),
        ({"eval_batch_size": 10**12}, "--eval_batch_size=1000000000000: no split has more than 9"),
        ({"label_fraction": 0.0}, "--label_fraction=0.0: must be in 0 (excluded) to 1"),
        ({"label_fraction": 0.5, "tasks": ["depth"]}, "--label_fraction=0.5 has no effect"),
        ({"depth_loss": "stereo", "tasks": ["normals"]}, "--depth_loss=stereo has no effect"),
        ({"normals_loss": "codebook", "tasks": ["depth"]}, "--normals_loss=codebook has no effect"),
        ({"gradients": "features", "weighting": "equal"}, "--gradients=features has no effect"),
        ({"gradients": "features", "weighting": "moco"}, "--gradients=features has no effect"),
        ({"task_weights": ["1"], "tasks": ["depth"]}, "--task_weights=1 has no effect"),
        ({"dwa_temperature": 3.0}, "--dwa_temperature=3.0 has no effect: it goes with"),
        ({"dwa_temperature": 0.0, "weighting": "dwa"}, "--dwa_temperature: "),
        ({"model": "segnet", "backbone": "resnet34", "pretrained": "x"}, "--pretrained=x has no"),
        ({"nyu_layout": "mtan", "nyu_classes": "40"}, "--nyu_classes=40: --nyu_layout=mtan has 13"),
        ({"checkpoint": "²"}, "--checkpoint=²: give latest, best"),
        ({"workdir": ["a", ""]}, "--workdir: a name is empty"),
        (
            {"workdir": ["gs://bucket/run"]},
            "--workdir=gs://bucket/run: addresses are not supported",
        ),
        ({"data_dir": "s3://bucket"}, "--data_dir=s3://bucket: addresses are not supported"),
        ({"manual_dir": __file__}, "is a file: give a folder"),
        ({"workdir": [__file__]}, "is a file: give a folder"),
        ({"workdir": ["x" * 300]}, "File name too long"),
        ({"mode": "study", "label_fractions": ["2"]}, "--label_fractions: 2 is no part"),
        ({"mode": "study", "label_fractions": ["nan"]}, "--label_fractions: nan is no part"),
        ({"mode": "study", "arms": ["segmentation", "depth"]}, "--arms=depth: each needs segm"),
        ({"mode": "study", "arms": ["segmentation+foo"]}, "--arms=segmentation+foo: unknown task"),
        ({"mode": "sweep", "weightings": ["uw", "modo"]}, "(run modo-0 of this sweep)"),
        ({"mode": "sweep", "learning_rate": -1.0}, "--learning_rate=-1.0: must be positive"),
        ({"mode": "evaluate"}, "there is no run"),
        ({"mode": "export"}, "there is no run"),
        ({"mode": "benchmark", "tasks": ["depth"]}, "--tasks: --mode=benchmark compares"),
        ({"mode": "compare", "nash_every": 2}, "--nash_every=2: --mode=compare knows 1"),
        (
            {"mode": "compare", "model": "mtan", "backbone": "resnet34"},
            "--model=mtan: --mode=compare knows resnet_unet",
        ),
        ({"coordinator": "localhost"}, "--coordinator=localhost: give HOST:PORT"),
        ({"process_id": 1}, "--num_processes and --process_id go with --coordinator"),
        (
            {"colour_jitter": 0.5, "augment": False},
            "--colour_jitter=0.5 has no effect: it goes with --augment",
        ),
        ({"warmup_epochs": float("inf")}, "--warmup_epochs=inf"),
    ],
)
def test_values_that_make_no_sense(fake_data, tmp_path, values, words):
    before = sorted(tmp_path.rglob("*"))
    assert words in complaint(**values)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"label_seed": 1}, "--label_seed=1 has no effect: it goes with --label_fraction below 1"),
        ({"labelled_per_batch": 1}, "--labelled_per_batch=1 has no effect"),
        ({"nearest_depth": 0.5}, "--nearest_depth=0.5 has no effect"),
        ({"normals_codewords": 9}, "--normals_codewords=9 has no effect"),
        ({"nash_every": 2, "weighting": "uw"}, "--nash_every=2 has no effect"),
        ({"halve_every": 9, "schedule": "cosine"}, "--halve_every=9 has no effect"),
        ({"model": "segnet"}, "--backbone=resnet18 has no effect: it goes with --model=resnet_un"),
        ({"rooms_train": 9}, "--rooms_train=9 has no effect: it goes with --dataset=rooms"),
        ({"weightings": ["nash"]}, "--weightings has no effect with --mode=train"),
        ({"split": "train"}, "--split has no effect with --mode=train"),
    ],
)
def test_harmless_flags_without_effect_are_reported(capsys, values, words):
    with flagsaver.flagsaver(**values):
        launch.check_flags(flags.FLAGS)
    assert f"note: {words}" in capsys.readouterr().out


def test_a_flag_file_may_hold_flags_of_other_runs_of_a_sweep(capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", ["launch.py", "--flagfile=runs/nash-0/flags.txt"])
    with flagsaver.flagsaver(uw_form="likelihood", dwa_temperature=3.0):
        launch.check_flags(flags.FLAGS)
    printed = capsys.readouterr().out
    assert "note: --uw_form=likelihood has no effect" in printed
    assert "note: --dwa_temperature=3.0 has no effect" in printed


def test_all_weightings_are_those_that_the_other_flags_allow(fake_data, capsys):
    with flagsaver.flagsaver(mode="sweep", weightings=["all"], batch_size=3):
        names = launch.parse_weightings(flags.FLAGS)
    assert set(METHODS) - set(names) == {"modo", "sdmgrad"}
    printed = capsys.readouterr().out
    assert "note: --weightings=all leaves out modo: --batch_size=3" in printed
    # What stands against all of them is an error and leaves nothing out.
    assert "--batch_size=1" in complaint(mode="sweep", weightings=["all"], batch_size=1)


def test_debug_shows_the_traceback():
    ended = subprocess.run(
        [sys.executable, "launch.py", "--debug", "--learning_rate=-1"],
        capture_output=True, text=True,
    )  # fmt: skip
    assert ended.returncode == 1
    assert "Traceback" in ended.stderr
    assert ended.stderr.splitlines()[-1].startswith("ValueError: --learning_rate=-1.0")


def test_nothing_is_prepared_for_a_run_that_cannot_work(fake_data):
    complaint(batch_size=10)
    complaint(pretrained="nothing.pth")
    complaint(mode="sweep", weightings=["uw", "modo"])
    complaint(mode="evaluate")
    assert not fake_data


def test_every_flag_is_in_one_list_of_what_may_change():
    names = {flag.name for flag in flags.FLAGS.get_flags_for_module(launch)}
    free, length = set(launch.PLACE_AND_SPEED), set(launch.LENGTH)
    assert len(free) == len(launch.PLACE_AND_SPEED)
    assert not free & length
    assert free | length <= names
    # All others define a run: a new flag does, until somebody says that it may change.
    config = launch.describe(flags.FLAGS, launch.facts_of(flags.FLAGS))
    assert set(config) == names - free | {"class_names"}


@pytest.mark.parametrize(
    "bad",
    [
        {"weighting": "fixed", "task_weights": ["1", "2"]},
        {"weighting": "modo"},
        {"weighting": "graddrop", "gradients": "features"},
        {"normals_loss": "codebook", "normals_codewords": 3},
    ],
)
def test_a_bad_flag_leaves_the_folder_free_for_a_better_one(fake_data, tmp_path, bad):
    complaint(**bad)
    assert not (tmp_path / "run").exists()


def test_a_sweep_skips_what_is_done_and_tells_what_failed(fake_data, tmp_path, capsys, monkeypatch):
    trained = []

    def run(args):
        name = launch.folder_of(args).name
        trained.append(name)
        if name == "uw-1":
            raise ValueError("no luck")
        folder = launch.folder_of(args)
        folder.mkdir(parents=True)
        workdir.write(folder, launch.describe(args, launch.facts_of(args)))
        metrics = {"segmentation/miou": 0.1 * len(trained)}
        result = {"split": "test", "epoch": 1, "step": 9, "metrics": metrics, "floor": metrics}
        workdir.write_json(folder / "result.json", result)

    monkeypatch.setattr(launch, "run", run)
    grid = {
        "mode": "sweep",
        "weightings": ["uw"],
        "seeds": ["0", "1"],
        "tasks": ["depth", "normals"],
    }
    assert "1 of 6 runs failed: uw-1" in complaint(**grid)
    assert trained == ["depth-0", "normals-0", "uw-0", "depth-1", "normals-1", "uw-1"]
    assert (tmp_path / "run" / "report" / "table.md").exists()
    assert json.loads((tmp_path / "run" / "depth-1" / "config.json").read_text())["seed"] == 1
    capsys.readouterr()

    complaint(**grid)
    assert trained[6:] == ["uw-1"]
    assert capsys.readouterr().out.count("done already") == 5
    # A longer run is not done, and another run's folder is not taken.
    message = complaint(**grid, epochs=2, batch_size=3)
    assert "holds a run with batch_size=4, not 3" in message
    assert "(run depth-0 of this sweep)" in message


@pytest.mark.parametrize("text", ["96", "96x", "axb", "-3x4", "96x128x3"])
def test_image_sizes_that_are_none(text):
    assert "--image_size" in complaint(image_size=text)


@pytest.mark.parametrize(
    ("flag", "value"), [("weighting", "foo"), ("dataset", "foo"), ("backbone", "vgg")]
)
def test_unknown_names_are_answered_with_the_known_ones(flag, value):
    with pytest.raises(flags.IllegalFlagValueError, match="value should be one of"):
        flags.FLAGS[flag].parse(value)


@pytest.mark.parametrize(
    ("flag", "value"),
    [("epochs", 0), ("nash_every", 0), ("evaluate_every", 0), ("colour_jitter", -0.5)],
)
def test_values_out_of_bounds(flag, value):
    with pytest.raises(flags.IllegalFlagValueError):
        flags.FLAGS[flag].parse(str(value))


def test_a_missing_run(tmp_path):
    assert "not a run" in complaint(mode="report", workdir=[str(tmp_path / "nothing")])


def test_every_flag_says_what_it_is_for():
    groups = {"run", "data", "model", "weighting", "training", "evaluation"}
    for flag in flags.FLAGS.get_flags_for_module(launch):
        # Of an enumeration absl puts the values in front.
        group, _, text = re.sub(r"^<.*?>: ", "", flag.help).partition(": ")
        assert group in groups
        assert len(text) > 10


def test_an_export_overwrites_nothing_but_weights(fake_data, tmp_path, monkeypatch):
    monkeypatch.setattr(launch, "check_evaluated", lambda args: tmp_path)
    precious = tmp_path / "config.json"
    precious.write_text("{}")
    message = complaint(mode="export", out=str(precious))
    assert "exists and is no .safetensors file" in message
    assert precious.read_text() == "{}"


def test_a_sweep_does_not_take_the_folder_of_a_run(fake_data, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").write_text("{}")
    assert "holds a run: give this sweep a folder of its own" in complaint(mode="sweep")


def test_failures_of_a_training_are_reported(capsys):
    launch.warn_of_failures({"metrics": {"depth/rmse": math.nan, "a/b": 1.0}, "skipped_steps": 2})
    printed = capsys.readouterr().out
    assert "WARNING: 2 steps were skipped" in printed
    assert "WARNING: no numbers for depth/rmse:" in printed
    launch.warn_of_failures({"metrics": {"a/b": 1.0}, "skipped_steps": 0})
    assert capsys.readouterr().out == ""
