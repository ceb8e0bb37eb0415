"""What defines a run: which settings are recorded, compared, and may change when it is resumed."""

import pytest

from mtl_jax.runs import settings, workdir

# A run, with the values of a command without flags but for the size of its images.
DEFAULTS = {
    "workdir": None, "mode": "train", "dataset": "rooms", "image_size": (96, 128),
    "tasks": ["segmentation", "depth", "normals"], "weighting": "nash", "model": "resnet_unet",
    "augment": True, "schedule": "step", "metric_protocol": "pooled", "epochs": 200,
    "eval_batch_size": 8, "evaluate_every": 1, "patience": 0, "seed": 0, **settings.IDLE,
}  # fmt: skip


def made(**changes):
    return settings.Settings(**DEFAULTS | changes)


def held(folder, **changes):
    """Writes the config.json of a run; returns its settings."""
    run = made(workdir=[str(folder)], **changes)
    workdir.write(folder, settings.record(run, class_names=["wall", "floor"]))
    return run


@pytest.mark.parametrize(
    ("changes", "without_effect"),
    [
        ({"label_seed": 1}, {"label_seed": 0}),
        ({"labelled_per_batch": 2}, {"labelled_per_batch": 0}),
        ({"augment": False, "colour_jitter": 0.5}, {"colour_jitter": 0.0}),
        ({"augment": False, "crop_scales": [2.0]}, {"crop_scales": [1.0, 1.2, 1.5]}),
        ({"weighting": "uw", "weigh_every": 5}, {"weigh_every": 1}),
        ({"weighting": "moco", "weigh_every": 5, "gradients": "features"},
         {"weigh_every": 5, "gradients": "parameters"}),
        ({"tasks": ["depth"], "weigh_every": 5}, {"weigh_every": 1, "weighting": "equal"}),
        # Read by other tasks: the single-task runs of a sweep have them in common.
        ({"tasks": ["segmentation"], "depth_loss": "stereo"}, {"depth_loss": "stereo"}),
    ],
)  # fmt: skip
def test_what_has_no_effect_is_recorded_as_its_default(tmp_path, changes, without_effect):
    found = settings.record(made(**changes), class_names=[])
    assert {name: found[name] for name in without_effect} == without_effect


def test_how_often_a_run_is_evaluated_is_recorded_where_evaluations_may_end_it(tmp_path):
    def recorded(**changes):
        return settings.record(made(**changes), class_names=[])

    assert recorded(evaluate_every=5) == recorded(evaluate_every=1)
    often, seldom = (recorded(evaluate_every=n, patience=3) for n in (1, 5))
    assert {name for name in often if often[name] != seldom[name]} == {"evaluate_every"}
    run = held(tmp_path, patience=3)
    resumed = settings.Settings(**vars(run) | {"evaluate_every": 5})
    assert settings.check_folder(resumed, class_names=["wall", "floor"]) == tmp_path


def test_runs_that_differ_in_what_has_no_effect_are_one(tmp_path):
    run = held(tmp_path)
    other = settings.Settings(**vars(run) | {"label_seed": 1, "labelled_per_batch": 2})
    assert settings.check_folder(other, class_names=["wall", "floor"]) == tmp_path
    fewer = settings.Settings(**vars(other) | {"label_fraction": 0.5})
    with pytest.raises(ValueError, match="`label_fraction`=1.0, not 0.5"):
        settings.check_folder(fewer, class_names=["wall", "floor"])


def test_settings_that_other_tasks_read():
    assert settings.unread(["segmentation", "depth", "normals"]) == set()
    assert settings.unread(["segmentation", "normals"]) == {"depth_loss"}
    assert "label_fraction" in settings.unread(["depth"])
    choices = settings.idle(made(), tasks=["depth"], weightings=[], few_labels=False)
    assert choices["normals_loss"] == "normals among `tasks`"
    assert choices["gradients"].startswith("weightings by the Gram matrix")
    assert choices.keys() <= settings.IDLE.keys()


