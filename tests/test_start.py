"""What launch.py says and imports before it does anything."""

import re
import subprocess
import sys

from absl import flags

import launch


def test_debug_shows_the_traceback():
    ended = subprocess.run(
        [sys.executable, "launch.py", "--debug", "--learning_rate=nan"],
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 1
    assert "Traceback" in ended.stderr
    assert ended.stderr.splitlines()[-1].startswith("ValueError: `learning_rate`=nan")


def test_help_opens_with_the_modes_and_names_every_flag():
    ended = subprocess.run([sys.executable, "launch.py", "--help"], capture_output=True, text=True)
    assert ended.returncode == 0
    first, *_ = ended.stdout.split("\nData:")
    for mode in flags.FLAGS["mode"].parser.enum_values:
        assert f"\n  {mode} " in first
    for flag in launch.own_flags():
        # As it is typed.
        shown = re.search(rf"\n  --{flag.name}(?:=(\S+))?: ", ended.stdout)
        assert (shown[1] and flag.parser.parse(shown[1])) == flag.default
        assert len(flag.help) > 10
    assert max(map(len, ended.stdout.splitlines())) <= 100


def test_a_missing_package_is_one_line_with_the_extra_that_brings_it():
    code = """
import runpy, sys
sys.modules["flax"] = None
runpy.run_path("launch.py", run_name="__main__")
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ended.returncode == 1
    (line,) = ended.stderr.splitlines()
    assert line.startswith("launch.py: ") and "flax" in line
    assert line.count("pip install") == 1
    assert line.endswith("pip install -e '.[train]' in the clone")


def test_a_start_imports_nothing_that_it_does_not_need():
    code = """
import sys
from absl import flags
import launch
flags.FLAGS(["launch.py", "--dataset=rooms", "--workdir=nowhere"])
args = launch.SimpleNamespace(**{flag.name: flag.value for flag in launch.own_flags()})
launch.settle(args)
heavy = {"matplotlib", "torch", "cvxpy", "tensorflow", "mtl_jax.bench", "tensorflow_datasets"}
heavy |= {"scipy", "jaxopt"}
print(sorted(heavy & set(sys.modules)))
launch.one_run.check_run(args, launch.outline_of(args))
print(sorted(heavy & set(sys.modules)))
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    # Nash-MTL is solved with JAXopt, which imports SciPy.
    later = "['jaxopt', 'scipy', 'tensorflow_datasets']"
    assert ended.stdout.splitlines() == ["[]", later], ended.stderr
