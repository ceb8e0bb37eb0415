"""A diagnosis: its numbers against direct computations, and what it suggests."""

import doctest
import json
import re
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from mtl_jax.weighting import diagnose, diagnosis, gram, make
from mtl_jax.weighting.diagnosis import CAVEATS, OPPOSED, SIMILAR

DOCS = Path(__file__).parents[2] / "docs"
STEPS = 40


def gradients_of(seed=0, *, sizes=(1.0, 1.0, 1.0), common=0.0, opposed=0.0):
    """Gradients f64[steps, 3, 50]: noise around a common vector, which the last task opposes."""
    rng = np.random.default_rng(seed)
    base = rng.normal(size=50)
    rows = rng.normal(size=(STEPS, 3, 50)) + common * base
    rows[:, 2] -= opposed * base
    return rows * np.array(sizes)[:, None]


def grams_of(rows):
    return rows @ rows.swapaxes(1, 2)


def test_the_numbers_are_those_of_the_gradients():
    rows = gradients_of(sizes=(1.0, 4.0, 0.5), common=0.5, opposed=0.8)
    found = diagnose(grams_of(rows), 2 * np.linalg.norm(rows, axis=2), names=["a", "b", "c"])
    assert (found.names, found.steps) == (("a", "b", "c"), STEPS)
    assert found.missing.tolist() == [0, 0, 0]
    assert "left out" not in str(found)
    norms = np.linalg.norm(rows, axis=2)
    typical = np.prod(norms ** (1 / STEPS), axis=0)
    np.testing.assert_allclose(found.norms, typical)
    np.testing.assert_allclose(found.relative_norms, 0.5)
    total = rows.sum(1)
    np.testing.assert_allclose(
        found.shares, np.einsum("ski,si->k", rows, total) / np.sum(total**2), rtol=1e-9
    )
    assert found.shares.sum() == pytest.approx(1)
    opposed = np.einsum("ski,si->sk", rows, total) < 0
    np.testing.assert_array_equal(found.opposed, opposed.mean(0))
    scaled = (rows / typical[:, None]).sum(1)
    np.testing.assert_array_equal(
        found.opposed_scaled, (np.einsum("ski,si->sk", rows, scaled) < 0).mean(0)
    )
    cosine = np.sum(rows[:, 0] * rows[:, 2], axis=1) / (norms[:, 0] * norms[:, 2])
    assert found.cosines[0, 2] == pytest.approx(cosine.mean())
    assert found.conflicts[0, 2] == np.mean(cosine < 0)
    # Of independent steps, the error is the usual one up to the noise of ten blocks.
    usual = cosine.std(ddof=1) / np.sqrt(STEPS)
    assert found.errors[0, 2] == pytest.approx(usual, rel=0.5)


