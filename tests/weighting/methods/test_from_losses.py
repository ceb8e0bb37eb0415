"""Weightings by the losses alone against closed forms and float64 NumPy."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtl_jax.weighting import METHODS, Signals, make

LOSSES = np.array([0.3, 2.0, 1.1])


def signals(losses, step=0, **changes) -> Signals:
    plain = Signals(jnp.asarray(losses, jnp.float32), None, jnp.array(step), jax.random.key(step))
    return plain._replace(**changes)


def weights_of(weighting, losses=LOSSES) -> np.ndarray:
    return np.asarray(weighting.update(signals(losses), weighting.init(len(losses)))[0].shared)


def slopes(total, losses=LOSSES, step=1e-6) -> np.ndarray:
    """Central differences of a total in float64."""
    each = step * np.eye(len(losses))
    return np.array([(total(losses + e) - total(losses - e)) / (2 * step) for e in each])


def along_and_apart(losses, preference=(1.0, 1.0, 1.0), theta=5.0):
    direction = np.array(preference) / np.linalg.norm(preference)
    along = losses @ direction
    return along + theta * np.linalg.norm(losses - along * direction)


TOTALS = {
    "si": ({}, lambda x: np.log(x).sum()),
    "gls": ({}, lambda x: np.prod(x) ** (1 / 3)),
    "pbi": ({}, along_and_apart),
    "pbi wanted": ({"preference": (1, 2, 3)}, lambda x: along_and_apart(x, (1.0, 2.0, 3.0))),
    "fixed": ({"task_weights": (1, 0.5, 2)}, lambda x: x @ [1, 0.5, 2]),
    "stch": (
        {"steps_per_epoch": 1, "warmup_epochs": 0, "mu": 0.5},
        lambda x: 3 * 0.5 * np.log(np.sum((x / LOSSES[::-1]) ** (1 / 0.5))),
    ),
}


@pytest.mark.parametrize("case", TOTALS)
def test_weights_are_the_derivatives_of_the_total(case):
    options, total = TOTALS[case]
    weighting = METHODS[case.split()[0]](**options)
    state = weighting.init(3)
    if case == "stch":  # the first step measures the nadir
        warm, state, _ = weighting.update(signals(LOSSES[::-1]), state)
        np.testing.assert_allclose(warm.shared, 1 / LOSSES[::-1], rtol=1e-6)
    weights = weighting.update(signals(LOSSES, step=1), state)[0]
    np.testing.assert_allclose(weights.shared, slopes(total), rtol=2e-5)
    np.testing.assert_array_equal(weights.shared, weights.heads)


@pytest.mark.parametrize("factor", [1e-8, 1e-5, 1e4])
def test_pbi_depends_on_the_proportions_of_the_losses_alone(factor):
    expected = slopes(TOTALS["pbi"][1])
    np.testing.assert_allclose(weights_of(METHODS["pbi"](), factor * LOSSES), expected, rtol=2e-5)
    np.testing.assert_allclose(weights_of(METHODS["pbi"](), [0.0] * 3), [3**-0.5] * 3, rtol=1e-6)


def test_a_loss_of_zero_counts_as_a_small_one():
    np.testing.assert_allclose(weights_of(METHODS["si"](), [0.0, 2.0]), [1e6, 0.5], rtol=1e-6)


@pytest.mark.parametrize("loss", [-1e-6, -1e-9, 1e-6])
def test_a_loss_that_is_negative_by_rounding_counts_as_a_small_one(loss):
    np.testing.assert_allclose(weights_of(METHODS["si"](), [loss, 2.0]), [1e6, 0.5], rtol=1e-6)


def test_stch_takes_the_nadir_over_the_last_epoch_of_the_warmup():
    weighting = METHODS["stch"](steps_per_epoch=2, warmup_epochs=1)
    state = weighting.init(2)
    for step, losses in enumerate([(9.0, 9.0), (9.0, 9.0), (1.0, 2.0), (3.0, 6.0)]):
        weights, state, _ = weighting.update(signals(losses, step), state)
        np.testing.assert_allclose(weights.shared, 1 / np.array(losses), rtol=1e-6)
    weights, _, _ = weighting.update(signals((2.0, 8.0), 4), state)
    share = np.array([2.0 / 2.0, 8.0 / 4.0])
    np.testing.assert_allclose(weights.shared, 2 * share / share.sum() / [2.0, 8.0], rtol=1e-6)


@pytest.mark.parametrize("form", ["normal", "dirichlet"])
def test_random_weights_have_their_distribution(form):
    weighting = METHODS["rlw"](form)
    keys = jax.random.split(jax.random.key(0), 4000)

    def draw(key):
        return weighting.update(signals(LOSSES, key=key), ())[0].shared

    weights = np.asarray(jax.vmap(draw)(keys), np.float64)
    np.testing.assert_allclose(weights.sum(1), 1.0, rtol=1e-5)
    np.testing.assert_allclose(weights.mean(0), 1 / 3, atol=0.02)
    if form == "dirichlet":  # uniform on the simplex: variance (K - 1) / (K^2 (K + 1))
        np.testing.assert_allclose(weights.var(0), 2 / 36, rtol=0.1)
    else:
        odds = np.log(weights[:, 0] / weights[:, 1])  # a difference of two standard normals
        assert odds.std() == pytest.approx(np.sqrt(2), rel=0.05)


def softmax(x):
    return np.exp(x) / np.exp(x).sum()


@pytest.mark.parametrize("temperature", [1.0, 7.5])
def test_uw_so_is_the_softmax_of_the_inverse_losses(temperature):
    expected = softmax(1 / LOSSES / temperature)
    np.testing.assert_allclose(weights_of(METHODS["uw_so"](temperature)), expected, rtol=1e-5)
    # A loss of zero has all of the weight, where the plain softmax would be 0 / 0.
    np.testing.assert_array_equal(weights_of(METHODS["uw_so"](temperature), [0.0, 2.0]), [1, 0])


@pytest.mark.parametrize("base_epoch", [0, 1])
def test_igb_weighs_logarithms_by_what_is_left_of_the_base_losses(base_epoch):
    rng = np.random.default_rng(0)
    history = rng.uniform(0.2, 2.0, (3, 4, 3))  # epochs, steps, tasks
    weighting = METHODS["igb"](4, base_epoch=base_epoch)
    state = weighting.init(3)
    for step, losses in enumerate(history.reshape(-1, 3)):
        weights, state, _ = weighting.update(signals(losses, step), state)
        share = np.ones(3)
        if step >= 4 * (base_epoch + 1):
            share = 3 * softmax(losses / history[base_epoch].mean(0))
        np.testing.assert_allclose(weights.shared, share / losses, rtol=1e-5)


@pytest.mark.parametrize(
    ("text", "simpler", "warmup"),
    [
        ("igb:steps_per_epoch=3", "si", 6),
        ("igb:steps_per_epoch=2,base_epoch=0", "si", 2),
        ("dwa:steps_per_epoch=2", "equal", 4),
        ("stch:steps_per_epoch=2,warmup_epochs=1", "si", 4),
        ("cr_mogm:method=igb:steps_per_epoch=2,decay=0", "si", 4),
    ],
)
def test_in_its_warmup_a_method_has_the_weights_of_a_simpler_one(text, simpler, warmup):
    weighting, other = make(text), METHODS[simpler]()
    assert (weighting.warmup, other.warmup) == (warmup, 0)
    state, history = weighting.init(3), np.random.default_rng(0).uniform(0.2, 2.0, (warmup + 1, 3))
    for step, losses in enumerate(history):
        weights, state, _ = weighting.update(signals(losses, step), state)
        expected = other.update(signals(losses, step), other.init(3))[0].shared
        assert np.allclose(weights.shared, expected, rtol=1e-5) == (step < warmup)


@pytest.mark.parametrize("groups", [1, 2, 3])
def test_go4align_gives_each_group_the_mean_of_its_tasks(groups):
    rng = np.random.default_rng(0)
    weighting = METHODS["go4align"](groups=groups, eta=0.05)
    state, p, update = weighting.init(4), np.full(4, 0.25), jax.jit(weighting.update)
    for step in range(6):
        losses = rng.uniform(0.2, 3.0, 4)
        weights, state, _ = update(signals(losses, step), state)
        p = p * np.exp(-0.05 * losses)
        p /= p.sum()
        values = p * losses.sum() / losses
        splits = [np.array(x) for x in itertools.product(range(groups), repeat=4)]
        grouped = [
            np.array([values[split == own].mean() for own in split], np.float64) for split in splits
        ]
        expected = min(grouped, key=lambda means: np.sum((values - means) ** 2))
        np.testing.assert_allclose(weights.shared, expected, rtol=1e-5)


def test_dwa_compares_the_last_two_epochs():
    rng = np.random.default_rng(0)
    history = rng.uniform(0.5, 2.0, (4, 5, 3))  # epochs, steps, tasks
    weighting = METHODS["dwa"](5, temperature=1.5)
    state = weighting.init(3)
    for epoch in range(4):
        for index in range(5):
            given = signals(history[epoch, index], 5 * epoch + index)
            weights, state, _ = weighting.update(given, state)
            expected = np.ones(3)
            if epoch >= 2:
                means = history.mean(1)
                expected = 3 * softmax(means[epoch - 1] / means[epoch - 2] / 1.5)
            np.testing.assert_allclose(weights.shared, expected, rtol=1e-5)


def test_dwa_by_window_compares_the_last_two_windows():
    rng = np.random.default_rng(0)
    history = rng.uniform(0.5, 2.0, (12, 2))
    weighting = METHODS["dwa_window"](3)
    state = weighting.init(2)
    for step, losses in enumerate(history):
        weights, state, _ = weighting.update(signals(losses, step), state)
        expected = np.ones(2)
        if step >= 6:
            newer, older = history[step - 3 : step].mean(0), history[step - 6 : step - 3].mean(0)
            expected = 2 * softmax(newer / older / 2.0)
        np.testing.assert_allclose(weights.shared, expected, rtol=1e-5)


def test_imtl_l_brings_the_scaled_losses_to_one():
    weighting = METHODS["imtl_l"](learning_rate=0.05)

    def step(state, _):
        weights, state, _ = weighting.update(signals(LOSSES), state)
        return state, weights.shared

    _, weights = jax.lax.scan(step, weighting.init(3), length=600)
    np.testing.assert_allclose(weights[0], 1.0)
    np.testing.assert_allclose(weights[-1] * LOSSES, 1.0, rtol=1e-3)


class Adam:
    """Adam in float64, with PyTorch's weight decay."""

    def __init__(self, size, rate, decay=0.0):
        self.m, self.v, self.t, self.rate, self.decay = (
            np.zeros(size),
            np.zeros(size),
            0,
            rate,
            decay,
        )

    def step(self, x, gradient):
        gradient = gradient + self.decay * x
        self.t += 1
        self.m = 0.9 * self.m + 0.1 * gradient
        self.v = 0.999 * self.v + 0.001 * gradient**2
        m, v = self.m / (1 - 0.9**self.t), self.v / (1 - 0.999**self.t)
        return x - self.rate * m / (np.sqrt(v) + 1e-8)


