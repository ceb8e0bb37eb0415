"""docs/properties.json: the properties of the methods, against experiments."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtl_jax.weighting import METHODS, Present, TaskWeights, from_gradients_update, from_gram
from tests.docs import scripts

TABLE = json.loads((scripts.DOCS / "properties.json").read_text(encoding="utf-8"))
# Methods that compile fast and between them have every property, and lack it.
QUICK = ("si", "config", "graddrop")


@pytest.fixture(scope="module")
def script():
    return scripts.load("properties")


def without_time(entry):
    return {key: value for key, value in entry.items() if key != "milliseconds"}


def test_the_table_has_every_method():
    assert list(TABLE) == list(METHODS), "run python docs/properties.py"
    assert all(entry["milliseconds"] >= 0 for entry in TABLE.values())


@pytest.mark.parametrize("name", METHODS)
def test_what_a_method_reads_and_keeps(script, name):
    weighting = METHODS[name]()
    assert TABLE[name]["state"] == script.state_size(weighting)
    assert TABLE[name]["reads_gradients"] == (weighting.needs != "losses")


@pytest.mark.parametrize("name", QUICK)
def test_a_few_experiments_agree_with_the_table(script, name):
    found = script.experiment(name, trials=30, tasks=(3,))
    assert found == {key: TABLE[name][key] for key in found}


@pytest.mark.slow
@pytest.mark.parametrize("name", METHODS)
def test_the_experiments_agree_with_the_table(script, name):
    assert script.properties(name) == without_time(TABLE[name])


def worst(script, weighting):
    found = script.contradictions(weighting, trials=20, num_tasks=3)
    return {key: value < script.TOLERANCE for key, value in found.items()}


def test_the_experiments_know_methods_whose_properties_are_obvious(script):
    """Methods of one line, one for each property that the others lack."""
    same_length = worst(script, from_gram(lambda gram: 1 / jnp.sqrt(jnp.diagonal(gram))))
    assert same_length["same_in_any_unit"] and same_length["weights_not_negative"]
    assert not same_length["linear_in_scale"] and not same_length["conflicts_with_no_task"]
    against = worst(script, from_gram(lambda gram: jnp.array([1.0, 1.0, -1.0])))
    assert against["linear_in_scale"] and against["ignores_losses"]
    assert not against["weights_not_negative"] and against["weighs_gradients"]

    def by_losses(gradients: jax.Array, signals: Present, state: tuple) -> tuple:
        ones = jnp.ones(3)
        merged = jnp.max(gradients, axis=0) * signals.losses[0]
        return merged, TaskWeights(ones, ones), state

    entrywise = worst(script, from_gradients_update(by_losses))
    assert not entrywise["weighs_gradients"] and not entrywise["ignores_losses"]


def test_the_courses_have_conflict_and_agreement(script):
    rows = script.random_courses(np.random.default_rng(0), 100, 3).rows
    products = rows @ rows.swapaxes(-1, -2)
    norms = np.sqrt(np.diagonal(products, axis1=-2, axis2=-1))
    cosines = products[..., 0, 1] / (norms[..., 0] * norms[..., 1])
    assert cosines.min() < -0.9 and cosines.max() > 0.9
    assert np.mean(norms.max(-1) > 5 * norms.min(-1)) > 0.2


def test_what_is_neither_true_nor_false_is_refused(script, monkeypatch):
    def nearly():
        return from_gram(lambda gram: jnp.array([1.0, 1.0, -0.005]))

    monkeypatch.setitem(METHODS, "nearly", nearly)
    with pytest.raises(ValueError, match="nearly: weights_not_negative is neither true nor false"):
        script.experiment("nearly", trials=5, tasks=(3,))
