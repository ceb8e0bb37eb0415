"""The command line: one clear line for each mistake of a user, and settings that are recorded."""

import errno
import json
import math

import pytest

import launch
from mtl_jax import data
from mtl_jax.commands import assembly, one_run, sweeps
from mtl_jax.runs import settings, workdir
from mtl_jax.runs.text import as_text
from mtl_jax.training import outcome
from mtl_jax.weighting import METHODS
from tests import fakes
from tests.command_line import SMALL, complaint, given, parsed


@pytest.fixture(autouse=True)
def readable_xla_flags(monkeypatch):
    """Saves the process that tries them in each command; tests/test_faults.py has that."""
    monkeypatch.setattr(launch.faults, "check_xla_flags", lambda: None)


def changed(name, value):
    """Another value of a setting."""
    others = {
        "tasks": ["depth"], "image_size": (32, 32), "weighting": "uw", "model": "segnet",
        "dataset": "rooms", "gradients": "features", "pretrained": "a.pth",
    }  # fmt: skip
    if name in others:
        return others[name]
    if isinstance(value, bool):
        return not value
    return value + 1 if isinstance(value, (int, float)) else f"{value} and more"


@pytest.mark.parametrize("name", [flag.name for flag in launch.own_flags()])
def test_a_run_is_resumed_with_all_that_defines_it(tmp_path, name):
    base = {
        "label_fraction": 0.5,
        "image_size": (96, 128),
        "workdir": [str(tmp_path)],
        "dataset": "folder",
    }
    run = settings.Settings(**vars(parsed()) | base)
    workdir.write(tmp_path, settings.record(run, class_names=[]))
    other = settings.Settings(**vars(run) | {name: changed(name, getattr(run, name))})
    may_change = {
        "workdir", "out", "data_dir", "manual_dir", "compilation_cache", "devices", "cache",
        "diagnose_steps", "coordinator", "num_processes", "process_id", "epochs", "evaluate_every",
        "eval_batch_size", "keep", "mode", "debug", "checkpoint", "split", "benchmark_steps",
        "compare_torch", "weightings", "seeds", "arms", "label_fractions", "input", "overwrite",
        "save_arrays", "flip_test", "tile", "point_cloud", "focal_length", "host", "port",
        "benchmark", "models", "patience", "sensor_depth",
    }  # fmt: skip
    if name in may_change:
        # A workdir that differs is another folder.
        other.workdir = run.workdir
        settings.check_folder(other, class_names=[])
    else:
        with pytest.raises(ValueError, match=f"holds a run with `{name}`="):
            settings.check_folder(other, class_names=[])


def test_idle_settings_are_recorded_as_the_defaults_of_their_flags():
    defaults = {flag.name: flag.default for flag in launch.own_flags()}
    as_number = defaults | {"label_fraction": 1.0}
    assert {name: as_number[name] for name in settings.IDLE} == settings.IDLE


OWN_BY_GRADIENTS = """
import jax
import jax.numpy as jnp
from mtl_jax.weighting import from_gradients_update

SCALE = jnp.ones(3)

def own():
    def init(num_tasks, shared):
        return jnp.zeros(jax.tree.leaves(shared)[0].shape)

    return from_gradients_update(lambda gradients, state: (SCALE, state), init)
"""


def test_a_method_of_your_own_may_read_the_shapes_of_the_parameters(fake_data, tmp_path):
    (tmp_path / "heavy.py").write_text(OWN_BY_GRADIENTS)
    args = parsed(*SMALL, f"--workdir={tmp_path / 'run'}", f"--weighting={tmp_path}/heavy.py:own")
    outline = launch.outline_of(args)
    recipe, _ = assembly.build(args, outline)
    assert recipe.weighting.needs == "gradients"


def test_processes_meet_before_a_file_of_your_own_is_executed(fake_data, tmp_path, monkeypatch):
    path = tmp_path / "uses_jax.py"
    path.write_text("raise ValueError('executed')")
    met = []
    monkeypatch.setattr(launch.parallel, "join", lambda *args: met.append(args))
    # --weigh_every asks what a weighting needs.
    words = ["--coordinator=localhost:1", "--weigh_every=2", f"--weighting={path}:own"]
    with given(*words):
        assert not met
    assert "(ValueError: executed)" in complaint(*SMALL, *words)
    assert len(met) == 1


