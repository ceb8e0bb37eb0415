"""Gradients in bfloat16 that are sums over many pixels, against more precise sums."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtl_jax.models import aspp, segnet, unet

SIZE = (64, 96)


def gradient(module, x, cotangent, *inputs):
    """The gradient of sum(output * cotangent) in the module's parameters, and the parameters."""

    def loss(params, variables, x):
        applied = {**variables, "params": params}
        output, _ = module.apply(applied, x, *inputs, train=True, mutable="batch_stats")
        return jnp.sum(output.astype(jnp.float32) * cotangent)

    variables = module.init(jax.random.key(0), x[:1], *inputs, train=False)
    found = jax.jit(jax.grad(loss))(variables["params"], variables, x.astype(module.dtype))
    return found, variables["params"]


@pytest.mark.parametrize("head", [unet.Head, segnet.PredictionHead])
def test_the_gradient_of_a_bias_adds_up_all_pixels(head):
    rng = np.random.default_rng(0)
    size = SIZE if head is segnet.PredictionHead else (SIZE[0] // 2, SIZE[1] // 2)
    x = jnp.float32(rng.normal(size=(4, *size, 8)))
    cotangent = rng.uniform(0.5, 1.5, (4, *SIZE, 3))
    module = head(3, dtype=jnp.bfloat16)
    found, params = gradient(module, x, cotangent.astype(np.float32), SIZE)
    # A bias is added to each pixel of the output; interpolation keeps the sum of the cotangents.
    total = cotangent.sum((0, 1, 2))
    np.testing.assert_allclose(found["output"]["bias"], total, rtol=0.01)
    if head is segnet.PredictionHead:
        kernel = np.asarray(params["output"]["kernel"], np.float64)[0, 0]
        np.testing.assert_allclose(
            found["hidden"]["bias"], kernel @ total, atol=0.01 * np.abs(kernel @ total).max()
        )


def test_the_pooled_branch_gets_the_gradients_of_the_whole_map():
    """The map of an image of 1024x2048 pixels."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(4, 1, 1, 8)) + 0.3 * rng.normal(size=(4, 32, 64, 8))
    cotangent = np.broadcast_to(rng.normal(size=(4, 1, 1, 16)), (4, 32, 64, 16))
    half, full = (
        gradient(aspp.ASPP(16, dtype=dtype), jnp.float32(x), jnp.float32(cotangent))[0]
        for dtype in (jnp.bfloat16, jnp.float32)
    )
    for name in ("scale", "bias"):
        found, expected = half["pooled_bn"][name], full["pooled_bn"][name]
        assert np.linalg.norm(found - expected) < 0.05 * np.linalg.norm(expected)
