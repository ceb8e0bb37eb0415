"""Masked losses of the dense tasks.

Each loss returns `(sum, count)`: the sum over labelled pixels and their number, so that a mean
over several devices or batches is exact. Pixels without a label add to neither.
"""

import jax
import jax.numpy as jnp

EPSILON = 1e-6


def cross_entropy(log_probabilities: jax.Array, labels: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Cross-entropy of the true class; pixels labelled -1 (void) are ignored.

    Args:
      log_probabilities: f32[B, H, W, C].
      labels: i32[B, H, W] in -1..C-1.

    Returns:
      The sum in nats and the number of labelled pixels.
    """
    labelled = labels >= 0
    index = jnp.maximum(labels, 0)[..., None]  # [B, H, W, 1]
    picked = jnp.take_along_axis(log_probabilities, index, axis=-1)[..., 0]
    return -jnp.sum(jnp.where(labelled, picked, 0.0)), count(labelled)


def absolute(depth: jax.Array, target: jax.Array) -> tuple[jax.Array, jax.Array]:
    """L1 distance of depths in metres; pixels whose true depth is 0 are ignored.

    Args:
      depth: f32[B, H, W].
      target: f32[B, H, W].

    Returns:
      The sum in metres and the number of pixels with a depth.
    """
    labelled = target > 0
    return jnp.sum(jnp.where(labelled, jnp.abs(depth - target), 0.0)), count(labelled)


def cosine(normals: jax.Array, target: jax.Array) -> tuple[jax.Array, jax.Array]:
    """One minus the cosine of the angle between unit normals; zero vectors are ignored.

    Args:
      normals: f32[B, H, W, 3], unit.
      target: f32[B, H, W, 3], unit or zero.

    Returns:
      The sum (each pixel in 0..2) and the number of pixels with a normal.
    """
    labelled = jnp.any(target != 0, axis=-1)  # [B, H, W]
    similarity = jnp.sum(normals * target, axis=-1)
    return jnp.sum(jnp.where(labelled, 1.0 - similarity, 0.0)), count(labelled)


def count(mask: jax.Array) -> jax.Array:
    """The number of true entries, f32[]."""
    return jnp.sum(mask, dtype=jnp.float32)


def normalize(vectors: jax.Array, *, epsilon: float = EPSILON) -> jax.Array:
    """Vectors of the last axis scaled to unit length, with finite gradients at zero.

    Args:
      vectors: f32[..., 3].
      epsilon: lengths below about this are not scaled up to one.
    """
    squared = jnp.sum(jnp.square(vectors), axis=-1, keepdims=True)
    return vectors * jax.lax.rsqrt(squared + epsilon**2)
