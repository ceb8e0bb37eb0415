"""Reads tensors from safetensors and PyTorch files, which are recognised by their content."""

import argparse
import re
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from safetensors.numpy import load_file

# Last parts of the names of tensors that a network computes with, all of which must be valid.
PARAMETERS = ("weight", "bias", "running_mean", "running_var")
# Training scripts wrap weights in one or two dictionaries.
LARGEST_DEPTH = 3
# The length of a safetensors header, at most 100 MB in 8 bytes, and the header's first character.
SAFETENSORS = re.compile(rb".{4}\0{4}\{", re.DOTALL)
# PyTorch writes zip archives; it wrote pickles before, and tar archives at first.
TORCH = re.compile(rb"PK\x03\x04|\x80[\x02-\x05]|.{257}ustar", re.DOTALL)


def read(path: str | Path) -> dict[str, np.ndarray]:
    """Returns the tensors of a file of weights, without running any code in the file.

    The names of nested dictionaries are joined by dots, such as `state_dict.conv1.weight`. Entries
    that are not weights are left out: scalars, counters, an optimizer's state, other Python
    objects.

    Args:
      path: of a safetensors file or one that `torch.save` wrote, for which PyTorch is needed.

    Returns:
      Finite float32 arrays by name.

    Raises:
      ValueError: naming the file, if it is neither or can't be read, if it needs code to be run,
        or if a weight in it is not a finite floating-point number.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise ValueError(f"`pretrained`={path}: there is no such file")
    try:
        with path.open("rb") as file:
            start = file.read(512)
        if SAFETENSORS.match(start):
            found = _read_safetensors(path)
        elif TORCH.match(start):
            found = _read_torch(path)
        else:
            raise ValueError("neither a safetensors file nor one that torch.save wrote")
        return _sound(found)
    except OSError as error:
        raise ValueError(f"`pretrained`={path}: can't be read ({error.strerror})") from error
    except ValueError as error:
        raise ValueError(f"`pretrained`={path}: {error}") from error


def finite_floats(name: str, array: Any) -> np.ndarray:
    """Returns the array in float32.

    Raises:
      ValueError: naming the tensor, if it is of another kind of number or not finite.
    """
    array = np.asarray(array)
    if not jnp.issubdtype(array.dtype, jnp.floating):
        raise ValueError(f"{name} is of type {array.dtype}, not of floating-point numbers")
    with np.errstate(over="ignore"):
        array = array.astype(np.float32)
    if not np.all(np.isfinite(array)):
        raise ValueError(f"{name} holds numbers that are not finite: the file is damaged")
    return array


def _sound(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns the tensors in float32, without scalars and invalid tensors other than weights."""
    kept = {}
    for name, array in tensors.items():
        if array.ndim == 0:
            continue
        try:
            kept[name] = finite_floats(name, array)
        except ValueError:
            if name.rpartition(".")[2] in PARAMETERS:
                raise
    return kept


def _read_safetensors(path: Path) -> dict[str, np.ndarray]:
    try:
        return load_file(path)
    except Exception as error:  # types that NumPy lacks raise several kinds
        raise ValueError(
            f"not a complete safetensors file of plain numbers ({_sentence(error)})"
        ) from error


def _read_torch(path: Path) -> dict[str, np.ndarray]:
    try:
        import torch
    except ImportError as error:
        raise ValueError(
            'PyTorch is needed to read it: pip install -e ".[torch]" in the clone of mtl_jax, or '
            "give a safetensors file"
        ) from error
    try:
        with (
            warnings.catch_warnings(),
            torch.serialization.safe_globals(_harmless()),
            path.open("rb") as file,  # with a path, the file's name would matter
        ):
            warnings.simplefilter("ignore")
            found = torch.load(file, map_location="cpu", weights_only=True)
            if not isinstance(found, Mapping):
                kind = type(found).__name__
                raise TypeError(f"it holds one {kind}, where weights by name are needed")
            named = list(_named(found, torch.Tensor))
            tensors = {name: _to_numpy(tensor) for name, tensor in named}
    except Exception as error:  # torch raises many kinds, pickle's among them
        foreign = re.search(r"GLOBAL (\S+)", str(error))
        reason = f"it holds a {foreign[1]}, not only tensors" if foreign else _sentence(error)
        raise ValueError(
            f"not a plain file of weights, as torch.save(model.state_dict(), FILE) writes it "
            f"({reason}); nothing in it was run"
        ) from error
    if len(tensors) < len(named):
        raise ValueError("two tensors in it have the same name")
    return tensors


def _harmless() -> list[Any]:
    """Returns types that training scripts save next to weights and that run no code when read."""
    kinds = [getattr(np.dtypes, name) for name in np.dtypes.__all__]
    scalar = np.float64(0).__reduce__()[0]
    modules = ("numpy.core.multiarray", "numpy._core.multiarray")  # of NumPy 1 and 2
    return [
        *kinds,
        np.dtype,
        *((scalar, f"{module}.scalar") for module in modules),
        argparse.Namespace,
    ]


def _named(
    found: Mapping[Any, Any], kind: type, prefix: str = "", depth: int = LARGEST_DEPTH
) -> Iterator[tuple[str, Any]]:
    """Yields the objects of a kind in nested dictionaries, by their names joined with dots."""
    for name, value in found.items():
        if not isinstance(name, str):
            continue
        if isinstance(value, kind):
            yield prefix + name, value
        elif isinstance(value, Mapping) and depth > 1:
            yield from _named(value, kind, f"{prefix}{name}.", depth - 1)


def _to_numpy(tensor: Any) -> np.ndarray:
    """Returns a PyTorch tensor in its own type, or in float32 where NumPy lacks that type."""
    tensor = tensor.int_repr() if tensor.is_quantized else tensor.detach().to_dense()
    known = ("torch.float64", "torch.float32", "torch.float16")
    if tensor.is_floating_point() and str(tensor.dtype) not in known:
        tensor = tensor.float()
    return tensor.resolve_conj().resolve_neg().numpy()


def _sentence(error: Exception) -> str:
    """Returns what an error says in one sentence, or its kind."""
    # PyTorch puts a paragraph on its options before the message of its unpickler.
    text = str(error).rpartition("WeightsUnpickler error: ")[2].strip() or type(error).__name__
    return re.split(r"\.\s|\n", text)[0][:120]
