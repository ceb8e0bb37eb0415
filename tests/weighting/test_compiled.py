"""What the weightings by the Gram matrix compile to for a few tasks, where kernels are the cost."""

import re

import jax
import jax.numpy as jnp
import pytest

from mtl_jax.weighting import METHODS, Signals
from mtl_jax.weighting.numerics.small import FEW

WITHOUT_LIBRARY = (
    "nash", "fairgrad", "mgda", "upgrad", "dualproj", "cagrad", "pcd", "inverse_norm", "pcgrad",
    "gradvac",
)  # fmt: skip
# Operations of a compiled computation that run nothing.
FREE = {"parameter", "constant", "tuple", "get-tuple-element", "bitcast"}


def lowered(name: str, num_tasks: int) -> jax.stages.Lowered:
    weighting = METHODS[name]()

    def update(gram, state):
        signals = Signals(jnp.ones(num_tasks), gram, jnp.array(0), jax.random.key(0))
        return weighting.update(signals, state)

    return jax.jit(update).lower(jnp.eye(num_tasks), weighting.init(num_tasks))


def operations(text: str) -> dict[str, list[str]]:
    """The operations of each computation of a compiled program that are not free, by its name."""
    found = {}
    for block in text.split("\n\n"):
        head = re.match(r"(?:ENTRY )?%([\w.\-]+) ", block.strip())
        names = re.findall(r"^ +(?:ROOT )?%\S+ = (?:\([^=]*\)|\S+) ([\w\-]+)\(", block, re.M)
        if head:
            found[head[1]] = [name for name in names if name not in FREE]
    return found


def test_operations_are_counted():
    text = jax.jit(lambda x: jnp.linalg.cholesky(x) @ jnp.sin(x)).lower(jnp.eye(3)).compile()
    counted = [name for names in operations(text.as_text()).values() for name in names]
    assert "custom-call" in counted and "sine" in counted


@pytest.mark.parametrize("name", WITHOUT_LIBRARY)
@pytest.mark.parametrize("num_tasks", [pytest.param(3, marks=pytest.mark.slow), FEW])
def test_a_few_tasks_are_solved_without_a_library(name, num_tasks):
    text = lowered(name, num_tasks).as_text()
    assert "custom_call" not in text


def test_many_tasks_are_solved_by_one():
    assert "custom_call" in lowered("nash", FEW + 1).as_text()


def test_the_bargain_is_a_counted_loop_of_few_operations():
    text = lowered("nash", 3).compile().as_text()
    counts = operations(text)
    turns = re.findall(r'body=%([\w.\-]+).*known_trip_count":{"n":"(\d+)"', text)
    ((body, count),) = turns  # the other loop settles the last digits, which seldom takes a turn
    assert int(count) <= 7
    assert len(counts[body]) <= 4 * 15  # four steps in a turn
    assert len(re.findall(r" while\(", text)) <= 2


def test_quadratic_programs_have_no_loop():
    assert " while(" not in lowered("upgrad", 3).compile().as_text()
