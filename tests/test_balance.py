"""The weightings in a loop of one's own, over any pytree of parameters."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtl_jax.balance import balance
from mtl_jax.gradients import gram, task_gradients
from mtl_jax.weighting import METHODS, Signals

PARAMS = {"layers": [jnp.array([1.0, -2.0]), (jnp.array([[0.5]]),)]}
ALONE = [name for name in METHODS if name not in ("famo", "modo", "sdmgrad")]


def losses_of(params):
    a, (b,) = params["layers"]
    return jnp.stack(
        [jnp.sum(a**2), jnp.sum(jnp.sin(a)) + b[0, 0] ** 2, jnp.sum(a) * b[0, 0] + 5.0]
    )


def test_task_gradients_are_those_of_each_loss():
    losses, gradients = jax.jit(lambda p: task_gradients(losses_of, p))(PARAMS)
    np.testing.assert_allclose(losses, losses_of(PARAMS), rtol=1e-6)
    for k in range(3):
        expected = jax.grad(lambda p, k=k: losses_of(p)[k])(PARAMS)
        found = jax.tree.map(lambda g, k=k: g[k], gradients)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), found, expected)


@pytest.mark.parametrize("name", ALONE)
def test_the_gradient_is_the_weighted_sum(name):
    balancer = balance(METHODS[name]())
    losses, gradients = task_gradients(losses_of, PARAMS)
    state = balancer.init(3, PARAMS)
    found, after = jax.jit(balancer.update)(losses, gradients, state)
    assert jax.tree.structure(found) == jax.tree.structure(PARAMS)
    assert after.step == 1
    assert jax.tree.structure(after) == jax.tree.structure(state)
    weighting = METHODS[name]()
    if weighting.combine is None:
        key = jax.random.fold_in(jax.random.key(0), 0)
        signals = Signals(losses, gram(gradients), jnp.array(0), key)
        weights = weighting.update(signals, weighting.init(3))[0].shared
        expected = jax.tree.map(lambda g: jnp.tensordot(weights, g, 1), gradients)
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), found, expected
        )


@pytest.mark.parametrize("name", ["famo", "modo", "sdmgrad"])
def test_what_needs_more_is_refused(name):
    with pytest.raises(ValueError, match="call its `update`"):
        balance(METHODS[name]())


@pytest.mark.parametrize("name", ["nash", "gradnorm", "graddrop", "excess_mtl", "uw"])
def test_the_state_may_be_donated(name):
    balancer = balance(METHODS[name]())
    losses, gradients = task_gradients(losses_of, PARAMS)
    update = jax.jit(balancer.update, donate_argnums=2)
    _, state = update(losses, gradients, balancer.init(3, PARAMS))
    assert update(losses, gradients, state)[1].step == 2


@pytest.mark.parametrize("name", ["nash", "uw", "dwa"])
def test_a_task_without_labels_is_not_learned_from(name):
    """What its loss and gradient are said to be makes no difference to the others."""
    balancer = balance(METHODS[name]())
    losses, gradients = task_gradients(losses_of, PARAMS)
    labelled = jnp.array([True, False, True])

    def run(factor):
        scale = jnp.array([1.0, factor, 1.0])
        scaled = jax.tree.map(lambda g: scale.reshape(-1, *[1] * (g.ndim - 1)) * g, gradients)
        state = balancer.init(3, PARAMS)
        for _ in range(3):
            _, state = balancer.update(scale * losses, scaled, state, labelled)
        return jax.tree.leaves(state.weighting)

    for a, b in zip(run(1.0), run(0.0), strict=True):
        np.testing.assert_array_equal(a, b)
