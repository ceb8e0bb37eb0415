"""An exponential average of a network's weights over the steps, which often predicts better.

It covers the running statistics of batch normalisation, too. After n steps that were taken, step i
has the weight d^(n - i) (1 - d) / (1 - d^n): the weights before the first step have none, as in
`optax.ema` with its correction of the bias.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from mtl_jax.models import Variables
from mtl_jax.weighting.contract import PyTree


class Averaged(NamedTuple):
    """The state of an optimizer with the average of what it changes.

    Attributes:
      inner: state of the optax transformation.
      average: average of the network's variables.
      count: i32[], steps in it.
    """

    inner: PyTree
    average: Variables
    count: jax.Array


def start(inner: PyTree, variables: Variables) -> Averaged:
    """Makes the state before the first step."""
    # Copied, because the buffers of a state are donated only once.
    return Averaged(inner, jax.tree.map(jnp.copy, variables), jnp.zeros((), jnp.int32))


def follow(state: Averaged, inner: PyTree, variables: Variables, *, decay: float) -> Averaged:
    """Returns the state after a step.

    Args:
      state: state before it.
      inner: state of the optax transformation after it.
      variables: variables after it.
      decay: d, above 0 and below 1.
    """
    count = state.count + 1
    share = (1 - decay) / -jnp.expm1(count.astype(jnp.float32) * math.log(decay))
    average = jax.tree.map(lambda old, new: old + share * (new - old), state.average, variables)
    return Averaged(inner, average, count)
