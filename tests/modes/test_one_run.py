"""One run from its training to its export and report, each mode from end to end."""

import json
import re
import shlex
import shutil

import numpy as np
import pytest
from PIL import Image

import launch
import mtl_jax
from datasets.rooms.primitives import CLASS_NAMES
from mtl_jax import models
from mtl_jax.runs import settings
from tests import tiny
from tests.command_line import ROOMS, command_line, complaint, parsed


def test_prepare_makes_the_data_set(prepared):
    assert (prepared / "rooms" / "40x56-8+4" / "1.0.0" / "dataset_info.json").exists()


def test_train_leaves_a_folder_that_explains_itself(trained):
    assert (trained / "report" / "report.html").exists()
    assert json.loads((trained / "result.json").read_text())["step"] == 2
    config = json.loads((trained / "config.json").read_text())
    assert config["weighting"] == "nash"
    assert config["dataset"] == "rooms:train=8,test=4"
    assert config["model"] == "tiny"
    assert config["schedule"] == "step"
    assert config["image_size"] == [40, 56]
    lines = (trained / "flags.txt").read_text().splitlines()
    assert "--model=tiny" in lines
    assert "--augment=false" in lines
    assert not any(line.startswith("--mode=") for line in lines)


def test_evaluate_needs_the_folder_alone(prepared, trained, capsys):
    place = [f"--data_dir={prepared}", f"--workdir={trained}", "--devices=1"]
    command_line("--mode=evaluate", *place)
    row = next(x for x in capsys.readouterr().out.splitlines() if x.startswith("latest on test"))
    result = json.loads((trained / "result.json").read_text())
    assert f" {100 * result['metrics']['segmentation/miou']:.2f} " in row
    kept = trained / "evaluation.npz"
    with np.load(kept) as arrays:
        before = dict(arrays)
    kept.unlink()
    # Another split or protocol is not that of the result, whose errors a report shows.
    again = ["--metric_protocol=mtan", "--eval_batch_size=2", "--split=train"]
    command_line("--mode=evaluate", *place, *again)
    assert "latest on train" in capsys.readouterr().out
    assert not kept.exists()
    command_line("--mode=evaluate", *place, "--flip_test")
    flipped = next(x for x in capsys.readouterr().out.splitlines() if "on test, flip test" in x)
    assert flipped.split()[5:] != row.split()[3:]
    assert not kept.exists()
    # The flags of the run may be repeated, and must be right.
    command_line("--mode=evaluate", f"--flagfile={trained / 'flags.txt'}")
    output = capsys.readouterr().out
    assert "latest on test" in output
    assert f"the errors that a report shows are in {kept}" in output
    with np.load(kept) as arrays:
        for name, array in before.items():
            if name == "normals/angles":
                # Rounding may move a pixel at the border of two bins of this histogram.
                moved = np.cumsum(arrays[name], dtype=int) - np.cumsum(array, dtype=int)
                assert np.abs(moved).max() <= 1
            else:
                np.testing.assert_allclose(arrays[name], array, rtol=1e-5)
    for wrong in ("--weighting=uw", "--model=resnet_unet:backbone=resnet50", "--seed=1"):
        assert f"{trained} holds a run with {wrong.partition('=')[0]}=" in complaint(
            "--mode=evaluate", *place, wrong
        )
    assert "holds the steps [2]" in complaint("--mode=evaluate", *place, "--checkpoint=7")
    assert "--split=validation" in complaint("--mode=evaluate", *place, "--split=validation")


def test_a_flip_test_is_no_part_of_training(prepared, trained, tmp_path, capsys):
    place = [f"--data_dir={prepared}", f"--workdir={tmp_path}"]
    command_line(*ROOMS, *place, "--model=tiny", "--weigh_every=2", "--flip_test")
    assert "note: --flip_test has no effect with --mode=train" in capsys.readouterr().out
    found, same = (json.loads((x / "result.json").read_text()) for x in (tmp_path, trained))
    assert found["metrics"] == pytest.approx(same["metrics"], rel=1e-4)


