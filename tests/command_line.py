"""launch.py as a user starts it, in this process."""

from contextlib import contextmanager
from types import SimpleNamespace

import pytest

import launch

# A way through every mode that takes seconds; nothing is learned.
SMALL = [
    "--model=resnet_unet:backbone=resnet18",
    "--batch_size=4",
    "--eval_batch_size=4",
    "--devices=1",
    "--epochs=1",
    "--noaugment",
]
ROOMS = ["--dataset=rooms:train=8,test=4", "--image_size=40x56", *SMALL]


@contextmanager
def given(*words):
    """Parses a command line; afterwards all flags have their defaults again."""
    try:
        yield launch.parse_flags(["launch.py", *words])
    finally:
        for flag in launch.own_flags():
            flag.unparse()


def command_line(*words):
    """Runs launch.py as a user does."""
    with given(*words) as argv:
        launch.main(argv)


def complaint(*words):
    """The line with which launch.py leaves."""
    with pytest.raises(SystemExit) as exit:
        command_line(*words)
    message = str(exit.value.code)
    assert message.startswith("launch.py: ")
    assert "\n" not in message
    return message


def parsed(*words):
    """The settings of a command line."""
    with given(*words):
        return SimpleNamespace(**{flag.name: flag.value for flag in launch.own_flags()})
