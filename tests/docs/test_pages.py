"""The Python of README.md runs as written and prints what its comments say."""

import re
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from mtl_jax.weighting import METHODS, Signals

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)


@pytest.mark.parametrize("source", EXAMPLES)
def test_an_example_runs_and_prints_what_it_says(source, capsys, monkeypatch):
    monkeypatch.setattr("mtl_jax.weighting.METHODS", dict(METHODS))
    exec(compile(source, "README.md", "exec"), {})
    promised = re.findall(r"print\(.*\)  # (.*)", source)
    assert capsys.readouterr().out.splitlines() == promised


def test_the_method_of_ones_own(monkeypatch):
    mine = dict(METHODS)
    monkeypatch.setattr("mtl_jax.weighting.METHODS", mine)
    (source,) = [text for text in EXAMPLES if "by_gram" in text]
    exec(compile(source, "README.md", "exec"), {})
    weighting = mine["same_length"]()
    signals = Signals(jnp.ones(2), jnp.array([[4.0, 1.0], [1.0, 0.25]]), jnp.array(0))
    weights, _, _ = weighting.update(signals, weighting.init(2))
    np.testing.assert_allclose(weights.shared, [0.5, 2.0])


def test_every_method_and_flag_is_one():
    from absl import flags

    import launch

    table = README.split("| `--weighting` |")[1].split("\n\n")[0]
    named = re.findall(r"`([a-z_]+)`", re.sub(r"\|[^|]*\|[^|]*\|$", "", table, flags=re.MULTILINE))
    assert set(METHODS) <= set(named)
    known = {flag.name for flag in flags.FLAGS.get_flags_for_module(launch)}
    ours = set(re.findall(r"`?--([a-z]+[a-z_]*)", README)) - {"help", "flagfile", "xla", "logdir"}
    assert {flag.removeprefix("no") if flag == "noaugment" else flag for flag in ours} <= known | {
        "xla_gpu_deterministic_ops"
    }
