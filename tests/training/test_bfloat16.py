"""Training in bfloat16: what is computed in it, and what stays in float32."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtl_jax import data, models, parallel
from mtl_jax.training import step
from mtl_jax.training.optimizer import make_optimizer
from mtl_jax.weighting import METHODS
from tests import fakes, tiny

FLOAT32 = jnp.dtype("float32")
STEPS = 2
SPLIT = data.open_splits(fakes.builder(train=8))["train"]
ONE = jax.local_devices()[:1]


def batch(number):
    stored = data.batch_at(SPLIT, tiny.TASKS, batch_size=4, seed=0, step=number)
    return parallel.shard(stored, ONE)


def network(name, dtype):
    if name == "tiny":
        return tiny.network(dtype=dtype)
    return models.build(
        tiny.TASKS,
        num_classes=len(fakes.CLASSES),
        model=f"resnet_unet:backbone={name}",
        dtype=dtype,
        axis_name=parallel.AXIS,
    )


@functools.cache
def made(name, dtype):
    """State and steps of a network; a list that fills with the signals as nash gets them."""
    signals = []
    nash = METHODS["nash"]()

    def update(given, state):
        signals.append(given)
        return nash.update(given, state)

    weighting = nash._replace(update=update)
    recipe = step.Recipe(
        network(name, dtype), weighting, make_optimizer("adam", learning_rate=1e-3)
    )
    state = step.init_state(recipe, seed=0, image_size=tiny.IMAGE_SIZE)
    steps = step.make_steps(
        recipe, image_size=tiny.IMAGE_SIZE, batch_size=4, devices=ONE, augment=None
    )
    return parallel.replicate(state, ONE), steps, signals


@functools.cache
def trained(name, dtype):
    """The state before and after some steps, and what each showed."""
    state, steps, _ = made(name, dtype)
    # The steps take over the memory of the state that they are given.
    state = before = jax.device_get(state)
    shown = []
    for number in range(STEPS):
        state, report = steps.update(state, batch(number))
        shown.append(jax.device_get(report))
    return before, jax.device_get(state), shown


def convolutions(name, dtype):
    """The dtypes of the operands of each convolution in a step, forward and backward."""
    state, steps, _ = made(name, dtype)
    found = []

    def walk(jaxpr):
        for equation in jaxpr.eqns:
            if equation.primitive.name == "conv_general_dilated":
                found.append({str(x.aval.dtype) for x in equation.invars})
            for value in jax.tree.leaves(
                list(equation.params.values()), is_leaf=lambda x: hasattr(x, "eqns")
            ):
                inner = getattr(value, "jaxpr", value)
                if hasattr(inner, "eqns"):
                    walk(inner)

    walk(jax.make_jaxpr(steps.update)(state, batch(0)).jaxpr)
    return found


def floats(tree):
    """The dtypes of all floating-point leaves."""
    return {x.dtype for x in jax.tree.leaves(tree) if jnp.issubdtype(x.dtype, jnp.floating)}


NETWORKS = ["tiny", pytest.param("resnet18", marks=pytest.mark.slow)]


@pytest.mark.parametrize(
    ("name", "layers"), [("tiny", 8), pytest.param("resnet18", 30, marks=pytest.mark.slow)]
)
def test_every_convolution_computes_in_the_dtype_asked_for(name, layers):
    half, full = convolutions(name, jnp.bfloat16), convolutions(name, jnp.float32)
    # Forward once; backward by the trunk's kernels for each of three tasks. In float32 on a CPU,
    # some of these gradients are matrix products.
    assert len(half) > 3 * layers
    assert len(half) >= len(full) > layers
    assert all(dtypes == {"bfloat16"} for dtypes in half)
    assert all(dtypes == {"float32"} for dtypes in full)


@pytest.mark.parametrize("name", NETWORKS)
def test_everything_that_training_keeps_stays_in_float32(name):
    before, after, shown = trained(name, jnp.bfloat16)
    for part in ("variables", "optimizer", "weighting", "sums"):
        assert floats(getattr(after, part)) == {FLOAT32}, part
        assert all(np.all(np.isfinite(x)) for x in jax.tree.leaves(getattr(after, part))), part
    assert floats([(report["losses"], report["weights"]) for report in shown]) == {FLOAT32}
    assert int(after.skipped) == 0
    # It has learned.
    pairs = (jax.tree.leaves(state.variables.params) for state in (before, after))
    assert all(np.any(old != new) for old, new in zip(*pairs, strict=True))


@pytest.mark.parametrize("name", NETWORKS)
def test_moments_are_not_rounded_to_bfloat16(name):
    _, after, _ = trained(name, jnp.bfloat16)
    kernels = [x for x in jax.tree.leaves(after.optimizer) if x.ndim == 4]
    assert kernels
    for moments in kernels:
        # Of small maps the border of a dilated kernel sees nothing, and learns nothing.
        moved = moments[moments != 0]
        assert np.mean(moved != moved.astype(jnp.bfloat16).astype(np.float32)) > 0.9


@pytest.mark.parametrize("name", NETWORKS)
def test_the_weighting_gets_losses_and_products_in_float32(name):
    trained(name, jnp.bfloat16)
    signals = [x for x in made(name, jnp.bfloat16)[2] if x.gram is not None]
    assert signals
    for given in signals:
        assert given.losses.dtype == given.gram.dtype == FLOAT32


@pytest.mark.parametrize("name", NETWORKS)
def test_losses_agree_with_float32_within_the_precision_of_bfloat16(name):
    *_, half = trained(name, jnp.bfloat16)
    *_, full = trained(name, jnp.float32)
    precision = float(jnp.finfo(jnp.bfloat16).eps)  # 2^-7
    np.testing.assert_allclose(half[0]["losses"], full[0]["losses"], rtol=4 * precision)
    assert not np.array_equal(half[0]["losses"], full[0]["losses"])
    # After a step by gradients that were rounded, too.
    np.testing.assert_allclose(half[1]["losses"], full[1]["losses"], rtol=16 * precision)
