import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtl_jax.weighting import Signals, uw

FORMS = [
    {"form": "common"},
    {"form": "likelihood", "classification": (True, False, False)},
]


def step(losses, **changes) -> Signals:
    plain = Signals(jnp.asarray(losses, jnp.float32), None, jnp.array(0, jnp.int32))
    return plain._replace(**changes)


def total(options, losses, s):
    """The total loss in float64, from the paper."""
    factor = np.full(3, 0.5)
    if options["form"] == "likelihood":
        factor[list(options["classification"])] = 1.0
    return np.sum(factor * np.exp(-s) * losses + 0.5 * s)


def difference(function, x):
    """Central differences of a function of an array."""
    offsets = 1e-6 * np.eye(len(x))
    return np.array([(function(x + h) - function(x - h)) / 2e-6 for h in offsets])


def adam(options, losses, labelled, initial, learning_rate=0.025):
    """Adam (Kingma and Ba) in float64, each task on its own: s after every step [T, K]."""
    s, m, v, count = np.full(3, initial), np.zeros(3), np.zeros(3), np.zeros(3)
    path = []
    for row, present in zip(losses, labelled, strict=True):
        gradient = difference(lambda x, row=row: total(options, row, x), s)
        count = count + present
        m = np.where(present, 0.9 * m + 0.1 * gradient, m)
        v = np.where(present, 0.999 * v + 0.001 * gradient**2, v)
        with np.errstate(invalid="ignore", divide="ignore"):
            move = m / (1 - 0.9**count) / (np.sqrt(v / (1 - 0.999**count)) + 1e-8)
        s = np.where(present, s - learning_rate * move, s)
        path.append(s)
    return np.array(path)


@pytest.mark.parametrize("options", FORMS)
def test_weights_are_the_derivatives_of_the_total(options):
    weighting = uw(initial=0.7, **options)
    losses = np.array([0.5, 2.0, 0.01])
    weights, _, diagnostics = weighting.update(step(losses), weighting.init(3))
    expected = difference(lambda x: total(options, x, np.full(3, 0.7)), losses)
    np.testing.assert_allclose(weights.shared, expected, rtol=1e-5)
    np.testing.assert_allclose(weights.heads, expected, rtol=1e-5)
    np.testing.assert_allclose(diagnostics["log_variance"], 0.7, rtol=1e-6)


@pytest.mark.parametrize("options", FORMS)
def test_log_variances_follow_adam(options):
    rng = np.random.default_rng(0)
    losses = rng.uniform(0.05, 4.0, (60, 3)).astype(np.float32)
    labelled = rng.uniform(size=(60, 3)) < 0.7
    weighting = uw(initial=-0.5, **options)
    state, path = weighting.init(3), []
    update = jax.jit(weighting.update)
    for row, present in zip(losses, labelled, strict=True):
        _, state, _ = update(step(row, labelled=jnp.asarray(present)), state)
        path.append(np.asarray(state.value))
    expected = adam(options, losses.astype(np.float64), labelled, -0.5)
    np.testing.assert_allclose(path, expected, atol=2e-5)


def test_log_variances_follow_torch():
    torch = pytest.importorskip("torch")
    losses = np.random.default_rng(1).uniform(0.05, 4.0, (60, 3)).astype(np.float32)
    s = torch.zeros(3, requires_grad=True)
    optimizer = torch.optim.Adam([s], lr=0.025)
    weighting = uw()
    state = weighting.init(3)
    update = jax.jit(weighting.update)
    for row in losses:
        optimizer.zero_grad()
        (0.5 * (torch.exp(-s) * torch.from_numpy(row) + s)).sum().backward()
        optimizer.step()
        _, state, _ = update(step(row), state)
        np.testing.assert_allclose(state.value, s.detach().numpy(), atol=1e-5)


@pytest.mark.parametrize("options", FORMS)
def test_constant_losses_lead_to_the_optimum(options):
    losses = np.float32([0.1, 1.5, 6.0])
    weighting = uw(**options)

    def body(state, _):
        return weighting.update(step(losses), state)[1], None

    state, _ = jax.lax.scan(body, weighting.init(3), length=2000)
    best = np.log(losses)
    if options["form"] == "likelihood":
        best[0] = np.log(2 * losses[0])
    np.testing.assert_allclose(state.value, best, atol=1e-3)


@pytest.mark.parametrize("loss, labelled", [(1.0, False), (np.nan, True), (np.inf, True)])
def test_nothing_is_learned_without_a_label_or_a_finite_loss(loss, labelled):
    weighting = uw()
    _, state, _ = weighting.update(step([0.5, 2.0, 3.0]), weighting.init(3))
    given = step([0.5, loss, 3.0], labelled=jnp.array([True, labelled, True]))
    weights, after, _ = weighting.update(given, state)
    assert np.all(np.isfinite(weights.shared)) and np.all(np.isfinite(weights.heads))
    for new, old in zip(jax.tree.leaves(after), jax.tree.leaves(state), strict=True):
        np.testing.assert_array_equal(new[1], old[1])
        assert np.all(new[jnp.array([0, 2])] != old[jnp.array([0, 2])])


@pytest.mark.parametrize(
    "options, message",
    [
        ({"form": "paper"}, "form must be one of common, likelihood"),
        ({"form": "likelihood"}, "needs `classification`"),
        ({"learning_rate": 0.0}, "learning_rate must be positive"),
        ({"learning_rate": float("nan")}, "learning_rate must be positive"),
        ({"initial": float("inf")}, "initial must be finite"),
    ],
)
def test_bad_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        uw(**options)


def test_wrong_number_of_kinds():
    with pytest.raises(ValueError, match="one entry for each of the 2 tasks"):
        uw(form="likelihood", classification=(True, False, False)).init(2)
