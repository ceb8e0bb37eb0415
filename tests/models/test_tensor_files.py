"""Files of weights are recognised by what they hold, and give sound numbers or one clear line."""

import argparse
import importlib.util
import io
import pickle
import sys
import tarfile
import zipfile

import ml_dtypes
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save

from mtl_jax.models import tensor_files

NAMES = ("plain", "weights.safetensors", "weights.pth", "weights.pth.tar", "a.bin", "b.ckpt")
WEIGHTS = {
    "conv1.weight": np.arange(6, dtype=np.float32).reshape(1, 2, 3),
    "bn1.running_var": np.float32([0.5, 2.0]),
}


def assert_weights(found, prefix=""):
    assert set(found) == {prefix + name for name in WEIGHTS}
    for name, array in WEIGHTS.items():
        assert found[prefix + name].dtype == np.float32
        np.testing.assert_array_equal(found[prefix + name], array)


def written_by_torch(content, **options):
    torch = pytest.importorskip("torch")

    def to_torch(value):
        if isinstance(value, np.ndarray):
            return torch.from_numpy(value.copy())
        if type(value) is dict:
            return {name: to_torch(each) for name, each in value.items()}
        return value

    buffer = io.BytesIO()
    torch.save(to_torch(content), buffer, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("name", NAMES)
def test_safetensors_are_recognised_under_any_name(tmp_path, name):
    (tmp_path / name).write_bytes(save(WEIGHTS))
    assert_weights(tensor_files.read(tmp_path / name))


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("name", NAMES)
def test_files_of_pytorch_are_recognised_under_any_name(tmp_path, name, zipped):
    content = written_by_torch(WEIGHTS, _use_new_zipfile_serialization=zipped)
    (tmp_path / name).write_bytes(content)
    assert_weights(tensor_files.read(tmp_path / name))


@pytest.mark.parametrize(
    "keys", [("state_dict",), ("model",), ("net", "module"), ("anything", "at")]
)
def test_names_of_wrappers_become_part_of_the_names(tmp_path, keys):
    content = WEIGHTS
    for key in reversed(keys):
        content = {key: content, "epoch": 3}
    (tmp_path / "file").write_bytes(written_by_torch(content))
    assert_weights(tensor_files.read(tmp_path / "file"), ".".join((*keys, "")))


def test_what_training_scripts_save_beside_weights_is_left_out(tmp_path):
    torch = pytest.importorskip("torch")
    parameter = torch.nn.Parameter(torch.ones(2))
    optimizer = torch.optim.SGD([parameter], lr=0.1, momentum=0.9)
    parameter.sum().backward()
    optimizer.step()
    content = {
        "state_dict": WEIGHTS | {"bn1.num_batches_tracked": np.array(7)},
        "optimizer": optimizer.state_dict(),
        "best": np.float64(0.5),
        "count": np.int64(3),
        "flag": np.bool_(True),
        "loss": np.array(np.inf),
        "queue_pointer": np.zeros(1, np.int64),
        "args": argparse.Namespace(lr=0.1),
        "history": [1.0, None, "text"],
        7: np.ones(2, np.float32),
    }
    (tmp_path / "file").write_bytes(written_by_torch(content))
    assert_weights(tensor_files.read(tmp_path / "file"), "state_dict.")


@pytest.mark.parametrize("kind", [np.float16, np.float64, ml_dtypes.bfloat16])
def test_other_floating_point_numbers_are_widened_or_rounded(tmp_path, kind):
    exact = {name: array.astype(kind) for name, array in WEIGHTS.items()}
    (tmp_path / "file").write_bytes(save(exact))
    assert_weights(tensor_files.read(tmp_path / "file"))
    torch = pytest.importorskip("torch")
    there = getattr(torch, np.dtype(kind).name)
    torch.save({n: torch.from_numpy(x).to(there) for n, x in WEIGHTS.items()}, tmp_path / "file")
    assert_weights(tensor_files.read(tmp_path / "file"))


UNSOUND = {
    "nan": (np.float32([1, np.nan]), "not finite"),
    "infinite": (np.float16([np.inf, 1]), "not finite"),
    "too large": (np.float64([1, 1e300]), "not finite"),
    "whole": (np.int64([1, 2]), "int64"),
    "bool": (np.array([True, False]), "bool"),
    "complex": (np.complex64([1, 2]), "complex64"),
}


@pytest.mark.parametrize("kind", UNSOUND)
@pytest.mark.parametrize("write", [save, written_by_torch])
def test_weights_that_are_not_finite_numbers_are_refused_by_name(tmp_path, kind, write):
    array, message = UNSOUND[kind]
    path = tmp_path / "file"
    path.write_bytes(write(WEIGHTS | {"fc.bias": array}))
    with pytest.raises(ValueError, match=f"{path}: fc.bias .*{message}"):
        tensor_files.read(path)
    # What is no weight by its name may be anything.
    path.write_bytes(write(WEIGHTS | {"attention.mask": array}))
    assert_weights(tensor_files.read(path))


@pytest.mark.filterwarnings("ignore:torch.quantize:UserWarning")
def test_quantised_weights_are_refused_by_name(tmp_path):
    torch = pytest.importorskip("torch")
    quantised = torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8)
    torch.save({"conv1.weight": quantised}, tmp_path / "file")
    with pytest.raises(ValueError, match="file: conv1.weight is of type int8"):
        tensor_files.read(tmp_path / "file")


