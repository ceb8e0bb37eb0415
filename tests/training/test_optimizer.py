"""Learning-rate schedules and Adam against closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mtl_jax.training import optimizer

RATE = 1e-4


def rates(at, **kwargs):
    schedule = optimizer.learning_rate_schedule(RATE, **kwargs)
    return np.array([float(schedule(int(step))) for step in at]) / RATE


def test_step_halves_every_so_many_epochs():
    steps = [0, 99, 100, 199, 200]
    found = rates(steps, schedule="step:halve_every=10", steps=300, steps_per_epoch=10)
    np.testing.assert_allclose(found, [1.0, 1.0, 0.5, 0.5, 0.25], rtol=1e-6)


def test_cosine_falls_to_zero_at_the_end():
    steps = np.array([0, 25, 50, 100])
    found = rates(steps, schedule="cosine", steps=100, steps_per_epoch=10)
    np.testing.assert_allclose(found, 0.5 * (1 + np.cos(np.pi * steps / 100)), atol=1e-6)


def test_constant_stays():
    found = rates([0, 7, 99], schedule="constant", steps=100, steps_per_epoch=10)
    np.testing.assert_allclose(found, 1.0, rtol=1e-6)


@pytest.mark.parametrize(("schedule", "late"), [("step", 0.5), ("cosine", 0.5), ("constant", 1.0)])
def test_warmup_rises_linearly_before_the_schedule_begins(schedule, late):
    # 20 steps of warm-up, then 80: step halves and cosine is half way 40 steps later.
    found = rates(
        [0, 5, 10, 20, 60],
        schedule=f"{schedule}:halve_every=4" if schedule == "step" else schedule,
        steps=100,
        steps_per_epoch=10,
        warmup_epochs=2.0,
    )
    np.testing.assert_allclose(found, [0.0, 0.25, 0.5, 1.0, late], atol=1e-6)


@pytest.mark.parametrize(
    ("rate", "kwargs", "message"),
    [
        (0.0, {}, "`learning_rate`=0.0: must be positive"),
        (-1e-3, {}, "`learning_rate`=-0.001: must be positive"),
        (float("nan"), {}, "`learning_rate`=nan: must be positive"),
        (RATE, {"schedule": "poly"}, "`schedule`: 'poly' is unknown: choose from step, cosine"),
        (RATE, {"warmup_epochs": -1.0}, "`warmup_epochs`=-1.0: must be 0 or more"),
        (RATE, {"warmup_epochs": 10.0}, "`warmup_epochs`=10.0: .* less than the run"),
        (RATE, {"schedule": "step:halve_every=0"}, "`schedule`=step:halve_every=0: .*at least 1"),
        (RATE, {"schedule": "cosine:halve_every=9"}, "`schedule`: .*cosine has no option"),
    ],
)
def test_schedule_refuses(rate, kwargs, message):
    with pytest.raises(ValueError, match=message):
        optimizer.learning_rate_schedule(rate, steps=100, steps_per_epoch=10, **kwargs)


@pytest.mark.parametrize("decay", [-0.1, float("nan")])
def test_adam_refuses_a_weight_decay(decay):
    with pytest.raises(ValueError, match=f"`weight_decay`={decay}: must be 0 or more"):
        optimizer.adam(optax.constant_schedule(RATE), weight_decay=decay)


def test_weight_decay_shrinks_kernels_only():
    params = {"kernel": jnp.full((3, 3, 2, 4), 2.0), "bias": jnp.ones(4), "scale": jnp.ones(4)}
    adam = optimizer.adam(optax.constant_schedule(0.1), weight_decay=0.01)
    zero = {name: jnp.zeros_like(x) for name, x in params.items()}
    updates, _ = adam.update(zero, adam.init(params), params)
    np.testing.assert_allclose(updates["kernel"], -0.1 * 0.01 * 2.0, rtol=1e-6)
    assert not np.any(updates["bias"])
    assert not np.any(updates["scale"])


def test_two_steps_of_adam_by_hand():
    gradients = np.array([[0.5, -2.0], [1.5, 1.0]])
    adam = optimizer.adam(optax.constant_schedule(0.1))
    params = jnp.zeros(2)
    state = adam.init(params)
    mean, square, expected = np.zeros(2), np.zeros(2), np.zeros(2)
    for step, gradient in enumerate(gradients, start=1):
        updates, state = adam.update(jnp.float32(gradient), state, params)
        params = optax.apply_updates(params, updates)
        mean = 0.9 * mean + 0.1 * gradient
        square = 0.999 * square + 0.001 * gradient**2
        root = np.sqrt(square / (1 - 0.999**step)) + 1e-8
        expected = expected - 0.1 * mean / (1 - 0.9**step) / root
    np.testing.assert_allclose(params, expected, rtol=1e-5)


@pytest.mark.parametrize("name", ["step:halve_every=1", "cosine", "constant"])
def test_compiled_updates_follow_the_schedule(name):
    schedule = optimizer.learning_rate_schedule(
        RATE, schedule=name, steps=8, steps_per_epoch=2, warmup_epochs=1.0
    )
    adam = optimizer.adam(schedule)
    params = jnp.zeros(1)
    state = adam.init(params)
    update = jax.jit(adam.update)
    found = []
    for _ in range(8):
        # Of a constant gradient Adam makes its sign.
        updates, state = update(jnp.full(1, 3.0), state, params)
        found.append(-float(updates[0]))
    np.testing.assert_allclose(found, [float(schedule(step)) for step in range(8)], rtol=1e-4)
    assert found[2] == pytest.approx(RATE, rel=1e-4)