def test_an_evaluation_on_other_files_leaves_the_errors_of_the_report_alone(
    prepared, trained, tmp_path, capsys
):
    run = tmp_path / "run"
    shutil.copytree(trained, run)
    config = json.loads((run / "config.json").read_text())
    # As if it had been trained on files of one's own.
    (run / "config.json").write_text(json.dumps(config | {"data": "mine-40x56-0123456789ab"}))
    (run / "evaluation.npz").write_bytes(b"of the result")
    command_line("--mode=evaluate", f"--data_dir={prepared}", f"--workdir={run}", "--devices=1")
    output = capsys.readouterr().out
    assert "latest on test" in output
    assert f"so {run / 'evaluation.npz'} stays as it is" in output
    assert (run / "evaluation.npz").read_bytes() == b"of the result"


def test_diagnose_looks_at_a_checkpoint_and_leaves_the_run_alone(
    prepared, trained, tmp_path, capsys
):
    before = {path: path.stat().st_mtime_ns for path in trained.rglob("*")}
    place = [f"--data_dir={prepared}", f"--workdir={trained}", f"--out={tmp_path}"]
    command_line("--mode=diagnose", *place, "--diagnose_steps=2", "--devices=1")
    assert before == {path: path.stat().st_mtime_ns for path in trained.rglob("*")}
    text = (tmp_path / "diagnose.md").read_text()
    assert f"in 2 steps at checkpoint latest of {trained}, batches of 4 images" in text
    assert "| segmentation, depth |" in text
    with Image.open(tmp_path / "diagnose.png") as picture:
        assert picture.width > 800
    assert f"written to {tmp_path / 'diagnose.md'}" in capsys.readouterr().out


def test_flags_of_a_diagnosed_run_must_be_those_of_the_run(prepared, trained, tmp_path, capsys):
    place = [f"--data_dir={prepared}", f"--workdir={trained}", f"--out={tmp_path}"]
    diagnose = ["--mode=diagnose", *place, "--diagnose_steps=1", "--devices=1"]
    assert "--weighting=nash, not uw" in complaint(*diagnose, "--weighting=uw")
    assert "--learning_rates=, not 0.1" in complaint(*diagnose, "--learning_rates=0.1")
    # Images may have moved since the training.
    command_line(*diagnose, f"--folder={tmp_path}")
    assert "note:" not in capsys.readouterr().out


def test_diagnose_trains_a_new_network(prepared, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(models.MODELS, "tiny", tiny.model)
    place = [f"--data_dir={prepared}", f"--workdir={tmp_path}"]
    new = ["--mode=diagnose", *ROOMS, *place, "--model=tiny", "--diagnose_steps=2"]
    command_line(*new, "--weighting=uw")
    assert "note: --weighting has no effect with --mode=diagnose" in capsys.readouterr().out
    assert "in the first 2 steps of training" in (tmp_path / "diagnose.md").read_text()
    alone = complaint("--mode=diagnose", *ROOMS, *place, "--tasks=depth")
    assert "--tasks=depth: a diagnosis needs at least two tasks" in alone


@pytest.fixture(scope="module")
def exported(trained, tmp_path_factory):
    """The folder of an export, which needs no images."""
    folder = tmp_path_factory.mktemp("exports") / "model"
    with pytest.MonkeyPatch.context() as patch:

        def refuse(*args, **kwargs):
            raise AssertionError("the data set is opened")

        patch.setattr(launch.datasets, "builder", refuse)
        command_line("--mode=export", f"--workdir={trained}", f"--out={folder}")
    return folder


def test_export_gives_the_network_of_the_run(trained, exported):
    image = np.random.default_rng(0).integers(0, 256, (40, 70, 3), np.uint8)
    expected = mtl_jax.load(trained)(image, flip_test=True)
    found = mtl_jax.load(exported)(image, flip_test=True)
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, atol=1e-4)


def test_export_says_how_the_network_was_trained(trained, exported):
    card = (exported / "README.md").read_text()
    (block,) = re.findall(r"    (python launch\.py (?:.*\\\n)*.*)", card)
    repeated = parsed(*shlex.split(block.replace("\\\n", " "))[2:])
    config = json.loads((trained / "config.json").read_text())
    for name in config.keys() - {*settings.FACTS, "image_size"}:
        assert config[name] in (None, getattr(repeated, name)), name
    result = json.loads((trained / "result.json").read_text())
    assert f"| mIoU % ↑ | {100 * result['metrics']['segmentation/miou']:.2f} |" in card
    assert "rendered by mtl_jax" in card
    assert "field of view of" in card