def test_imtl_l_descends_its_total_by_adam():
    rng = np.random.default_rng(0)
    weighting = METHODS["imtl_l"](learning_rate=0.1)
    state, scales, adam = weighting.init(3), np.zeros(3), Adam(3, 0.1)
    for step in range(5):
        losses = rng.uniform(0.2, 3.0, 3)
        weights, state, _ = weighting.update(signals(losses, step), state)
        np.testing.assert_allclose(weights.shared, np.exp(scales), rtol=1e-5)
        scales = adam.step(scales, np.exp(scales) * losses - 1)
    np.testing.assert_allclose(state.value, scales, rtol=1e-4)


def test_famo_follows_the_fall_of_the_losses():
    rng = np.random.default_rng(0)
    weighting = METHODS["famo"](gamma=0.01, learning_rate=0.1)
    state = weighting.init(3)
    logits, adam = np.zeros(3), Adam(3, 0.1, 0.01)
    for step in range(8):
        before = rng.uniform(0.2, 3.0, 3)
        after = before * rng.uniform(0.8, 1.05, 3)
        given = signals(before, step)
        weights, state, _ = weighting.update(given, state)
        share = softmax(logits)
        expected = share / before
        np.testing.assert_allclose(weights.shared, expected / expected.sum(), rtol=1e-4)
        state = weighting.follow_up(jnp.float32(after), given, state)
        fall = np.log(before) - np.log(after)
        jacobian = np.diag(share) - np.outer(share, share)
        logits = adam.step(logits, jacobian @ fall)
    np.testing.assert_allclose(state.value, logits, rtol=1e-3)


