"""Work directories: what they refuse, and what survives a killed process."""

import json
import math

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mtl_jax.runs import lock, metrics_file, workdir

CONFIG = {"tasks": ("segmentation", "depth"), "weighting": "nash", "epochs": 3, "seed": 0}


def claim(folder, config, **options):
    """Takes a folder as a run does."""
    with lock.own(folder) as owned:
        workdir.check(owned, config, **options)
        workdir.write(owned, config)
    return folder


def listing(folder):
    """Every file of a folder with its content."""
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_new_folder_says_what_it_holds(tmp_path):
    folder = claim(tmp_path / "runs" / "a", CONFIG)
    assert json.loads((folder / "config.json").read_text()) == {
        **CONFIG, "tasks": ["segmentation", "depth"]
    }  # fmt: skip
    versions = json.loads((folder / "versions.json").read_text())
    assert {"python", "jax", "numpy", "device"} <= versions.keys()


def test_the_same_run_is_taken_up_again(tmp_path):
    claim(tmp_path, CONFIG)
    assert claim(tmp_path, CONFIG) == workdir.check(tmp_path, CONFIG) == tmp_path


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weighting": "uw"}, "holds a run with `weighting`=nash, not uw: set another `workdir`"),
        ({"tasks": ("depth",)}, "holds a run with `tasks`=segmentation,depth, not depth"),
        ({"a_flag_added_later": 1}, "holds a run with `a_flag_added_later`=, not 1"),
    ],
)
def test_another_run_is_refused_by_name_and_left_alone(tmp_path, change, message):
    claim(tmp_path, CONFIG)
    before = listing(tmp_path)
    with pytest.raises(ValueError, match=message) as caught:
        workdir.check(tmp_path, CONFIG | change)
    assert "\n" not in str(caught.value)
    assert listing(tmp_path) == before


def test_a_run_of_another_version_is_refused_by_what_it_has(tmp_path):
    claim(tmp_path, CONFIG | {"nash_every": 2, "cagrad_c": 0.4})
    for read in (workdir.check, lambda folder, known: workdir.read_config(folder, known=known)):
        with pytest.raises(ValueError, match="another version .* has cagrad_c, nash_every"):
            read(tmp_path, CONFIG)


@pytest.mark.parametrize(
    "trace", ["checkpoints/5/x", "metrics.jsonl", "result.json", "samples.npz", "codebook.npy"]
)
def test_a_run_without_its_config_is_not_a_place_for_another(tmp_path, trace):
    (tmp_path / trace).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / trace).write_text("")
    with pytest.raises(ValueError, match="put its config.json back or set another `workdir`"):
        workdir.check(tmp_path, CONFIG)
    with pytest.raises(ValueError, match="put its config.json back"):
        workdir.read_config(tmp_path, known=CONFIG)


def test_a_file_instead_of_the_checkpoints_folder_is_refused(tmp_path):
    (tmp_path / "checkpoints").write_text("")
    with pytest.raises(ValueError, match="checkpoints is a file"):
        workdir.check(tmp_path, CONFIG)


def test_only_a_finished_checkpoint_is_one(tmp_path):
    assert not workdir.has_checkpoint(tmp_path)
    (tmp_path / "checkpoints" / "5.orbax-checkpoint-tmp").mkdir(parents=True)
    assert not workdir.has_checkpoint(tmp_path)
    (tmp_path / "checkpoints" / "5").mkdir()
    assert workdir.has_checkpoint(tmp_path)


def test_free_keys_may_change_and_are_written_down(tmp_path):
    claim(tmp_path, CONFIG)
    claim(tmp_path, CONFIG | {"epochs": 5}, free=["epochs"])
    assert workdir.read_json(tmp_path / "config.json")["epochs"] == 5
    with pytest.raises(ValueError, match="`epochs`=5, not 3"):
        workdir.check(tmp_path, CONFIG)


def test_a_folder_without_a_run_is_not_a_run(tmp_path):
    assert workdir.check(tmp_path, CONFIG) == tmp_path
    with pytest.raises(ValueError, match="there is no run"):
        workdir.read_config(tmp_path, known=CONFIG)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b'{"epochs": 3', "no valid JSON"),
        (b"", "no valid JSON"),
        (b"null", "no JSON object"),
        (b"5", "no JSON object"),
        (b"[1]", "no JSON object"),
        (b'"nash"', "no JSON object"),
        (b"\xff\xfe{}", "not UTF-8 text"),
        (b"[" * 100_000, "brackets nested too deeply"),
        (b'{"seed": ' + b"1" * 5000 + b"}", "no valid JSON"),
    ],
)
def test_a_damaged_config_is_named_and_never_to_be_deleted(tmp_path, content, words):
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(ValueError, match=f"config.json is damaged .{words}") as caught:
        workdir.check(tmp_path, CONFIG)
    assert "\n" not in str(caught.value)
    assert "delete" not in str(caught.value)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)