@pytest.fixture
def fake_data(monkeypatch, tmp_path):
    """A data set in memory in place of one on disk; what was asked for is in the list returned."""
    made = []
    builder = fakes.builder(train=9, test=5, height=96, width=96)
    monkeypatch.setattr(launch, "builder_of", lambda args: builder)
    monkeypatch.setattr(launch.datasets, "prepare", lambda *args, **kwargs: made.append(args))
    return made


@pytest.fixture
def refuse(fake_data, tmp_path):
    """Runs a command that must be refused before anything is made; returns the complaint."""

    def run(*words):
        place = [f"--workdir={tmp_path / 'run'}", f"--data_dir={tmp_path}"]
        before = sorted(tmp_path.rglob("*"))
        message = complaint(*SMALL, *place, *words)
        assert sorted(tmp_path.rglob("*")) == before
        assert not fake_data
        return message

    return run


REFUSED = {
    "--tasks=segmentation,edges": "unknown task 'edges': choose from",
    "--tasks=depth,depth": "different names",
    "--tasks=": "one or more different names",
    "--batch_size=0": "--batch_size=0: 0 is not a positive integer",
    "--batch_size=10": "--batch_size=10: must be 1 to 9",
    "--eval_batch_size=0": "--eval_batch_size=0: 0 is not a positive integer",
    f"--eval_batch_size={10**12}": "--eval_batch_size=1000000000000: set at most 9",
    "--devices=99": "--devices=99: devices here: ",
    "--learning_rate=-1": "--learning_rate=-1: -1.0 is not a number in the range",
    "--learning_rate=inf": "--learning_rate=inf: inf is not a number in the range",
    "--learning_rate=nan": "--learning_rate=nan: give a finite number",
    "--optimizer=lion": "--optimizer=lion: 'lion' is unknown: choose from adam, adamw, sgd",
    "--optimizer=adam:weight_decay=1": "adam has no option 'weight_decay'; its options are clip",
    "--optimizer=adamw:weight_decay=-1": "weight_decay=-1: weight_decay must be 0 or more",
    "--optimizer=adamw:weight_decay=1e5": "weight_decay must be less than 1 / --learning_rate",
    "--optimizer=sgd:clip=0": "--optimizer=sgd:clip=0: clip must be positive",
    "--optimizer=sgd:momentum=nan": "momentum must be a number, got 'nan'",
    "--mode=compare --weighting=uw --optimizer=sgd": (
        "--optimizer=sgd: --mode=compare supports adam"
    ),
    "--warmup_epochs=5": "--warmup_epochs=5.0: must be 0 or more, and less than the run's --epochs",
    "--warmup_epochs=inf": "--warmup_epochs=inf: give a finite number",
    "--keep=0": "--keep=0: 0 is not a positive integer",
    "--schedule=poly": "launch.py: --schedule=poly: 'poly' is unknown: choose from step",
    "--schedule=step:halve_every=0": "=0: halve_every must be at least 1 epoch",
    "--schedule=cosine:halve_every=5": "cosine has no option 'halve_every'",
    "--augment --colour_jitter=nan": "--colour_jitter=nan: give a finite number",
    "--augment --colour_jitter=-0.5": "--colour_jitter=-0.5: -0.5 is not a number in the range",
    "--crop_scales=1,0.9": "--crop_scales=1,0.9: give numbers from 1 to 10, such as 1,1.2,1.5",
    "--crop_scales=": "--crop_scales=: give numbers from 1 to 10, such as 1,1.2,1.5",
    "--crop_scales=1": "--crop_scales=1.0 has no effect: it needs --augment",
    "--colour_jitter=0.5": "--colour_jitter=0.5 has no effect: it needs --augment",
    f"--epochs={10**15}": "steps are more than can be counted",
    "--validation=9": "--validation=9: 0 to 8",
    "--label_fraction=0": "0 is not a fraction of the images",
    "--label_fraction=0.5 --tasks=depth": "--label_fraction=0.5 has no effect",
    "--image_size=96": "--image_size=96: give HEIGHTxWIDTH",
    "--image_size=96x128x3": "give HEIGHTxWIDTH",
    "--pretrained=nothing.pth": "--pretrained=nothing.pth: there is no such file",
    "--pretrained=of-{seed}.pth --seed=7": "--pretrained=of-7.pth: there is no such file",
    "--model=resnet_unet:frozen=true": "give an encoder to keep by --pretrained=FILE",
    "--model=segnet:frozen=true": "--model=segnet:frozen=true: segnet has no option 'frozen'",
    "--mode=compare --weighting=uw --model=resnet_unet:frozen=true": "trains the whole network",
    "--mode=compare --weighting=uw --model=resnet_unet:norm=group": "supports only norm=batch",
    "--model=resnet_unet:norm=layer": "unknown norm 'layer': choose from batch, group, frozen",
    "--model=resnet_unet:norm=frozen": "give running statistics to keep by --pretr",
    "--model=mtan:norm=frozen": "unknown norm 'frozen': this network has batch and group",
    "--accumulate=3": "--accumulate=3: it must divide the images of a device, ",
    "--gradients=recomputed --accumulate=2": "--gradients=recomputed: with --accumulate=2 the",
    "--average=1": "--average=1.0: must be 0 or more, and less than 1",
    "--patience=2": "--patience=2: it counts evaluations on images that are held out; set --valid",
    "--optimizer=adam:encoder_rate=0.1 --model=segnet": "encoder_rate has no effect with --model=",
    "--segmentation_loss=ce:weights=1+2": "--segmentation_loss: it has 2 class weights, and there",
    "--segmentation_loss=ce:weights=1+x": "weights=1+x: unknown, choose equal or frequency, or",
    "--model=segnet --pretrained=x": "--pretrained=x: there is no such file",
    "--model=vgg": "'vgg' is unknown: choose from resnet_unet",
    "--model=resnet_unet:backbone=vgg": "unknown backbone 'vgg'",
    "--segmentation_loss=focal:gamma=-1": "--segmentation_loss=focal:gamma=-1: gamma must be",
    "--segmentation_loss=dice --tasks=depth": "--segmentation_loss=dice has no effect",
    "--mode=compare --weighting=uw --segmentation_loss=dice": "--mode=compare supports ce",
    "--mode=benchmark --segmentation_loss=ce:weights=frequency": "no labels to fit the loss to",
    "--depth_loss=stereo": "no image_right: leave depth out of --tasks or set",
    "--depth_loss=stereo:nearest=-1": "nearest=-1",
    "--depth_loss=stereo --tasks=normals": "--depth_loss=stereo has no effect",
    "--normals_loss=codebook --tasks=depth": "--normals_loss=codebook has no effect",
    "--normals_loss=codebook:codewords=3": "--normals_loss=codebook:codewords=3: ",
    "--gradients=features --weighting=equal": "--gradients=features has no effect",
    "--gradients=features --weighting=moco": "--gradients=features has no effect",
    "--weighting=foo": "'foo' is unknown: choose from equal",
    "--weighting=nash:max_norm=-1": "--weighting=nash:max_norm=-1: max_norm must be",
    "--weighting=nash:alpha=1": "nash has no option 'alpha'; its options are max_norm",
    "--weighting=fixed:task_weights=1+x": "task_weights must be numbers such as 1+2+1",
    "--weighting=fixed:task_weights=1+2": "--weighting=fixed:task_weights=1+2: ",
    "--weighting=cagrad:c=-1": "--weighting=cagrad:c=-1: ",
    "--weighting=dwa:temperature=0": "--weighting=dwa:temperature=0: ",
    "--weighting=modo": "--batch_size=4: this weighting compares three equal parts",
    "--weighting=nothing.py:mine": "nothing.py can't be imported",
    "--mode=sweep --weightings=nothing.py:mine": "--weightings=nothing.py:mine: ",
    "--checkpoint=²": "--checkpoint=²: give latest, best",
    "--workdir=one,two": "takes one folder",
    "--workdir=a, --mode=report": "--workdir: a name is empty",
    "--workdir=gs://bucket/run": "--workdir=gs://bucket/run: addresses are not supported",
    "--workdir=/proc/nowhere/run": "run: No such file or directory: choose a folder that can be",
    f"--workdir={__file__}": "is a file: give a folder",
    f"--workdir={'x' * 300}": "File name too long",
    "--data_dir=s3://bucket": "--data_dir=s3://bucket: addresses are not supported",
    f"--manual_dir={__file__}": "is a file: give a folder",
    "--coordinator=localhost": "--coordinator=localhost: give HOST:PORT",
    "--process_id=1": "--num_processes and --process_id need --coordinator",
    "--mode=sweep --weightings=uw,foo": "'foo' is unknown: choose from",
    "--mode=sweep --weightings=uw,uw": "--weightings=uw,uw: give one or more",
    "--mode=sweep --weightings=fairgrad,fairgrad:alpha=2": "fairgrad,fairgrad: give one or more",
    "--mode=sweep --weightings=uw,modo": "(run modo-0 of this sweep)",
    "--mode=sweep --learning_rate=-1": "-1.0 is not a number in the range",
    "--mode=sweep --seeds=one": "--seeds=one: one is not a seed; give a whole number up to",
    "--mode=sweep --seeds=0,3000000000": "3000000000 is not a seed",
    "--seed=-1": "-1 is not a seed",
    "--mode=study --seeds=": "--seeds=: give one or more",
    "--mode=study --label_fractions=1e999": "1e999 is not a fraction",
    "--mode=study --label_fractions=2": "2 is not a fraction",
    "--mode=study --label_fractions=nan": "nan is not a fraction",
    "--mode=study --arms=segmentation,depth": "depth: each needs segmentation",
    "--mode=study --arms=segmentation+foo": "unknown task 'foo'",
    "--mode=study --arms=segmentation+segmentation": "its tasks must be one or more different",
    "--mode=evaluate": "there is no run",
    "--mode=export": "there is no run",
    "--mode=report": "not the folder of a run",
    "--mode=benchmark --tasks=depth": "--tasks: a benchmark compares",
    "--mode=benchmark --benchmark=inference --tasks=depth": "a benchmark compares networks",
    "--mode=benchmark --benchmark=inference --models=": "--models=: give one or more",
    "--mode=benchmark --benchmark=inference --models=mtan,mtan": "mtan,mtan: give one or more",
    "--mode=benchmark --benchmark=inference --models=foo": "--models=foo: 'foo' is unknown",
    "--mode=benchmark --benchmark=inference --models=segnet,mtan --compare_torch": (
        "--models=mtan: --compare_torch supports resnet_unet and segnet"
    ),
    "--mode=compare --weighting=mgda": (
        "--weighting=mgda: --mode=compare supports equal, uw and nash"
    ),
    "--mode=compare --weigh_every=2": "--weigh_every=2: --mode=compare supports 1",
    "--mode=compare --model=mtan": "--model=mtan: --mode=compare supports resnet_unet and segnet",
    "--mode=compare --dataset=cityscapes:layout=mtan --tasks=segmentation,inverse_depth": (
        "--tasks=inverse_depth: --mode=compare supports segmentation, depth and normals"
    ),
    "--folder=a": "has no effect: it needs --dataset=folder",
    "--no_such_flag=1": "no_such_flag",
    "word": "unknown argument 'word'",
}


