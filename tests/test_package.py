"""`import mtl_jax` costs nothing and names what people import."""

import importlib.metadata
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import mtl_jax

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
# What a training, a data set or a report needs, and the weightings don't.
TRAIN = ("flax", "orbax", "h5py", "PIL", "safetensors", "tensorboardX", "tqdm", "chex")
HEAVY = ("matplotlib", "tensorflow", "tensorflow_datasets", "torch")


@pytest.mark.parametrize("name", mtl_jax.__all__)
def test_a_public_name_is_there(name):
    assert getattr(mtl_jax, name) is not None


def test_another_name_is_not():
    with pytest.raises(AttributeError, match="'nothing'"):
        _ = mtl_jax.nothing


@pytest.mark.parametrize(
    ("code", "absent"),
    [
        ("mtl_jax", ("absl", "jax", "numpy", *HEAVY)),
        ("mtl_jax.weighting.METHODS", (*TRAIN, *HEAVY)),
    ],
)
def test_nothing_is_imported_that_is_not_needed(code, absent):
    code = f"import mtl_jax, sys; {code}; print([x for x in {absent} if x in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr


def test_the_core_needs_three_packages():
    names = {re.split(r"[<>=]", text)[0] for text in PROJECT["dependencies"]}
    assert names == {"jax", "jaxopt", "optax"}


def test_what_the_weightings_do_not_need_is_named_where_it_is_missing():
    code = "import sys; sys.modules['flax'] = None; import mtl_jax; mtl_jax.weighting; mtl_jax.load"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    last = done.stderr.strip().splitlines()[-1]
    assert "mtl_jax.load needs flax, which the extra `train` brings: pip install" in last


def test_the_version_is_in_one_place():
    assert "version" not in PROJECT
    assert re.fullmatch(r"\d+\.\d+\.\d+", mtl_jax.__version__)
    assert importlib.metadata.version("mtl_jax") == mtl_jax.__version__
    citation = (ROOT / "CITATION.cff").read_text()
    assert f"\nversion: {mtl_jax.__version__}\n" in citation
    assert mtl_jax.__version__ in (ROOT / "CHANGELOG.md").read_text()
