"""The package on its own: what it imports, and its examples."""

import doctest
import subprocess
import sys

import mtl_jax.weighting


def test_stands_alone_and_imports_quietly():
    program = (
        "import sys, mtl_jax.weighting;"
        "print(*(m for m in sys.modules if m.startswith('mtl_jax.') and 'weighting' not in m))"
    )
    command = [sys.executable, "-W", "error:JAXopt:DeprecationWarning", "-c", program]
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout.strip() == "mtl_jax.version"


def test_the_examples_of_the_package_print_what_they_say():
    outcome = doctest.testmod(mtl_jax.weighting)
    assert outcome.attempted > 10 and outcome.failed == 0
