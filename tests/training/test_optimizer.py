"""Learning-rate schedules and optimizers against closed forms, and PyTorch."""

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
        (RATE, {"warmup_epochs": -1e-9}, "`warmup_epochs`=-1e-09: must be 0 or more"),
        (RATE, {"warmup_epochs": 10.0}, "`warmup_epochs`=10.0: .* less than the run's `epochs`"),
        (RATE, {"schedule": "step:halve_every=0"}, "`schedule`=step:halve_every=0: .*at least 1"),
        (RATE, {"schedule": "cosine:halve_every=9"}, "`schedule`: .*cosine has no option"),
    ],
)
def test_schedule_refuses(rate, kwargs, message):
    with pytest.raises(ValueError, match=message):
        optimizer.learning_rate_schedule(rate, steps=100, steps_per_epoch=10, **kwargs)


def trained(text, gradients, params, *, learning_rate=0.1):
    """The parameters after steps along these gradients, pytrees of NumPy arrays."""
    made = optimizer.make_optimizer(text, learning_rate=learning_rate)
    params = jax.tree.map(jnp.float32, params)
    state, update = made.init(params), jax.jit(made.update)
    for gradient in gradients:
        updates, state = update(jax.tree.map(jnp.float32, gradient), state, params)
        params = optax.apply_updates(params, updates)
    return jax.device_get(params)


def arrays(seed):
    """A kernel and a bias, f64."""
    rng = np.random.default_rng(seed)
    return {"kernel": rng.normal(size=(3, 2)), "bias": rng.normal(size=2)}


GRADIENTS = [arrays(seed) for seed in range(1, 4)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rmsprop", "`optimizer`: 'rmsprop' is unknown: choose from adam, adamw, sgd"),
        ("adam:weight_decay=0.1", "`optimizer`: .*adam has no option 'weight_decay'"),
        ("adamw:schedule=1", "no option 'schedule'; its options are weight_decay, clip"),
        ("adamw:weight_decay=-0.1", "`optimizer`=adamw:weight_decay=-0.1: weight_decay must be 0"),
        ("sgd:weight_decay=10", "`optimizer`=sgd:weight_decay=10: .*less than 1 / `learning_rate`"),
        ("sgd:weight_decay=inf", "must be less than 1 / `learning_rate`"),
        ("sgd:momentum=1", "`optimizer`=sgd:momentum=1: momentum must be 0 or more, and less"),
        ("sgd:momentum=0,nesterov=true", "nesterov needs a momentum above 0"),
        ("adam:clip=0", "`optimizer`=adam:clip=0: clip must be positive"),
        ("adam:encoder_rate=-1", "`optimizer`=adam:encoder_rate=-1: encoder_rate must be a number"),
        ("adam:clip=nan", "`optimizer`: .*clip must be a number, got 'nan'"),
    ],
)
def test_an_optimizer_is_refused(text, message):
    with pytest.raises(ValueError, match=message):
        optimizer.make_optimizer(text, learning_rate=0.1)


@pytest.mark.parametrize("text", ["adamw:weight_decay=0.02", "sgd:weight_decay=0.02"])
def test_weight_decay_shrinks_kernels_only(text):
    params = {"kernel": np.full((3, 3, 2, 4), 2.0), "bias": np.ones(4), "scale": np.ones(4)}
    found = trained(text, [jax.tree.map(np.zeros_like, params)], params)
    np.testing.assert_allclose(found["kernel"], 2.0 * (1 - 0.1 * 0.02), rtol=1e-6)
    assert np.all(found["bias"] == 1)
    assert np.all(found["scale"] == 1)


def test_adam_is_adamw_without_weight_decay_bit_for_bit():
    found = trained("adam", GRADIENTS, arrays(0))
    jax.tree.map(
        np.testing.assert_array_equal, found, trained("adamw:weight_decay=0", GRADIENTS, arrays(0))
    )
    plain, params = optax.adam(0.1), jax.tree.map(jnp.float32, arrays(0))
    state = plain.init(params)
    with jax.numpy_dtype_promotion("standard"):
        for gradient in GRADIENTS:
            updates, state = jax.jit(plain.update)(jax.tree.map(jnp.float32, gradient), state)
            params = optax.apply_updates(params, updates)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-6), found, params)


@pytest.mark.parametrize("decay", [0.0, 0.02])
def test_steps_of_adamw_by_hand(decay):
    found = trained(f"adamw:weight_decay={decay}", GRADIENTS, arrays(0))
    for name, expected in arrays(0).items():
        mean = square = 0.0
        for step, gradient in enumerate(GRADIENTS, start=1):
            mean = 0.9 * mean + 0.1 * gradient[name]
            square = 0.999 * square + 0.001 * gradient[name] ** 2
            root = np.sqrt(square / (1 - 0.999**step)) + 1e-8
            shrink = 1 - 0.1 * decay * (name == "kernel")
            expected = shrink * expected - 0.1 * mean / (1 - 0.9**step) / root
        # In float32, 1 - 0.999 has an error of 1e-5 itself.
        np.testing.assert_allclose(found[name], expected, rtol=1e-4)


