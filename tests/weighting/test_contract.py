"""What every method promises."""

import doctest
import functools
import subprocess
import sys
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mtl_jax.weighting
from mtl_jax.weighting import METHODS, Signals, gram

# Three tasks in the usual tests, other numbers of them in the slow ones.
SIZES = (3, *(pytest.param(count, marks=pytest.mark.slow) for count in (1, 2, 8, 40)))
SIZE = 60
SHAPES = jax.ShapeDtypeStruct((SIZE,), jnp.float32)

# They draw a number, or an order, for each task's place.
DRAWS = {"rlw", "pcgrad", "gradvac"}
# Other orders of K tasks, in methods to which some matter: the neighbours, or the first task, stay.
ORDERS = {
    "ldc_mtl": lambda count: np.arange(count)[::-1],
    "pcd": lambda count: np.append(0, 1 + np.random.default_rng(0).permutation(count - 1)),
}
# Their weights may be zero or negative.
SIGNED = {
    "pbi", "mgda", "pcgrad", "gradvac", "imtl_g", "imtl", "aligned_mtl", "config", "modo", "db_mtl",
    "moco", "pcd",
}  # fmt: skip

# Power of the unit in the weights, where it isn't 0: w_i (G w)_i = 1, (G w)_i = w_i ** (-1 / 2),
# the derivative of log L, gradients of log L, gradients brought to the length L.
POWERS = {
    "gradients": {"nash": -1.0, "fairgrad": -4.0 / 3.0, "moco": -1.0, "cr_mogm": -1.0},
    "losses": {"si": -1.0, "stch": -1.0, "db_mtl": -1.0, "igb": -1.0},
}
HAS_A_UNIT = {("modo", "gradients"), ("modo", "losses"), ("moco", "losses"), ("uw_so", "losses")}


class Step(NamedTuple):
    """What a method may see of a step: a method reads the gradients only in its `combine`."""

    signals: Signals
    gradients: jax.Array

    def change(self, **changes) -> "Step":
        return self._replace(signals=self.signals._replace(**changes))

    def scale(self, factor) -> "Step":
        """The same step with longer gradients."""
        matrices = {key: factor**2 * getattr(self.signals, key) for key in ("gram", "cross")}
        return self.change(**matrices)._replace(gradients=factor * self.gradients)

    def choose(self, tasks) -> "Step":
        """The step of some of its tasks, or of all in another order."""
        old = self.signals
        signals = old._replace(
            losses=old.losses[tasks],
            gram=old.gram[tasks][:, tasks],
            cross=old.cross[tasks][:, tasks],
            labelled=old.labelled[tasks],
        )
        return Step(signals, self.gradients[tasks])

    def set_row(self, task, value) -> "Step":
        """The step with another gradient of one task."""
        matrices = {
            key: getattr(self.signals, key).at[task, :].set(value).at[:, task].set(value)
            for key in ("gram", "cross")
        }
        return self.change(**matrices)._replace(gradients=self.gradients.at[task].set(value))


def step(num_tasks: int, seed: int = 0, **changes) -> Step:
    rng = np.random.default_rng(seed)
    gradients = rng.standard_normal((num_tasks, SIZE)).astype(np.float32)
    other = rng.standard_normal((2, num_tasks, SIZE)).astype(np.float32)
    plain = Signals(
        losses=jnp.asarray(rng.uniform(0.1, 3.0, num_tasks).astype(np.float32)),
        gram=jnp.asarray(gradients @ gradients.T),
        step=jnp.array(0, jnp.int32),
        key=jax.random.key(seed),
        cross=jnp.asarray((gradients + other[0]) @ (gradients + other[1]).T),
        # As good as nothing, but the same program as where some are not.
        labelled=jnp.ones(num_tasks, bool),
    )
    return Step(plain, jnp.asarray(gradients)).change(**changes)


def advance(weighting, given, state):
    """(weights, state, diagnostics) of a step, by `combine` where a loop would call that."""
    if weighting.combine is None or given.signals.gram is None:
        return weighting.update(given.signals, state)
    return weighting.combine(given.gradients, given.signals, state)[1:]


def broken_grams() -> dict[str, np.ndarray]:
    good = np.array([[4.0, 1.0, -0.5], [1.0, 2.0, 0.3], [-0.5, 0.3, 0.1]], np.float32)
    one_zero = good * np.array([1, 0, 1], np.float32)[:, None] * np.array([1, 0, 1], np.float32)
    one_nan, one_inf = good.copy(), good.copy()
    one_nan[1, :] = one_nan[:, 1] = np.nan
    one_inf[1, 1] = np.inf
    opposed = np.array([[1, -1, 0], [-1, 1, 0], [0, 0, 1]], np.float32)
    return {
        "zero": np.zeros((3, 3), np.float32),
        "one task zero": one_zero,
        "opposed": opposed,
        "all equal": np.full((3, 3), 100, np.float32),
        "nan": np.full((3, 3), np.nan, np.float32),
        "one task nan": one_nan,
        "inf": np.full((3, 3), np.inf, np.float32),
        "one task inf": one_inf,
        "not a Gram matrix": -np.eye(3, dtype=np.float32),
        "huge": good * np.float32(1e37),
        "tiny": good * np.float32(1e-37),
    }