def test_ldc_mtl_descends_its_total_with_weights_and_router():
    rng = np.random.default_rng(0)
    weighting = METHODS["ldc_mtl"](0.1, learning_rate=0.3)
    state, update = weighting.init(3), jax.jit(weighting.update)
    logits, adam, first = np.zeros(3), Adam(3, 0.3), None
    for step in range(12):
        losses = rng.uniform(0.2, 3.0, 3)
        first = losses if first is None else first

        def total(losses, logits, first=first):
            router = np.clip(softmax(logits), 0.2, 0.8)
            weighted = router * losses * first.min() / first
            return weighted.sum() / router.sum() + 0.1 * np.abs(np.diff(weighted)).sum()

        weights, state, diagnostics = update(signals(losses, step), state)
        expected = slopes(lambda x, z=logits: total(x, z), losses)
        np.testing.assert_allclose(weights.shared, expected, rtol=1e-4)
        np.testing.assert_allclose(
            diagnostics["router"], np.clip(softmax(logits), 0.2, 0.8), rtol=1e-4
        )
        if step:  # in the first step all are equal
            logits = adam.step(logits, slopes(lambda z, x=losses: total(x, z), logits))
        np.testing.assert_allclose(state.router.value, logits, rtol=1e-3, atol=1e-4)
    assert np.any(diagnostics["router"] == np.float32(0.2))  # the range of the router mattered