def test_an_ambiguous_name_is_refused(tmp_path):
    content = {"model": WEIGHTS, "model.conv1.weight": np.zeros(2, np.float32)}
    (tmp_path / "file").write_bytes(written_by_torch(content))
    with pytest.raises(ValueError, match="two tensors in it have the same name"):
        tensor_files.read(tmp_path / "file")


@pytest.mark.parametrize("content", [b"", b"broken", b"<html>" * 99, b"\x89HDF\r\n\x1a\n" * 9])
def test_files_of_another_kind_are_refused(tmp_path, content):
    (tmp_path / "weights.pth").write_bytes(content)
    with pytest.raises(ValueError, match="weights.pth: neither a safetensors file nor one that"):
        tensor_files.read(tmp_path / "weights.pth")


def test_a_file_that_is_not_there_is_named(tmp_path):
    for path in (tmp_path / "nothing.pth", tmp_path):
        with pytest.raises(ValueError, match=f"{path}: there is no such file"):
            tensor_files.read(path)


def test_pytorch_is_asked_for_where_it_is_missing(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with zipfile.ZipFile(tmp_path / "file", "w") as archive:
        archive.writestr("archive/data.pkl", b"")
    with pytest.raises(ValueError, match=r'file: PyTorch is needed .*pip install -e "\.\[torch\]"'):
        tensor_files.read(tmp_path / "file")


def test_odd_files_of_pytorch(tmp_path):
    torch = pytest.importorskip("torch")
    path = tmp_path / "odd"
    torch.save([1, 2], path)
    with pytest.raises(ValueError, match="not a plain file of weights.* one list"):
        tensor_files.read(path)
    torch.save({"state_dict": [1, 2]}, path)
    assert tensor_files.read(path) == {}
    np.savez(tmp_path / "odd.npz", **WEIGHTS)
    with tarfile.open(tmp_path / "odd.tar", "w") as archive:  # as PyTorch wrote at first
        archive.add(path, "storages")
    for name in ("odd.npz", "odd.tar"):
        with pytest.raises(ValueError, match=f"{name}: not a plain file of weights"):
            tensor_files.read(tmp_path / name)


class Malicious:
    def __reduce__(self):
        return (print, ("code in the file was run",))


@pytest.mark.parametrize("write", [pickle.dumps, written_by_torch])
def test_code_in_a_file_is_not_run(tmp_path, capsys, write):
    pytest.importorskip("torch")
    path = tmp_path / "evil"
    for content in ({"conv1.weight": Malicious()}, {"state_dict": {"args": Malicious()}}):
        path.write_bytes(write(content))
        with pytest.raises(ValueError, match="nothing in it was run") as caught:
            tensor_files.read(path)
        assert "\n" not in str(caught.value)
    assert "was run" not in capsys.readouterr().out


def test_a_whole_module_is_refused_with_how_to_save_its_weights(tmp_path):
    torch = pytest.importorskip("torch")
    torch.save(torch.nn.Linear(2, 2), tmp_path / "file")
    with pytest.raises(ValueError, match=r"model.state_dict\(\).*it holds a torch.nn.*Linear"):
        tensor_files.read(tmp_path / "file")


@pytest.fixture(scope="module")
def whole():
    files = [save(WEIGHTS)]
    if importlib.util.find_spec("torch"):
        files.append(written_by_torch({"model": WEIGHTS}))
        files.append(written_by_torch(WEIGHTS, _use_new_zipfile_serialization=False))
    return files


@settings(
    max_examples=150, derandomize=True, deadline=None, database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)  # fmt: skip
@given(data=st.data())
def test_any_bytes_give_finite_floats_or_one_line(tmp_path, whole, data):
    content = data.draw(st.sampled_from([b"", *whole]))
    if content:
        end = data.draw(st.integers(0, len(content)))
        flipped = bytearray(content[:end])
        for place, value in data.draw(
            st.dictionaries(st.integers(0, max(end - 1, 0)), st.integers(0, 255), max_size=4)
        ).items():
            if place < end:
                flipped[place] = value
        content = bytes(flipped)
    else:
        start = data.draw(
            st.sampled_from([b"", b"PK\x03\x04", b"\x80\x02", b"\x09\0\0\0\0\0\0\0{"])
        )
        content = start + data.draw(st.binary(max_size=64))
    path = tmp_path / "file"
    path.write_bytes(content)
    try:
        found = tensor_files.read(path)
    except ValueError as error:
        assert str(path) in str(error)
        assert "\n" not in str(error)
    else:
        for array in found.values():
            assert array.dtype == np.float32
            assert np.all(np.isfinite(array))