def broken_steps(weighting) -> dict[str, Step]:
    """Steps with impossible or extreme gradients; only their matrix where they are not read."""
    if weighting.combine is None:
        return {
            case: step(3, gram=jnp.asarray(matrix), cross=jnp.asarray(matrix))
            for case, matrix in broken_grams().items()
        }
    good = step(3)
    rows = {
        "zero": jnp.zeros((3, SIZE)),
        "one task zero": good.gradients.at[1].set(0.0),
        "opposed": good.gradients.at[1].set(-good.gradients[0]),
        "all equal": jnp.ones((3, SIZE)),
        "nan": jnp.full((3, SIZE), jnp.nan),
        "one task nan": good.gradients.at[1, 2].set(jnp.nan),
        "inf": jnp.full((3, SIZE), jnp.inf),
        "one task inf": good.gradients.at[1, 2].set(jnp.inf),
        "huge": 1e18 * good.gradients,
        "tiny": 1e-18 * good.gradients,
    }
    return {case: step(3, gram=gram(g))._replace(gradients=g) for case, g in rows.items()}


def assert_same_kind(after, before):
    assert jax.tree.structure(after) == jax.tree.structure(before)
    for new, old in zip(jax.tree.leaves(after), jax.tree.leaves(before), strict=True):
        assert (new.shape, new.dtype, new.weak_type) == (old.shape, old.dtype, old.weak_type)


def assert_close(found, expected, *, rtol):
    """With many tasks the weights that are small next to others have fewer digits."""
    atol = 0.0 if len(expected) <= 3 else 1e-3 * np.abs(expected).max()
    np.testing.assert_allclose(found, expected, rtol=rtol, atol=atol)


def assert_finite(tree):
    for leaf in jax.tree.leaves(tree):
        assert np.all(np.isfinite(leaf)), leaf


@pytest.fixture(params=METHODS)
def name(request):
    return request.param


# One method of each kind of program: losses, a random draw, an inner optimiser, Newton's method,
# a quadratic program, tasks met in turn, singular values, the gradients themselves.
KINDS = {"si", "rlw", "famo", "nash", "mgda", "pcgrad", "aligned_mtl", "moco"}
# All methods, of which the usual tests take one of each kind where a method is compiled once more.
EACH_KIND = pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=() if name in KINDS else pytest.mark.slow) for name in METHODS],
)


@functools.cache
def compiled(name):
    weighting = METHODS[name]()
    combine = weighting.combine and jax.jit(weighting.combine)
    return weighting._replace(update=jax.jit(weighting.update), combine=combine)


@pytest.fixture
def weighting(name):
    return compiled(name)


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


def test_nothing_breaks_a_method(name, weighting):
    state = weighting.init(3, SHAPES)
    for case, given in broken_steps(weighting).items():
        weights, state, diagnostics = advance(weighting, given, state)
        for tree in (weights, diagnostics):
            assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(tree)), case
        assert name in SIGNED or all(np.all(part > 0) for part in weights), case
    losses = step(3).signals.losses
    for loss in (np.nan, np.inf, 0.0, -1.0):
        given = step(3, losses=losses.at[1].set(loss))
        weights, state, diagnostics = advance(weighting, given, state)
        assert_finite((weights, diagnostics))
    assert_finite(state)


@pytest.mark.parametrize(
    "num_tasks", [3, *(pytest.param(k, marks=pytest.mark.slow) for k in (8, 40))]
)
def test_a_task_without_labels_leaves_the_others_alone(name, weighting, num_tasks):
    if name in DRAWS:
        pytest.skip("it draws for each task")
    if name == "sdmgrad" and num_tasks == 40:
        pytest.skip("its long steps amplify rounding")
    present = np.delete(np.arange(num_tasks), 1)
    state = weighting.init(num_tasks, SHAPES)
    alone = weighting.init(num_tasks - 1, SHAPES)
    for seed in range(3):
        pair = step(num_tasks, seed).choose(present)
        # Nothing that is reported of a task without labels may matter.
        full = step(num_tasks, seed).set_row(1, jnp.nan)
        full = full.change(
            losses=full.signals.losses.at[1].set(jnp.nan),
            gram=full.signals.gram.at[:, 1].set(5.0),
            cross=full.signals.cross.at[:, 1].set(5.0),
            labelled=jnp.arange(num_tasks) != 1,
        )
        weights, state, diagnostics = advance(weighting, full, state)
        expected, alone, _ = advance(weighting, pair, alone)
        assert_close(weights.shared[present], expected.shared, rtol=1e-5)
        assert_close(weights.heads[present], expected.heads, rtol=1e-5)
        assert weights.shared[1] == weights.heads[1] == diagnostics["participation"][1] == 0
        assert diagnostics["fallback"] == 0
        assert_finite((weights, diagnostics, state))


