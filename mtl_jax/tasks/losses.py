"""What the tasks' losses share.

Each loss returns `(sum, count)`: the sum over labelled pixels and their number, so that a mean
over several devices or batches is exact. Pixels without a label add to neither.
"""

import jax
import jax.numpy as jnp

EPSILON = 1e-6


def count(mask: jax.Array) -> jax.Array:
    """Returns the number of true entries, f32[]."""
    return jnp.sum(mask, dtype=jnp.float32)


def normalize(vectors: jax.Array, *, epsilon: float = EPSILON) -> jax.Array:
    """Scales the vectors of the last axis to unit length, with finite gradients at zero.

    Args:
      vectors: f32[..., 3].
      epsilon: lengths below about this are not scaled up to one.
    """
    squared = jnp.sum(jnp.square(vectors), axis=-1, keepdims=True)
    return vectors * jax.lax.rsqrt(squared + epsilon**2)
