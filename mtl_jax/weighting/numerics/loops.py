"""Loops that a GPU runs without asking the host."""

from collections.abc import Callable
from typing import TypeVar

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from mtl_jax.weighting.contract import PyTree

State = TypeVar("State", bound=PyTree)

# Turns of a counted loop that are compiled as one: the state is then copied less often.
UNROLL = 4


def repeat(
    advance: Callable[[State], State],
    goes_on: Callable[[State], jax.Array],
    state: State,
    *,
    limit: int,
) -> State:
    """Applies `advance` while `goes_on` holds, always taking the time of `limit` turns.

    Before each turn of a `while_loop` a GPU waits for the host to read whether the loop goes on,
    which takes longer than a turn on a few numbers. Here the number of turns is known, and those
    that are not needed change nothing.

    Args:
      advance: state -> state.
      goes_on: state -> bool[].
      state: pytree of arrays of one type. It travels in one vector, since each array would need a
        kernel of its own.
      limit: number of turns.
    """
    vector, unravel = ravel_pytree(state)

    def turn(_: int, vector: jax.Array) -> jax.Array:
        state = unravel(vector)
        return jnp.where(goes_on(state), ravel_pytree(advance(state))[0], vector)

    return unravel(jax.lax.fori_loop(0, limit, turn, vector, unroll=UNROLL))
