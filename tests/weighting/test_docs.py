"""docs/weightings.md: made from the docstrings, true of the methods."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtl_jax.weighting import METHODS, TITLES, Signals, Weighting, gram
from mtl_jax.weighting.make import parse
from mtl_jax.weighting.options import split
from tests.docs import scripts

PAGE = (scripts.DOCS / "weightings.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def script():
    return scripts.load("weightings")


def test_the_page_is_what_the_script_makes(script):
    assert script.page() == PAGE, "run python docs/weightings.py"


def test_every_method_has_a_title_and_a_section_of_its_own():
    assert set(TITLES) == set(METHODS)
    assert len(set(TITLES.values())) == len(METHODS)
    sections = re.findall(r"^### (.*), `(\w+)`$", PAGE, re.MULTILINE)
    assert sections == [(TITLES[name], name) for name in METHODS]


def test_the_numbers_of_methods_are_right():
    root = scripts.DOCS.parent
    for file, text in (
        ("README.md", f"[{len(METHODS)} weightings](docs/weightings.md)"),
        ("docs/guide.md", f"[{len(METHODS)} methods](weightings.md)"),
        ("launch.py", f"equal, uw, nash:max_norm=1 or one of the {len(METHODS) - 3} others"),
    ):
        assert text in (root / file).read_text(encoding="utf-8"), f"{file} lacks {text!r}"


@pytest.mark.parametrize("name", METHODS)
def test_the_heads_follow_the_rule_of_the_docstring(script, name):
    rows = jnp.array([[10.0, 1.0, 0.0], [-9.0, 3.0, 0.0], [-1.0, -1.0, 0.2]])
    weighting, matrix = METHODS[name](), gram(rows)
    update = jax.jit(weighting.update)
    state = weighting.init(3, jax.ShapeDtypeStruct((3,), jnp.float32))
    for step in range(2):
        losses = jnp.array([0.3, 2.0, 1.1])
        signals = Signals(losses, matrix, jnp.array(step), jax.random.key(step), cross=matrix)
        # All of it is there as in tests/weighting/steps.py, whose programs are used again.
        signals = signals._replace(labelled=jnp.ones(3, bool))
        if weighting.combine is None:
            weights, state, _ = update(signals, state)
        else:
            _, weights, state, _ = weighting.combine(rows, signals, state)
    rule = script.read(name).heads
    if rule.startswith("follow their own losses, with weight one"):
        np.testing.assert_array_equal(weights.heads, 1.0)
    elif rule.startswith("follow the logarithms"):
        np.testing.assert_allclose(weights.heads, 1 / losses, rtol=1e-6)
    elif rule.startswith("use the averages"):
        np.testing.assert_array_equal(weights.heads, state.weights.heads)
    elif "without the limit on the norm" in rule:
        np.testing.assert_array_equal(weights.heads, state.solution)
    else:
        assert rule.startswith("use the same weights")
        np.testing.assert_array_equal(weights.heads, weights.shared)


def test_a_docstring_that_lacks_something_is_refused(script, monkeypatch):
    def bare(strength: float = 1.0):
        """Bare: nothing."""

    monkeypatch.setitem(METHODS, "nash", bare)
    with pytest.raises(ValueError, match="nash: the docstring needs a formula"):
        script.read("nash")
    bare.__doc__ = "Bare: x.\n\n    w = 1\n\nSource: none.\nHeads: none."
    with pytest.raises(ValueError, match="nash: the docstring does not describe strength"):
        script.read("nash")


def test_the_commands_name_weightings_and_the_python_runs():
    lists = re.findall(r"--weightings?=(\S+)", PAGE)
    texts = [text for choices in lists for text in split(choices.split(",")) if ".py" not in text]
    assert len(texts) > 4
    for text in texts:
        assert str(parse(text)) in (text, text.replace(":alpha=2", ""))
    for source in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL):
        names = {}
        exec(compile(source, "weightings.md", "exec"), names)
        assert isinstance(names["my_method"](), Weighting)