@pytest.mark.parametrize("words", REFUSED)
def test_what_makes_no_sense_is_refused_before_anything_is_made(refuse, words):
    assert REFUSED[words] in refuse(*words.split(" "))


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("--batch_size=16", "--batch_size=16: must be 1 to 12"),
        ("--label_fraction=1/2", "--label_fraction=0.5: images that are made while training have"),
        ("--mode=compare --weighting=equal", "--mode=compare takes images from files"),
    ],
)
def test_images_that_are_made_while_training_are_no_files(refuse, monkeypatch, words, line):
    monkeypatch.setattr(launch.builder_of(None), "stream", lambda: data.Stream(12, None))
    assert line in refuse(*words.split(" "))


def test_a_data_set_has_options_of_its_own():
    for text, words in {
        "foo": "'foo' is unknown: choose from nyu_depth_v2",
        "rooms:train=0": "--dataset=rooms:train=0: rooms: train must be a whole number",
        "rooms:classes=13": "rooms has no option 'classes'; its options are train, test",
        "nyu_depth_v2:layout=mtan,classes=40": "classes of the layout 'mtan' must be 13",
        "kitti_stereo:train=1": "its options are classes",
        "folder": "--dataset=folder: set --folder to the folder that holds images/",
    }.items():
        assert words in complaint(f"--dataset={text}", "--tasks=depth")