def test_the_labels_come_back_with_the_last_weight_between_updates(weighting):
    if weighting.needs == "losses":
        pytest.skip("it updates in every step")
    absent = jnp.array([True, False, True])
    updated, state, _ = advance(weighting, step(3), weighting.init(3, SHAPES))
    _, state, _ = advance(weighting, step(3, seed=1, labelled=absent), state)
    held, _, _ = advance(weighting, step(3, seed=2, gram=None), state)
    # The last combination, made without the task, left its head a weight of 1.
    assert held.heads[1] == (updated.heads[1] if weighting.combine is None else 1) != 0
    held, _, _ = advance(weighting, step(3, seed=2, gram=None, labelled=absent), state)
    assert held.shared[1] == held.heads[1] == 0


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("what", ["loss", "gradient"])
def test_a_present_task_that_is_not_finite_is_a_fallback(name, weighting, bad, what):
    if what == "gradient" and weighting.needs == "losses":
        pytest.skip("it does not see the gradients")
    last, state, _ = advance(weighting, step(3), weighting.init(3, SHAPES))
    given = step(3, seed=1)
    if what == "loss":
        given = given.change(losses=given.signals.losses.at[1].set(bad))
    else:
        given = given.set_row(1, bad)
    weights, after, diagnostics = advance(weighting, given, state)
    assert diagnostics["fallback"] == 1
    assert_finite((weights, after, diagnostics))
    if weighting.needs == "losses":
        assert weights.shared[1] == 0 and diagnostics["participation"][1] == 0
    else:
        # In some methods the limit on the norm is that of this step's gradients.
        np.testing.assert_array_equal(weights.heads, last.heads)
        if name == "cr_mogm":
            after, state = after.inner, state.inner
        jax.tree.map(np.testing.assert_array_equal, after.method, state.method)


# In these logarithms, inverses or ratios of the losses count.
NEEDS_POSITIVE = {
    "si", "gls", "stch", "dwa", "dwa_window", "uw", "imtl_l", "famo", "imtl", "gradnorm", "db_mtl",
    "moco", "uw_so", "igb", "go4align", "ldc_mtl",
}  # fmt: skip


def test_a_negative_loss_takes_no_part_where_its_logarithm_or_inverse_would_count(name, weighting):
    given = step(3)
    negative = given.change(losses=given.signals.losses.at[1].set(-0.3))
    weights, state, diagnostics = advance(weighting, negative, weighting.init(3, SHAPES))
    assert_finite((weights, state, diagnostics))
    assert diagnostics["fallback"] == 0
    if name in NEEDS_POSITIVE:
        absent = given.change(labelled=jnp.array([True, False, True]))
        expected = advance(weighting, absent, weighting.init(3, SHAPES))
        np.testing.assert_array_equal(diagnostics.pop("negative_loss"), [0, 1, 0])
        np.testing.assert_array_equal(expected[2].pop("negative_loss"), 0)
        jax.tree.map(np.testing.assert_array_equal, (weights, state, diagnostics), expected)
        assert weights.shared[1] == 0
    else:
        assert "negative_loss" not in diagnostics
        np.testing.assert_array_equal(diagnostics["participation"], 1)
        assert name in SIGNED or 1e-3 < weights.shared[1] < 1e3


def test_no_loss_makes_a_weight_of_more_than_a_million(name, weighting):
    state = weighting.init(3, SHAPES)
    for seed, losses in enumerate(
        ([0.0, 1.0, 2.0], [1e-20, 1e-30, 3.0], [5.0, -2.0, 1e-7], [-1e-9, -3.0, 1e-12], [0.0] * 3)
    ):
        for _ in range(2):
            given = step(3, seed, losses=jnp.array(losses))
            weights, state, diagnostics = advance(weighting, given, state)
            assert_finite((weights, state, diagnostics))
            assert all(np.all(np.abs(part) < 3.1e6) for part in weights)


@pytest.mark.parametrize("normalization", ["loss", "loss+"])
def test_mgda_by_losses_leaves_out_a_negative_one_and_survives_zero(normalization):
    weighting = METHODS["mgda"](normalization)
    given = step(3)
    for loss, takes_part in ((-0.3, 0), (0.0, 1)):
        bad = given.change(losses=given.signals.losses.at[1].set(loss))
        weights, _, diagnostics = advance(weighting, bad, weighting.init(3, SHAPES))
        assert diagnostics["participation"][1] == takes_part and diagnostics["fallback"] == 0
        assert weights.shared.sum() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("bad", [-0.1, np.nan, np.inf])
@pytest.mark.parametrize("when", ["before", "after"])
def test_famo_does_not_learn_from_a_loss_without_a_logarithm(bad, when):
    weighting = METHODS["famo"]()
    state, given, losses = weighting.init(3), step(3).signals, jnp.array([0.1, 0.1, 0.2])
    if when == "before":
        given = given._replace(losses=given.losses.at[1].set(bad))
    else:
        losses = losses.at[1].set(bad)
    after = weighting.follow_up(losses, given, state)
    assert after.value[1] == 0 and after.value[0] != 0
    np.testing.assert_array_equal(after.optimizer[1][0].count, [1, 0, 1])
    assert_finite(after)


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