def test_an_export_says_that_the_run_has_not_finished(trained, tmp_path, capsys):
    run = shutil.copytree(trained, tmp_path / "run")
    note = "note: the run has not been trained to its end; this is its state at step"
    command_line("--mode=export", f"--workdir={run}")
    assert note not in capsys.readouterr().out
    step = json.loads((run / "result.json").read_text())["step"]
    (run / "result.json").unlink()
    command_line("--mode=export", f"--workdir={run}")
    assert f"{note} {step}\n" in capsys.readouterr().out


def test_an_export_replaces_nothing_but_an_export(prepared, trained, tmp_path):
    place = [f"--data_dir={prepared}", f"--workdir={trained}"]
    precious = tmp_path / "config.json"
    precious.write_text("{}")
    assert "--out=" in complaint("--mode=export", *place, f"--out={precious}")
    assert "no export" in complaint("--mode=export", *place, f"--out={tmp_path}")
    assert precious.read_text() == "{}"


def test_a_folder_is_loaded_in_python(trained, tmp_path):
    predictor = mtl_jax.load(trained)
    assert predictor.tasks == ("segmentation", "depth", "normals")
    assert predictor.class_names == CLASS_NAMES
    assert predictor.image_size == (40, 56)
    with np.load(trained / "samples.npz") as samples:
        predictions = predictor(samples["image"])
        for name in predictor.tasks:
            expected = samples[f"predicted_{name}"].astype(np.float32)
            np.testing.assert_allclose(predictions[name], expected, rtol=1e-3, atol=1e-3)
    with pytest.raises(ValueError, match=r"checkpoint`=7: .* holds the steps \[2\]"):
        mtl_jax.load(str(trained), checkpoint=7)
    with pytest.raises(ValueError, match=f"{tmp_path} is neither a run's folder"):
        mtl_jax.load(tmp_path)


def test_predict_writes_what_the_predictor_gives(trained, tmp_path, capsys):
    pixels = np.random.default_rng(0).integers(0, 256, (40, 56, 3), np.uint8)
    (tmp_path / "in").mkdir()
    Image.fromarray(pixels).save(tmp_path / "in" / "a.png")
    given = ["--mode=predict", f"--workdir={trained}", f"--input={tmp_path / 'in'}"]
    command_line(*given, f"--out={tmp_path / 'out'}", "--save_arrays")
    assert "1 photo predicted, see" in capsys.readouterr().out
    expected = mtl_jax.load(trained)(pixels)
    with np.load(tmp_path / "out" / "a.npz") as found:
        for name, prediction in expected.items():
            np.testing.assert_allclose(found[name], prediction, rtol=1e-5, atol=1e-6)
    again = complaint(*given, f"--out={tmp_path / 'out'}")
    assert again.startswith("launch.py: 4 files would be overwritten")
    assert again.endswith("give --overwrite or another --out")
    assert "--weighting=nash, not uw" in complaint(*given, "--weighting=uw")


def test_report_draws_runs_again(trained, tmp_path):
    command_line("--mode=report", f"--workdir={trained}", f"--out={tmp_path / 'elsewhere'}")
    assert (tmp_path / "elsewhere" / "table.csv").exists()


def test_a_run_goes_on_only_as_what_it_is(prepared, trained):
    again = [*ROOMS, f"--data_dir={prepared}", f"--workdir={trained}", "--model=tiny"]
    assert "--weighting=nash, not uw" in complaint(*again, "--weighting=uw")
    assert "--weighting=nash, not uw" in complaint(*again, "--weighting=uw", "--weigh_every=2")
    assert "--weigh_every=2, not 1" in complaint(*again)
    other = "resnet_unet:backbone=resnet18"
    message = complaint(*again, "--weigh_every=2", f"--model={other}")
    assert f"--model=tiny, not {other}" in message


def test_nothing_is_rendered_or_downloaded_for_a_run_that_has_its_data_elsewhere(trained, tmp_path):
    data_dir = tmp_path / "elsewhere"
    message = complaint("--mode=evaluate", f"--workdir={trained}", f"--data_dir={data_dir}")
    assert f"there is no prepared data set in {data_dir}" in message
    assert "give the --data_dir that has it" in message
    assert not data_dir.exists()