@pytest.mark.parametrize(
    ("words", "note"),
    [
        ("--label_seed=1", "--label_seed=1 has no effect: it needs --label_fraction below 1"),
        ("--labelled_per_batch=1", "--labelled_per_batch=1 has no effect"),
        ("--weigh_every=2 --weighting=uw", "--weigh_every=2 has no effect"),
        ("--weightings=nash", "--weightings has no effect with --mode=train"),
        ("--split=train", "--split has no effect with --mode=train"),
        ("--tasks=depth --weighting=uw", "--weighting has no effect with a single task"),
        (
            "--mode=sweep --tasks=depth --weightings=uw",
            "--weightings has no effect with a single task",
        ),
    ],
)
def test_harmless_flags_without_effect_are_reported(capsys, words, note):
    launch.settle(parsed(*words.split()))
    assert f"note: {note}" in capsys.readouterr().out


def test_a_flag_file_may_hold_flags_of_other_runs_of_a_sweep(capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", ["launch.py", "--flagfile=runs/depth-0/flags.txt"])
    launch.settle(parsed("--tasks=depth", "--label_fraction=1/2"))
    assert "note: --label_fraction=0.5 has no effect" in capsys.readouterr().out


def test_a_training_names_its_devices_before_its_data_is_prepared(
    fake_data, tmp_path, monkeypatch, capsys
):
    def no_space(args):
        raise OSError(errno.ENOSPC, "x")

    monkeypatch.setattr(launch, "prepare", no_space)
    place = f"--workdir={tmp_path / 'run'}"
    assert "No space left" in complaint(*SMALL, place, "--tasks=depth", "--devices=2")
    assert "\ndevices: 2 x cpu\n" in f"\n{capsys.readouterr().out}"


def test_all_weightings_are_those_that_the_other_flags_allow(fake_data, capsys):
    args = parsed(*SMALL, "--mode=sweep", "--weightings=all", "--batch_size=3")
    assert set(METHODS) - set(launch.weightings_of(args)) == {"modo", "sdmgrad"}
    printed = capsys.readouterr().out
    assert "note: --weightings=all leaves out modo: --batch_size=3" in printed
    # What stands against all of them is an error and leaves nothing out.
    args = parsed(*SMALL, "--mode=sweep", "--weightings=all", "--batch_size=1")
    with pytest.raises(ValueError, match="`batch_size`=1"):
        sweeps.reasons_against(args, launch.outline_of(args))


def test_every_flag_is_in_one_list_at_most_of_what_may_change():
    names = {flag.name for flag in launch.own_flags()}
    differ, change = settings.MAY_DIFFER, settings.MAY_CHANGE
    for listed in (differ, change):
        assert len(set(listed)) == len(listed)
        assert set(listed) <= names
    assert not set(differ) & set(change)
    # All others define a run: a new flag does, until somebody says that it may change.
    args = settings.Settings(**vars(parsed()) | {"image_size": (96, 128)})
    recorded = settings.record(args, class_names=["wall"])
    assert set(recorded) == names - set(change) | set(settings.RECORDED) | set(settings.FACTS)


def test_a_flag_that_nobody_thought_of_keeps_runs_apart(tmp_path):
    base = vars(parsed()) | {"image_size": (96, 128), "workdir": [str(tmp_path)]}
    old, new = (settings.Settings(**base | {"a_new_flag": value}) for value in (1, 2))
    workdir.write(tmp_path, settings.record(old, class_names=[]))
    settings.check_folder(old, class_names=[])
    with pytest.raises(ValueError, match="`a_new_flag`=1, not 2"):
        settings.check_folder(new, class_names=[])
    with pytest.raises(ValueError, match="`a_new_flag`=1, not 2"):
        settings.of_run(new, given=["a_new_flag"])
    with pytest.raises(ValueError, match="another version .* has a_new_flag"):
        settings.check_folder(settings.Settings(**base), class_names=[])


@pytest.mark.parametrize(
    ("words", "recorded"),
    [
        (["--tasks=depth", "--weigh_every=5"], {"weighting": "equal", "weigh_every": 1}),
        (["--weighting=uw", "--weigh_every=5"], {"weighting": "uw", "weigh_every": 1}),
        (["--weigh_every=5"], {"weighting": "nash", "weigh_every": 5}),
        (["--weighting=fairgrad:alpha=2.0"], {"weighting": "fairgrad"}),
        (["--dataset=rooms:test=9,train=1000"], {"dataset": "rooms:test=9"}),
        (["--eval_batch_size=2"], {"eval_batch_size": None}),
        (["--eval_batch_size=2", "--metric_protocol=mtan"], {"eval_batch_size": 2}),
    ],
)
def test_config_json_has_one_text_for_one_thing(words, recorded):
    args = settings.Settings(**vars(parsed(*words)) | {"image_size": (96, 128)})
    found = settings.record(args, class_names=[])
    assert {name: found[name] for name in recorded} == recorded


def test_a_cosine_keeps_its_length_and_a_protocol_by_batches_its_batches(tmp_path):
    def check(*words):
        changes = {"image_size": (96, 128), "workdir": [str(tmp_path)]}
        args = settings.Settings(**vars(parsed(*words)) | changes)
        workdir.write(tmp_path, settings.record(args, class_names=[]))
        longer = settings.Settings(**vars(args) | {"epochs": 201, "eval_batch_size": 4})
        settings.check_folder(longer, class_names=[])

    check()
    with pytest.raises(ValueError, match="With `schedule`=cosine the learning rate depends on"):
        check("--schedule=cosine")
    with pytest.raises(ValueError, match="`eval_batch_size`=8, not 4"):
        check("--metric_protocol=mtan")


def test_values_become_the_text_that_gives_them():
    words = ["--workdir=a,b", "--image_size=96x128", "--noaugment", "--label_fraction=1/8"]
    args = parsed(*words, "--weightings=sdmgrad:pull=1,momentum=0,nash")
    assert args.weightings == ["sdmgrad:pull=1,momentum=0", "nash"]
    again = parsed(*(f"--{x}={as_text(y)}" for x, y in vars(args).items() if y is not None))
    assert vars(again) == vars(args)


def test_a_sweep_skips_what_is_done_and_reports_what_failed(
    fake_data, tmp_path, capsys, monkeypatch
):
    trained = []

    def train(args):
        folder = settings.folder_of(args)
        trained.append(folder.name)
        if folder.name == "uw-1":
            raise ValueError("no luck")
        folder.mkdir(parents=True)
        one_run.record_run(args, folder, launch.outline_of(args), None)
        metrics = {"segmentation/miou": 0.1 * len(trained)}
        result = {"split": "test", "epoch": 1, "step": 9, "metrics": metrics, "floor": metrics}
        workdir.write_json(folder / "result.json", result)

    monkeypatch.setattr(launch, "train", train)
    root = tmp_path / "run"
    sweep = [*SMALL, f"--workdir={root}", "--mode=sweep", "--weightings=uw", "--seeds=0,1"]
    sweep += ["--tasks=depth,normals"]
    assert "1 of 6 runs failed: uw-1" in complaint(*sweep)
    assert trained == ["depth-0", "normals-0", "uw-0", "depth-1", "normals-1", "uw-1"]
    assert (root / "report" / "table.md").exists()
    assert json.loads((root / "depth-1" / "config.json").read_text())["seed"] == 1
    capsys.readouterr()

    complaint(*sweep)
    assert trained[6:] == ["uw-1"]
    assert capsys.readouterr().out.count("done already") == 5
    # A longer run is not done, and another run's folder is not taken.
    message = complaint(*sweep, "--epochs=2", "--batch_size=3")
    assert "holds a run with --batch_size=4, not 3" in message
    assert "(run depth-0 of this sweep)" in message


def test_a_sweep_does_not_take_the_folder_of_a_run(fake_data, tmp_path):
    (tmp_path / "config.json").write_text("{}")
    message = complaint(*SMALL, "--mode=sweep", f"--workdir={tmp_path}")
    assert "holds a run: give this sweep a folder of its own" in message


def test_failures_of_a_training_are_reported(capsys):
    outcome.warn_of_failures({"metrics": {"depth/rmse": math.nan, "a/b": 1.0}, "skipped_steps": 2})
    printed = capsys.readouterr().out
    assert "WARNING: 2 steps were skipped" in printed
    assert "WARNING: no numbers for depth/rmse:" in printed
    unknown = {"depth/rmse": None, "depth/delta1": None, "normals/mean": None}
    judged = {"images": 8, "depth": 0, "normals": 3}
    outcome.warn_of_failures({"metrics": unknown, "split": "test", "labels": {"judged": judged}})
    assert capsys.readouterr().out.splitlines() == [
        "WARNING: no depth metrics, since none of the 8 test images has depth labels",
        "WARNING: no numbers for normals/mean: the split has no such labels, or the network's "
        "predictions are not finite",
    ]
    absent = {"segmentation/miou": 0.5, "class_iou/3": math.nan}
    outcome.warn_of_failures({"metrics": absent, "skipped_steps": 0})
    assert capsys.readouterr().out == ""