@pytest.mark.parametrize("nesterov", [False, True])
def test_steps_of_sgd_by_hand(nesterov):
    text = f"sgd:momentum=0.8,nesterov={str(nesterov).lower()},weight_decay=0.02"
    found = trained(text, GRADIENTS, arrays(0))
    for name, expected in arrays(0).items():
        velocity = 0.0
        for gradient in GRADIENTS:
            slope = gradient[name] + 0.02 * (name == "kernel") * expected
            velocity = 0.8 * velocity + slope
            expected = expected - 0.1 * (slope + 0.8 * velocity if nesterov else velocity)
        np.testing.assert_allclose(found[name], expected, rtol=1e-5)


def test_a_long_gradient_is_scaled_down_to_the_norm():
    norms = [np.sqrt(sum(np.sum(x**2) for x in gradient.values())) for gradient in GRADIENTS]
    limit = np.mean(norms)
    assert min(norms) < limit < max(norms)
    found = trained(f"sgd:momentum=0,clip={limit}", GRADIENTS, arrays(0))
    for name, expected in arrays(0).items():
        for norm, gradient in zip(norms, GRADIENTS, strict=True):
            expected = expected - 0.1 * gradient[name] * min(1.0, limit / norm)
        np.testing.assert_allclose(found[name], expected, rtol=1e-5)


@pytest.mark.parametrize("text", ["adam", "adamw", "sgd"])
def test_clipping_leaves_a_gradient_of_zero_alone(text):
    zero = jax.tree.map(np.zeros_like, arrays(0))
    found = trained(f"{text}:clip=1", [zero], arrays(0))
    np.testing.assert_array_equal(found["bias"], np.float32(arrays(0)["bias"]))


@pytest.mark.parametrize(
    "text", ["adam", "adamw:clip=1.5", "sgd:clip=1.5", "sgd:nesterov=true,weight_decay=0.02"]
)
def test_optimizers_agree_with_pytorch(text):
    torch = pytest.importorskip("torch")
    # PyTorch's weight decay has no exception for biases.
    start, *gradients = ({"kernel": arrays(seed)["kernel"]} for seed in range(4))
    kernel = torch.nn.Parameter(torch.from_numpy(start["kernel"].copy()))
    theirs = {
        "adam": lambda: torch.optim.Adam([kernel], lr=0.1),
        "adamw": lambda: torch.optim.AdamW([kernel], lr=0.1),
        "sgd": lambda: torch.optim.SGD(
            [kernel],
            lr=0.1,
            momentum=0.9,
            nesterov="nesterov" in text,
            weight_decay=0.02 * ("decay" in text),
        ),
    }[text.partition(":")[0]]()
    for gradient in gradients:
        kernel.grad = torch.from_numpy(gradient["kernel"].copy())
        if "clip" in text:
            torch.nn.utils.clip_grad_norm_([kernel], 1.5)
        theirs.step()
    found = trained(text, gradients, start)["kernel"]
    np.testing.assert_allclose(found, kernel.detach().numpy(), rtol=1e-4)


@pytest.mark.parametrize("text", ["adam", "adamw:weight_decay=0.02", "sgd:weight_decay=0.02"])
@pytest.mark.parametrize("factor", [0.25, 0.0])
def test_the_encoder_learns_at_its_own_rate(text, factor):
    """As if each part had an optimizer of its own, with its own learning rate."""
    text = text if ":" in text else f"{text}:clip=inf"

    def nested(encoder, rest):
        return {"trunk": {"encoder": encoder, "aspp": rest}, "heads": {"encoder": rest}}

    gradients = [nested(x, y) for x, y in zip(GRADIENTS, GRADIENTS[::-1], strict=True)]
    found = trained(f"{text},encoder_rate={factor}", gradients, nested(arrays(0), arrays(1)))
    rest = trained(text, GRADIENTS[::-1], arrays(1))
    encoder = (
        trained(text, GRADIENTS, arrays(0), learning_rate=0.1 * factor) if factor else arrays(0)
    )
    expected = nested(jax.tree.map(np.float32, encoder), rest)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-6), found, expected)


@pytest.mark.parametrize("name", ["step:halve_every=1", "cosine", "constant"])
def test_compiled_updates_follow_the_schedule(name):
    schedule = optimizer.learning_rate_schedule(
        RATE, schedule=name, steps=8, steps_per_epoch=2, warmup_epochs=1.0
    )
    adam = optimizer.make_optimizer("adam", learning_rate=RATE, schedule=schedule)
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


@pytest.mark.parametrize("text", ["adam", "adamw:weight_decay=0.1,clip=0.5", "sgd:momentum=0.9"])
def test_a_learning_rate_in_the_state_does_the_same(text):
    def made(rate):
        schedule = optimizer.learning_rate_schedule(
            rate, schedule="cosine", steps=5, steps_per_epoch=1
        )
        return optimizer.make_optimizer(text, learning_rate=0.01, schedule=schedule)

    def trained(with_):
        params = {"w": jnp.arange(6.0).reshape(2, 3)}
        state = with_.init(params)
        for step in range(4):
            gradient = jax.tree.map(lambda x, step=step: jnp.sin(x + step), params)
            updates, state = with_.update(gradient, state, params)
            params = optax.apply_updates(params, updates)
        return params["w"]

    found = trained(optimizer.scaled(made(1.0), 0.01))
    np.testing.assert_allclose(found, trained(made(0.01)), rtol=1e-5)
