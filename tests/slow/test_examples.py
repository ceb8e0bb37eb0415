"""Rooms that a function of one's own gives as arrays train exactly as the rooms themselves."""

import shutil

import pytest

from tests.slow import programs

pytestmark = pytest.mark.slow

MY_DATA = """
import datasets
from mtl_jax import data


def rooms(*, data_dir="data"):
    splits = data.open_splits(datasets.builder("rooms:train=8,test=4", data_dir=data_dir))
    return datasets.Examples(splits["train"].source, splits["test"].source,
                             splits["train"].class_names)
"""


def test_arrays_give_the_same_run_that_needs_only_its_folder(made, sandbox):
    (sandbox / "my_data.py").write_text(MY_DATA)
    finished = programs.launch(f"--dataset=my_data.py:rooms:data_dir={sandbox}/data", sandbox)
    assert finished.status == 0, finished.text
    assert "labels: all 8 training images; all 4 test images" in finished.text
    programs.assert_same_run(sandbox / "new", made / "run")
    elsewhere = sandbox / "elsewhere"
    elsewhere.mkdir()
    for mode in (f"evaluate --data_dir={sandbox}/data", "export", "report"):
        finished = programs.launch_alone(f"--mode={mode} --workdir=../new", elsewhere)
        assert finished.status == 0, finished.text
    card = (sandbox / "new" / "export" / "README.md").read_text()
    assert "trained with mtl_jax" in card and "`my_data.py:rooms:data_dir=" in card
    # A file that has changed may mean other data.
    with (sandbox / "my_data.py").open("a") as file:
        file.write("# Other rooms.\n")
    finished = programs.launch_alone(
        f"--mode=evaluate --data_dir={sandbox}/data --workdir=../new", elsewhere
    )
    assert finished.status == 1 and "there is no prepared data set in" in finished.text
    shutil.rmtree(elsewhere)
