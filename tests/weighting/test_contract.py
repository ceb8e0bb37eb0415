"""What every method promises."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtl_jax.weighting import METHODS, gram
from tests.weighting.steps import (
    DRAWS,
    EACH_KIND,
    SHAPES,
    SIZE,
    advance,
    assert_close,
    assert_finite,
    assert_same_kind,
    compiled,
    step,
)

# Three tasks in the usual tests, other numbers of them in the slow ones.
SIZES = (3, *(pytest.param(count, marks=pytest.mark.slow) for count in (1, 2, 8, 40)))
# Other orders of K tasks, in methods to which some matter: the neighbours, or the first task, stay.
ORDERS = {
    "ldc_mtl": lambda count: np.arange(count)[::-1],
    "pcd": lambda count: np.append(0, 1 + np.random.default_rng(0).permutation(count - 1)),
}
# Power of the unit in the weights, where it isn't 0: w_i (G w)_i = 1, (G w)_i = w_i ** (-1 / 2),
# the derivative of log L, gradients of log L, gradients brought to the length L.
POWERS = {
    "gradients": {"nash": -1.0, "fairgrad": -4.0 / 3.0, "moco": -1.0, "cr_mogm": -1.0},
    "losses": {"si": -1.0, "stch": -1.0, "db_mtl": -1.0, "igb": -1.0},
}
HAS_A_UNIT = {("modo", "gradients"), ("modo", "losses"), ("moco", "losses"), ("uw_so", "losses")}


@pytest.mark.parametrize("num_tasks", SIZES)
def test_shapes_and_dtypes(weighting, num_tasks):
    weights, _, diagnostics = advance(weighting, step(num_tasks), weighting.init(num_tasks, SHAPES))
    for part in weights:
        assert part.shape == (num_tasks,) and part.dtype == jnp.float32
    for value in diagnostics.values():
        assert value.dtype == jnp.float32
    assert_finite((weights, diagnostics))


@pytest.mark.parametrize("num_tasks", SIZES)
def test_state_keeps_its_kind(weighting, num_tasks):
    before = weighting.init(num_tasks, SHAPES)
    _, after, first = advance(weighting, step(num_tasks), before)
    assert_same_kind(after, before)
    between = step(num_tasks, gram=None)
    _, after, second = advance(weighting, between, after)
    assert_same_kind(after, before)
    assert_same_kind(second, first)


@EACH_KIND
def test_jit_computes_the_same(name, weighting):
    state = weighting.init(3, SHAPES)
    plain = advance(METHODS[name](), step(3), state)
    fast = advance(weighting, step(3), state)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), plain, fast)


@EACH_KIND
def test_vmap_computes_the_same(weighting):
    state = weighting.init(3, SHAPES)
    several = [step(3, seed) for seed in range(4)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *several)
    together = jax.vmap(lambda given: advance(weighting, given, state)[0])(stacked)
    for index, alone in enumerate(several):
        expected = advance(weighting, alone, state)[0]
        np.testing.assert_allclose(together.shared[index], expected.shared, rtol=1e-5)
        np.testing.assert_allclose(together.heads[index], expected.heads, rtol=1e-5)


@pytest.mark.parametrize("num_tasks", SIZES)
def test_order_of_the_tasks_does_not_matter(name, weighting, num_tasks):
    if name in DRAWS:
        pytest.skip("it draws for each task")
    if name == "sdmgrad" and num_tasks == 40:
        pytest.skip("its long steps amplify rounding")
    order = ORDERS.get(name, np.random.default_rng(2).permutation)(num_tasks)
    state = permuted = weighting.init(num_tasks, SHAPES)
    for seed in range(3):
        one = step(num_tasks, seed)
        weights, state, _ = advance(weighting, one, state)
        swapped, permuted, _ = advance(weighting, one.choose(order), permuted)
        assert_close(swapped.shared, weights.shared[order], rtol=1e-4)
        assert_close(swapped.heads, weights.heads[order], rtol=1e-4)


@pytest.mark.parametrize("what", ["gradients", "losses"])
def test_weights_follow_the_unit_of_gradients_and_losses_as_documented(name, what):
    if (name, what) in HAS_A_UNIT:
        pytest.skip("the step of its weights has a unit")
    weighting = METHODS[name](max_norm=np.inf) if name == "fairgrad" else compiled(name)
    before = step(3)
    after = before.change(losses=2 * before.signals.losses)
    if what == "gradients":
        after = before.scale(2.0)
    weights, scaled = (
        advance(weighting, given, weighting.init(3, SHAPES))[0].shared for given in (before, after)
    )
    factor = 2.0 ** POWERS[what].get(name, 0.0)
    np.testing.assert_allclose(scaled, factor * weights, rtol=2e-4)


@EACH_KIND
def test_all_labelled_is_the_default(weighting):
    state = weighting.init(3, SHAPES)
    implied = advance(weighting, step(3, labelled=None), state)
    spoken = advance(weighting, step(3), state)
    # Two programs, which may round differently.
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), implied, spoken
    )


def test_between_updates_the_last_weights_hold(name, weighting):
    if weighting.needs == "losses":
        pytest.skip("it updates in every step")
    state = weighting.init(3, SHAPES)
    between = step(3, seed=1, gram=None)
    weights, state, diagnostics = advance(weighting, between, state)
    for part in weights:
        np.testing.assert_array_equal(part, np.ones(3))
    # Nothing has been solved, as where a caller forgets the Gram matrix.
    assert diagnostics.pop("fallback") == 1
    assert all(not np.any(value) for value in diagnostics.values())
    rows = jnp.array([[2.0, 0.0, 0.0], [-0.5, 1.3, 0.0], [-0.25, 0.15, 0.1]])
    conflict = step(3, gram=gram(rows), cross=gram(rows))
    conflict = conflict._replace(gradients=jnp.pad(rows, ((0, 0), (0, SIZE - 3))))
    _, state, _ = advance(weighting, step(3), state)
    updated = advance(weighting, conflict, state)
    held = advance(weighting, between, updated[1])
    if name != "graddrop":  # which has no weights
        assert not np.array_equal(held[0].shared, np.ones(3))
    jax.tree.map(np.testing.assert_array_equal, held, updated)


def test_methods_by_losses_do_not_want_the_gram_matrix(weighting):
    if weighting.needs != "losses":
        pytest.skip("it needs the Gram matrix")
    state = weighting.init(3, SHAPES)
    with_gram = advance(weighting, step(3), state)
    without = advance(weighting, step(3, gram=None), state)
    jax.tree.map(np.testing.assert_array_equal, with_gram, without)


def test_half_precision_losses(weighting):
    given = step(3)
    half = given.change(losses=given.signals.losses.astype(jnp.bfloat16))
    state = weighting.init(3, SHAPES)
    weights, after, _ = jax.eval_shape(lambda: advance(weighting, half, state))
    assert weights.shared.dtype == weights.heads.dtype == jnp.float32
    assert_same_kind(after, state)


def test_no_tasks(weighting):
    with pytest.raises(ValueError, match="at least one task"):
        weighting.init(0, SHAPES)
