"""The gradients of convolutions by matrix products, compared with those of JAX."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export

from mtl_jax import parallel
from mtl_jax.models import convolution
from mtl_jax.models.convolution import Conv

# Height and width of the map, kernel's side, channels, stride, padding and dilation.
LAYERS = {
    "3x3": ((3, 4), 3, 5, 8, 1, 1, 1),
    "strided": ((5, 6), 3, 4, 6, 2, 1, 1),
    "strided 1x1": ((4, 5), 1, 3, 6, 2, 0, 1),
    "dilated": ((4, 3), 3, 4, 5, 1, 2, 2),
    "5x5": ((7, 8), 5, 3, 4, 2, 2, 1),
    "padded by JAX": ((3, 4), 3, 2, 5, 2, "SAME", 1),
    "one pixel": ((1, 1), 1, 6, 4, 1, 0, 1),
}
# Layers whose gradients are found from the patches of the output's gradient.
NARROWING = {
    "3x3": ((5, 6), 3, 7, 4, 1, 1, 1),
    "as many channels": ((3, 4), 3, 4, 4, 1, 1, 1),
    "dilated": ((6, 5), 3, 5, 3, 1, 2, 2),
    "5x5": ((7, 8), 5, 4, 3, 1, 2, 1),
    "not padded": ((6, 7), 3, 4, 2, 1, 0, 1),
    "padded on one side": ((4, 5), 3, 5, 2, 1, ((2, 0), (0, 1)), 1),
    "even side": ((4, 5), 2, 5, 2, 1, "SAME", 1),
}


def layer(name, layers=LAYERS):
    """Returns the layer with products and with JAX's gradient, its input and its variables."""
    size, side, before, after, stride, padding, dilation = layers[name]
    settings = {"strides": stride, "padding": padding, "kernel_dilation": dilation}
    own, jaxs = (kind(after, (side, side), **settings) for kind in (Conv, nn.Conv))
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.standard_normal((2, *size, before)), jnp.float32)
    return own, jaxs, x, own.init(jax.random.key(0), x)


@pytest.fixture(autouse=True)
def everywhere(monkeypatch):
    monkeypatch.setattr(convolution, "PIXELS_PER_CHANNEL", 1000)


def close(found, expected):
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def primitives(module, variables, x):
    return str(jax.make_jaxpr(module.apply)(variables, x))


@pytest.mark.parametrize("name", LAYERS)
def test_values_and_gradients_are_those_of_jax(name):
    check_gradients(*layer(name))


@pytest.mark.parametrize("name", NARROWING)
def test_patches_of_the_gradient_give_the_gradients_of_jax(monkeypatch, name):
    monkeypatch.setattr(convolution, "PIXELS_PER_CHANNEL", 0)
    check_gradients(*layer(name, NARROWING))


def check_gradients(own, jaxs, x, variables):
    assert "custom_vjp" in primitives(own, variables, x)
    # The cotangents of three tasks, whose passes may run one after another or as one.
    cotangents = jax.random.normal(jax.random.key(1), (3, *own.apply(variables, x).shape))

    @functools.partial(jax.jit, static_argnums=(0, 1))
    def passes(module, in_turn):
        output, pull = jax.vjp(module.apply, variables, x)
        if not in_turn:
            return output, jax.vmap(pull)(cotangents)
        return output, jax.tree.map(lambda *each: jnp.stack(each), *map(pull, cotangents))

    expected = passes(jaxs, False)
    for in_turn in (True, False):
        found = passes(own, in_turn)
        np.testing.assert_array_equal(found[0], expected[0])
        jax.tree.map(close, found[1], expected[1])


def test_gradient_of_a_gradient():
    own, jaxs, x, variables = layer("strided")

    def steepness(module, x):
        return jnp.sum(jax.grad(lambda x: jnp.sum(module.apply(variables, x) ** 3))(x) ** 2)

    found, expected = (jax.grad(functools.partial(steepness, each))(x) for each in (own, jaxs))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_gradients_over_devices_are_those_of_the_whole_batch():
    own, _, x, variables = layer("3x3")

    def gradient(variables, batch):
        def loss(variables):
            return jnp.sum(own.apply(variables, batch) ** 2)

        return parallel.total(jax.grad(loss)(variables))

    found = []
    for devices in (jax.devices()[:1], jax.devices()[:2]):
        spread = parallel.data_parallel(gradient, devices)
        batch = parallel.shard(np.asarray(x), devices)
        found.append(spread(parallel.replicate(variables, devices), batch))
    jax.tree.map(close, *found)


def test_rule_is_for_single_precision_on_a_cpu(monkeypatch):
    own, _, x, variables = layer("3x3")
    half = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), variables)
    assert "custom_vjp" not in primitives(own.clone(dtype=jnp.bfloat16), half, x)
    for platform in ("gpu", "tpu"):
        monkeypatch.setattr(jax, "default_backend", lambda platform=platform: platform)
        assert "custom_vjp" not in primitives(own, variables, x)


@pytest.mark.parametrize(
    ("size", "before", "channels", "settings", "rule"),
    [
        ((3, 4), 512, 512, {}, convolution.BY_PATCHES_OF_INPUT),
        ((6, 8), 256, 256, {}, convolution.BY_PATCHES_OF_INPUT),
        ((12, 16), 128, 128, {}, convolution.BY_PATCHES_OF_GRADIENT),
        ((48, 64), 128, 32, {}, convolution.BY_PATCHES_OF_GRADIENT),
        ((48, 64), 32, 64, {}, None),
        ((48, 64), 64, 64, {"strides": (2, 2)}, None),
        ((48, 64), 64, 64, {"padding": ((3, 3), (3, 3))}, None),
        ((288, 384), 64, 64, {}, None),
    ],
)
def test_rule_of_a_layer(monkeypatch, size, before, channels, settings, rule):
    monkeypatch.undo()
    x = jax.ShapeDtypeStruct((4, *size, before), jnp.float32)
    kernel = jax.ShapeDtypeStruct((3, 3, before, channels), jnp.float32)
    window = convolution.Window((1, 1), ((1, 1), (1, 1)), (1, 1))._replace(**settings)
    assert convolution.gradient_rule(x, kernel, window) is rule


def test_exported_programs_take_any_number_of_images():
    own, _, x, variables = layer("3x3")
    (number,) = export.symbolic_shape("n")
    images = jax.ShapeDtypeStruct((number, *x.shape[1:]), x.dtype)
    program = export.export(jax.jit(functools.partial(own.apply, variables)))(images)
    np.testing.assert_array_equal(program.call(x), own.apply(variables, x))