# Bytes of any kind, JSON of any kind, and rows with some of it inside.
CONTENT = (
    st.binary()
    | JSON.map(lambda value: json.dumps(value).encode())
    | st.dictionaries(st.sampled_from(["epoch", "step", "tasks", "seed"]), JSON).map(
        lambda value: json.dumps(value).encode()
    )
)
BOUNDED = settings(
    max_examples=150,
    derandomize=True,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@BOUNDED
@given(content=CONTENT)
def test_any_config_gives_one_line_or_a_run(tmp_path, content):
    (tmp_path / "config.json").write_bytes(content)
    try:
        workdir.check(tmp_path, CONFIG)
    except ValueError as error:
        assert str(tmp_path) in str(error)
        assert "\n" not in str(error)
    (tmp_path / "result.json").write_bytes(content)
    assert workdir.finished_epoch(tmp_path) >= 0


@BOUNDED
@given(lines=st.lists(CONTENT, max_size=5))
def test_any_line_of_metrics_is_a_row_or_a_fault(tmp_path, lines):
    lines = [line.replace(b"\n", b" ") for line in lines]
    (tmp_path / "metrics.jsonl").write_bytes(b"".join(line + b"\n" for line in lines))
    rows, faults = metrics_file.read(tmp_path)
    assert all(isinstance(row, dict) for row in rows)
    assert len(rows) + len(faults) == sum(bool(line.strip()) for line in lines)


@BOUNDED
@given(value=st.dictionaries(st.text(), JSON))
def test_written_json_is_json_and_comes_back_with_null_for_what_is_not_finite(tmp_path, value):
    def refuse(token):
        raise AssertionError(token)

    workdir.write_json(tmp_path / "a.json", value)
    text = (tmp_path / "a.json").read_text()
    found = json.loads(text, parse_constant=refuse)

    def same(old, new):
        if isinstance(old, dict):
            return old.keys() == new.keys() and all(same(old[key], new[key]) for key in old)
        if isinstance(old, list):
            return len(old) == len(new) and all(map(same, old, new))
        if isinstance(old, float) and not math.isfinite(old):
            return new is None
        return old == new

    assert same(value, found)


def test_a_missing_number_comes_back_as_a_missing_one(tmp_path):
    rows = [{"epoch": 1, "images_per_second": None, "evaluation": {"a": math.nan, "b": 0.5}}]
    metrics_file.write(tmp_path, rows)
    assert "NaN" not in (tmp_path / "metrics.jsonl").read_text()
    (row,), _ = metrics_file.read(tmp_path)
    assert row["images_per_second"] is None
    assert math.isnan(row["evaluation"]["a"])
    assert row["evaluation"]["b"] == 0.5


def test_the_lines_of_metrics_that_cannot_be_read_are_named(tmp_path):
    content = b'{"epoch": 1}\n{broken\n\n\xff\n{"epoch": 3}\nnull\n{"epoch": 4'
    (tmp_path / "metrics.jsonl").write_bytes(content)
    rows, faults = metrics_file.read(tmp_path)
    assert rows == [{"epoch": 1}, {"epoch": 3}]
    assert [fault.split(" (")[0] for fault in faults] == [
        "line 2 can't be read", "line 4 can't be read", "line 6 can't be read"
    ]  # fmt: skip


def test_a_result_that_cannot_be_used_belongs_to_no_epoch(tmp_path):
    assert workdir.finished_epoch(tmp_path) == 0
    for content, epoch in [("5", 0), ("{", 0), ('{"epoch": "3"}', 0), ('{"epoch": 3}', 3)]:
        (tmp_path / "result.json").write_text(content)
        assert workdir.finished_epoch(tmp_path) == epoch
    workdir.remove_result(tmp_path)
    workdir.remove_result(tmp_path)
    assert workdir.finished_epoch(tmp_path) == 0


@pytest.mark.parametrize("write", [workdir.write_json, metrics_file.write])
def test_a_write_that_fails_leaves_the_old_file(tmp_path, write):
    rows = [{"epoch": 1}]
    metrics_file.write(tmp_path, rows)
    target = tmp_path if write is metrics_file.write else tmp_path / "metrics.jsonl"
    with pytest.raises(TypeError):
        write(target, [*rows, {"epoch": object()}])
    assert metrics_file.read(tmp_path) == (rows, [])


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
    assert metrics_file.read(tmp_path) == ([], [])
    rows = [{"epoch": 1, "train": {"depth/loss": 0.5}}, {"epoch": 2, "train": {"depth/loss": 0.4}}]
    metrics_file.write(tmp_path, rows)
    assert metrics_file.read(tmp_path) == (rows, [])
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"epoch": 3, "train": {"dep')
    assert metrics_file.read(tmp_path) == (rows, [])


def test_samples_are_read_back(tmp_path):
    samples = {"image": np.zeros((2, 4, 4, 3), np.uint8), "depth": np.ones((2, 4, 4), np.float16)}
    workdir.write_arrays(tmp_path / "samples.npz", samples)
    with np.load(tmp_path / "samples.npz") as found:
        assert set(found) == set(samples)
        for name, value in samples.items():
            assert found[name].dtype == value.dtype
            np.testing.assert_array_equal(found[name], value)
