"""Scalars of a weighting that are learned along with the model, each by its own optimizer."""

from typing import NamedTuple, cast

import jax
import jax.numpy as jnp
import optax


class Learnable(NamedTuple):
    """Learned scalars.

    Attributes:
      value: f32[K].
      optimizer: state of one optax transformation per task, so that a bias correction counts only
        the steps that had the task's labels.
    """

    value: jax.Array
    optimizer: optax.OptState


def start(optimizer: optax.GradientTransformation, value: jax.Array) -> Learnable:
    """Returns scalars f32[K] before their first step."""
    return Learnable(value, jax.vmap(optimizer.init)(value))


def step(
    optimizer: optax.GradientTransformation,
    scalars: Learnable,
    gradient: jax.Array,
    learns: jax.Array,
) -> Learnable:
    """Makes one step along a gradient f32[K]; scalars whose `learns` bool[K] is False stay."""
    # Adam's bias correction raises a float to the power of an integer array, which strict dtype
    # promotion forbids.
    with jax.numpy_dtype_promotion("standard"):
        updates, state = jax.vmap(optimizer.update)(gradient, scalars.optimizer, scalars.value)
    new = Learnable(scalars.value + cast(jax.Array, updates), state)
    return jax.tree.map(lambda after, before: jnp.where(learns, after, before), new, scalars)