def test_ldc_mtl_compares_neighbours_over_a_task_without_labels():
    weighting = METHODS["ldc_mtl"]()
    absent = signals([0.3, np.nan, 1.1], labelled=jnp.array([True, False, True]))
    weights, state, _ = weighting.update(absent, weighting.init(3))
    pair, alone, _ = weighting.update(signals([0.3, 1.1]), weighting.init(2))
    np.testing.assert_allclose(weights.shared, [pair.shared[0], 0.0, pair.shared[1]], rtol=1e-6)
    assert state.first[1] == state.router.value[1] == 0
    np.testing.assert_allclose(state.router.value[::2], alone.router.value, rtol=1e-5)


@pytest.mark.parametrize("count", [3, pytest.param(40, marks=pytest.mark.slow)])
def test_ldc_mtl_has_positive_weights_where_the_router_sums_to_most(count):
    """A small loss between two larger ones has the smallest weight."""
    weighting = METHODS["ldc_mtl"](0.3)
    state = weighting.init(count)
    router = jnp.full(count, -20.0).at[:2].set(0.0)
    state = state._replace(
        router=state.router._replace(value=router), first=jnp.ones(count, jnp.float32)
    )
    losses = np.where(np.arange(count) % 2, 1e-3, 1.0)
    weights, _, diagnostics = weighting.update(signals(losses, 1), state)
    assert np.sum(diagnostics["router"]) > 1.6 - 2 * 0.6 / count - 1e-3
    assert np.all(weights.shared > 0)