def test_the_folder_says_what_the_run_is(tmp_path):
    held(tmp_path, weighting="uw", learning_rate=1e-3, pretrained=None, eval_batch_size=4)
    command = made(workdir=[str(tmp_path)], learning_rate=1e-4, mode="evaluate", eval_batch_size=2)
    found = settings.of_run(command, given=["workdir", "mode", "eval_batch_size"])
    assert (found.weighting, found.learning_rate, found.image_size) == ("uw", 1e-3, (96, 128))
    assert (found.mode, found.eval_batch_size) == ("evaluate", 2)
    assert settings.class_names_of(tmp_path) == ("wall", "floor")


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"pretrained": "/none.pth"}, "`pretrained`=, not /none.pth"),
        ({"image_size": (32, 32)}, "`image_size`=96x128, not 32x32"),
        ({"augment": False}, "`augment`=true, not false"),
        ({"weighting": "uw"}, "`weighting`=nash, not uw"),
    ],
)
def test_a_setting_that_disagrees_with_the_run_is_refused(tmp_path, given, words):
    run = held(tmp_path)
    command = settings.Settings(**vars(run) | given)
    with pytest.raises(ValueError, match=words):
        settings.of_run(command, given=list(given))
    with pytest.raises(ValueError, match=words):
        settings.check_folder(command, class_names=["wall", "floor"])


def test_an_older_run_had_the_defaults_of_settings_that_came_later(tmp_path):
    config = {"tasks": ["depth"], "image_size": [96, 128], "class_names": ["wall"]}
    workdir.write(tmp_path, config | {"depth_loss": "stereo"})
    found = settings.of_folder(tmp_path, checkpoint="latest")
    assert (found.depth_loss, found.segmentation_loss) == ("stereo", "ce")
    assert (found.image_size, found.checkpoint) == ((96, 128), "latest")


def test_a_config_that_does_not_say_what_the_run_is(tmp_path):
    workdir.write(tmp_path, {"tasks": ["depth"]})
    with pytest.raises(ValueError, match="does not say what the run is"):
        settings.of_run(made(workdir=[str(tmp_path)]), given=[])


def test_folders_without_a_name():
    assert str(settings.folder_of(made())) == "runs/rooms-nash-0"
    assert str(settings.folder_of(made(dataset="rooms:train=4", tasks=["depth"]))) == (
        "runs/rooms-depth-0"
    )
    own = made(weighting="/home/me/mine.py:own:power=2", seed=3)
    assert str(settings.folder_of(own)) == "runs/rooms-mine.py-own-power=2-3"
    data = made(dataset="/a/b/my_data.py:mine:train=4")
    assert str(settings.folder_of(data)) == "runs/my_data.py-mine-nash-0"
    assert settings.label(own.weighting) == "own (power=2)"
    with pytest.raises(ValueError, match="takes one folder"):
        settings.folder_of(made(workdir=["a", "b"]))


def test_settings_that_came_later_are_not_those_of_the_command(tmp_path):
    run = held(tmp_path)
    command = settings.Settings(**vars(run) | {"average": 0.9})
    with pytest.raises(ValueError, match="`average`=0.0, not 0.9"):
        settings.of_run(command, given=["average"])


def test_a_run_does_not_go_on_with_other_data(tmp_path):
    run = made(workdir=[str(tmp_path)])
    workdir.write(tmp_path, settings.record(run, class_names=[], data="mine-1"))
    settings.check_folder(run, class_names=[], data="mine-1")
    with pytest.raises(ValueError, match="holds a run on other data: the data set has changed"):
        settings.check_folder(run, class_names=[], data="mine-2")
    # An older run does not say which data it had.
    config = settings.record(run, class_names=[])
    del config["data"]
    workdir.write(tmp_path, config)
    settings.check_folder(run, class_names=[], data="mine-2")