def test_steps_without_a_task_leave_the_others_alone():
    rows = gradients_of(common=1.0)
    products = grams_of(rows)
    absent = products.copy()
    absent[::2, 2] = absent[::2, :, 2] = 0.0
    absent[5] = np.nan
    found = diagnose(absent, np.ones((STEPS, 3)))
    kept = np.arange(STEPS) != 5
    whole = diagnose(products[kept])
    assert (found.steps, found.missing.tolist()) == (STEPS, [1, 1, 1 + STEPS // 2])
    assert f"of {STEPS} steps, 1 for task 1, 1 for task 2, 21 for task 3." in str(found)
    assert found.cosines[0, 1] == pytest.approx(whole.cosines[0, 1])
    np.testing.assert_allclose(found.norms[:2], whole.norms[:2])
    seen = diagnose(products[1::2][np.arange(1, STEPS, 2) != 5])
    assert found.norms[2] == pytest.approx(seen.norms[2])
    assert found.cosines[0, 2] == pytest.approx(seen.cosines[0, 2])


def test_nothing_to_gain():
    text = str(diagnose(grams_of(gradients_of(common=1.0)), np.ones((STEPS, 3))))
    assert "Nothing here speaks for a method" in text
    assert "What this can't tell" in text
    assert "differ**" not in text and "opposes a task**" not in text


def test_different_sizes_are_a_matter_of_losses_or_of_gradients():
    sizes = (1.0, 20.0, 0.5)
    products = grams_of(gradients_of(sizes=sizes, common=1.0))
    in_proportion = str(diagnose(products, np.ones((STEPS, 3)) * sizes))
    assert "**The sizes differ**: the gradient of task 2 is " in in_proportion
    assert "may be enough" in in_proportion
    alike = str(diagnose(products, np.ones((STEPS, 3))))
    assert "would leave the gradients at different sizes" in alike
    # The weights that it names do what it says.
    weights = re.search(r"`(fixed:task_weights=\S+)`", alike)[1]
    made = make(weights)
    assert made.needs == "losses"
    factors = np.array([float(x) for x in weights.partition("=")[2].split("+")])
    lengths = factors * diagnose(products).norms
    np.testing.assert_allclose(lengths / lengths[0], 1.0, atol=0.1)
    for losses in (None, -np.ones((STEPS, 3))):
        found = diagnose(products, losses)
        assert found.relative_norms is None and "| – |" in str(found)


def test_conflict_of_directions_and_of_sizes():
    rows = gradients_of(common=3.0, opposed=6.0)
    text = str(diagnose(grams_of(rows)))
    assert "**The sum opposes a task**" in text and "so this is a conflict" in text
    assert "**Conflict on average** (mean cosine): task 1 and task 3 (-0." in text
    # The larger task outvotes another one, with which it would agree at the same length.
    rows = np.array([[1.0, 0.0, 0.0], [-9.0, 28.5, 0.0], [0.3, 0.0, 0.95]])
    text = str(diagnose(grams_of(np.tile(rows, (STEPS, 1, 1)))))
    assert "**The sum opposes a task**: task 1 in 100%, task 3 in 100% of the steps." in text
    assert "With gradients of one length it would be at most 0%" in text


def test_a_conflict_needs_enough_steps_and_does_not_speak_for_a_method_by_itself():
    rows = np.tile([[1.0, 0.0], [-0.2, 1.0]], (STEPS, 1, 1))
    text = str(diagnose(grams_of(rows)))
    assert "**Conflict on average**" in text and "**Little here speaks for a method**" in text
    few = str(diagnose(grams_of(rows[:10])))
    assert "Conflict on average" not in few and "**Nothing here speaks for a method**" in few


def test_a_sum_of_zero_has_no_shares():
    found = diagnose(np.tile([[1.0, -1.0], [-1.0, 1.0]], (STEPS, 1, 1)))
    assert np.all(np.isnan(found.shares)) and "| – |" in str(found)


def test_the_methods_that_it_suggests_have_the_properties_that_it_gives_as_reason():
    table = json.loads((DOCS / "properties.json").read_text())
    for name in ("si", "famo", "nash", "config"):
        assert table[name]["same_direction_in_any_unit"]
    for name in ("si", "famo"):
        assert not table[name]["reads_gradients"]
    for name in ("upgrad", "nash"):
        assert table[name]["conflicts_with_no_task"]


def test_the_page_shows_what_is_printed_now():
    printed = str(diagnose(grams_of(gradients_of()), names=["a", "b", "c"]))
    page = (DOCS / "when_it_helps.md").read_text(encoding="utf-8")
    for line in [*re.findall(r"^\| (?:task|pair) .*$", printed, re.MULTILINE), CAVEATS]:
        assert f"\n> {line}\n" in page
    assert f"a factor of {SIMILAR:g}" in page and OPPOSED == 0.1


def test_a_list_of_what_gram_returns():
    products = gram(jnp.array([[3.0, 4.0], [0.0, 2.0]]))
    found = diagnose([products, products])
    np.testing.assert_allclose(found.norms, [5.0, 2.0], rtol=1e-6)
    assert found.cosines[0, 1] == pytest.approx(0.8)
    assert np.isnan(found.errors[0, 1]) and " ± " not in str(found)


def test_the_example_of_the_docstring():
    outcome = doctest.testmod(diagnosis)
    assert outcome.attempted > 4 and not outcome.failed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"grams": np.ones((3, 2))}, r"`grams` must have the shape \[steps, K, K\], got \(3, 2\)"),
        ({"grams": np.ones((0, 2, 2))}, "`grams` has no finite gradient"),
        ({"grams": np.full((4, 2, 2), np.nan)}, "for task 1, task 2"),
        ({"grams": np.ones((4, 2, 2)), "losses": np.ones(4)}, "`losses` must have the shape"),
        ({"grams": np.ones((4, 2, 2)), "names": ["a"]}, "`names` must have one name"),
    ],
)
def test_what_makes_no_diagnosis(arguments, message):
    with pytest.raises(ValueError, match=message):
        diagnose(**arguments)