def test_famo_leaves_a_task_without_labels_alone():
    weighting = METHODS["famo"]()
    state = weighting.init(3)
    given = signals([1.0, np.nan, 2.0], labelled=jnp.array([True, False, True]))
    after = weighting.follow_up(jnp.array([0.5, np.nan, 1.9]), given, state)
    assert after.value[1] == 0 and after.value[0] != 0
    np.testing.assert_array_equal(after.optimizer[1][0].count, [1, 0, 1])


@pytest.mark.parametrize(
    ("name", "options", "complaint"),
    [
        ("fixed", {"task_weights": (-1.0, 1.0)}, "fixed's task_weights must be finite"),
        ("rlw", {"form": "uniform"}, "rlw's form must be one of"),
        ("dwa", {"steps_per_epoch": 0}, "steps_per_epoch must be at least 1"),
        ("dwa", {"temperature": 0.0}, "temperature must be positive"),
        ("dwa_window", {"window": 0}, "window must be at least 1"),
        ("stch", {"mu": 0.0}, "mu must be positive"),
        ("stch", {"warmup_epochs": -1}, "warmup_epochs must be at least 0"),
        ("imtl_l", {"learning_rate": 0.0}, "learning_rate must be positive"),
        ("famo", {"gamma": -1.0}, "gamma must be finite"),
        ("famo", {"learning_rate": 0.0}, "learning_rate must be positive"),
        ("pbi", {"theta": -1.0}, "theta must be finite"),
        ("go4align", {"groups": 0}, "groups must be at least 1"),
        ("go4align", {"eta": 0.0}, "eta must be positive"),
        ("ldc_mtl", {"penalty": 0.31}, "penalty must be 0 to 0.3"),
        ("ldc_mtl", {"learning_rate": 0.0}, "learning_rate must be positive"),
        ("igb", {"steps_per_epoch": 0}, "steps_per_epoch must be at least 1"),
        ("igb", {"base_epoch": -1}, "base_epoch must be at least 0"),
        ("uw_so", {"temperature": 0.0}, "temperature must be positive"),
    ],
)
def test_bad_options_are_refused(name, options, complaint):
    with pytest.raises(ValueError, match=complaint):
        METHODS[name](**options)


@pytest.mark.parametrize("name", ["fixed", "pbi"])
def test_a_wrong_number_of_preferences_is_refused(name):
    with pytest.raises(ValueError, match="one number for each of the 3 tasks"):
        METHODS[name]((1.0, 2.0)).init(3)


def test_dwa_begins_an_epoch_though_its_first_step_was_skipped():
    weighting = METHODS["dwa"](4, temperature=1.0)
    state = weighting.init(3)
    for step in range(12):
        if step != 8:
            losses = LOSSES * (1.0, 0.5, 0.25)[step // 4] ** np.array([1.0, 0.0, 2.0])
            _, state, _ = weighting.update(signals(losses, step), state)
    weights = weighting.update(signals(LOSSES, 12), state)[0].shared
    ratios = np.exp([0.5, 1.0, 0.25])
    np.testing.assert_allclose(weights, 3 * ratios / ratios.sum(), rtol=1e-5)


@pytest.mark.parametrize("name", ["uw", "imtl_l"])
def test_a_loss_that_stays_zero_breaks_nothing(name):
    weighting = METHODS[name](learning_rate=1.0)

    def step(_, state):
        return weighting.update(signals([0.0, 1.0, 2.0]), state)[1]

    state = jax.lax.fori_loop(0, 1000, step, weighting.init(3))
    weights, state, _ = weighting.update(signals([0.0, 1.0, 2.0]), state)
    assert np.all(np.isfinite(weights.shared))
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(state))
