"""Functions that the tasks' losses share.

Each loss returns `(sum, count)`: the sum over labelled pixels and their number, so a mean over
several devices or batches is exact. Pixels without a label count in neither.
"""

import jax
import jax.numpy as jnp

# Vectors shorter than about this are not scaled up to unit length.
EPSILON = 1e-6


def count(mask: jax.Array) -> jax.Array:
    """Returns the number of true entries, f32[]."""
    return jnp.sum(mask, dtype=jnp.float32)


def normalize(vectors: jax.Array) -> jax.Array:
    """Scales vectors f32[..., 3] to unit length, with finite gradients at zero."""
    squared = jnp.sum(jnp.square(vectors), axis=-1, keepdims=True)
    return vectors * jax.lax.rsqrt(squared + EPSILON**2)
