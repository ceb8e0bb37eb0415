"""Runs that end when their validation gets no better, against the rows of their logs."""

import json

import numpy as np
import optax
import pytest

from mtl_jax.runs import results, workdir
from tests import tiny

EPOCHS = 12


def run(folder, patience, **options):
    update = optax.sgd(0.5, momentum=0.9)
    tiny.run(
        folder,
        epochs=EPOCHS,
        patience=patience,
        weighting="equal",
        update=update,
        **{"validation": 8, **options},
    )
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines], json.loads((folder / "result.json").read_text())


def log_error(row):
    found = row["evaluation"]
    names = ("depth/absolute_error", "normals/mean")
    return np.mean(np.log([1 - found["segmentation/miou"], *(found[name] for name in names)]))


def first_end(errors, patience):
    """The number of evaluations up to the first end, by a loop that remembers the best."""
    best, since = np.inf, 0
    for number, error in enumerate(errors, start=1):
        best, since = (error, 0) if error < best else (best, since + 1)
        if since == patience:
            return number
    return len(errors)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return run(tmp_path_factory.mktemp("whole"), 0)


def test_a_run_ends_where_its_log_says_and_goes_on_with_more_patience(whole, tmp_path, capsys):
    errors = [log_error(row) for row in whole[0]]
    one, two = (first_end(errors, patience) for patience in (1, 2))
    assert one < two < EPOCHS
    for patience, end in ((1, one), (1, one), (2, two)):
        rows, result = run(tmp_path, patience)
        assert [row["epoch"] for row in rows] == list(range(1, end + 1))
        assert (result["epoch"], result["patience"]) == (end, patience)
        assert (
            f"stopped after epoch {end}: no better result in {patience}" in capsys.readouterr()[0]
        )
        for found, expected in zip(rows, whole[0], strict=False):
            assert found["evaluation"] == expected["evaluation"]
    assert "patience" not in whole[1]


def test_an_early_end_counts_as_finished_for_no_more_patience(tmp_path):
    workdir.write_json(tmp_path / "result.json", {"epoch": 4, "patience": 2})
    done = {
        patience: workdir.has_finished(tmp_path, epochs=9, patience=patience)
        for patience in range(4)
    }
    assert done == {0: False, 1: True, 2: True, 3: False}
    assert workdir.has_finished(tmp_path, epochs=4, patience=0)


@pytest.mark.parametrize(
    ("depths", "expected"),
    [
        ([], 0),
        ([3.0], 0),
        ([3.0, 2.0, 2.5, 2.0, None], 3),
        ([None, float("nan")], 2),
        ([float("nan"), 2.0], 0),
    ],
)
def test_evaluations_since_the_best(depths, expected):
    rows = [{"epoch": 0}, *({"evaluation": {"depth/absolute_error": x}} for x in depths)]
    assert results.since_best(rows, tiny.TASKS[1:2]) == expected


def test_without_validation_images_nothing_can_end_a_run(tmp_path):
    with pytest.raises(ValueError, match="`patience`=1: .* set `validation` to their number"):
        run(tmp_path, 1, validation=0)
