"""Random numbers, taken from an array one after the other."""

import math

import jax
import jax.numpy as jnp


class Dice:
    """A sequence of draws, taken from numbers f32[N] that are uniform in 0..1.

    A room takes hundreds of draws; with a call of `jax.random` for each of them, compiling would
    take minutes.
    """

    def __init__(self, numbers: jax.Array):
        self._numbers = numbers
        self._next = 0

    def take(self, *shape: int) -> jax.Array:
        """Returns the next numbers f32[shape], from which other dice can be made, too.

        Raises:
          ValueError: if there are too few left.
        """
        first, self._next = self._next, self._next + math.prod(shape)
        if self._next > self._numbers.shape[0]:
            raise ValueError(
                f"dice with {self._numbers.shape[0]} numbers were asked for {self._next}: make "
                "them with more"
            )
        return self._numbers[first : self._next].reshape(shape)

    def uniform(self, low=0.0, high=1.0, shape: tuple[int, ...] = ()) -> jax.Array:
        """Draws f32[shape] in low..high."""
        return low + self.take(*shape) * (high - low)

    def normal(self, deviation=1.0, shape: tuple[int, ...] = ()) -> jax.Array:
        """Draws f32[shape] from a normal distribution of mean zero."""
        return deviation * jax.scipy.special.ndtri(jnp.clip(self.take(*shape), 1e-6, 1 - 1e-6))

    def gumbel(self, shape: tuple[int, ...] = ()) -> jax.Array:
        """Draws f32[shape] from the standard Gumbel distribution."""
        return -jnp.log(-jnp.log(jnp.clip(self.take(*shape), 1e-6, 1 - 1e-6)))

    def integer(self, count: int, shape: tuple[int, ...] = ()) -> jax.Array:
        """Draws i32[shape] in 0..count-1."""
        return jnp.minimum((self.take(*shape) * count).astype(jnp.int32), count - 1)

    def chance(self, probability) -> jax.Array:
        """Draws a bool[] that is true with this probability."""
        return self.take() < probability

    def pick(self, *choices: int) -> jax.Array:
        """Draws one of the choices, i32[]."""
        return jnp.array(choices, jnp.int32)[self.integer(len(choices))]
