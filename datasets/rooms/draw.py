"""Random numbers for laying out rooms, by a hash that compiles to a handful of instructions.

A room takes hundreds of draws. `jax.random` inlines twenty rounds of Threefry for each of them,
which makes minutes of compiling; rooms need no such quality. Keys are u32 arrays.
"""

import jax
import jax.numpy as jnp


def mix(bits: jax.Array) -> jax.Array:
    """A bijection of u32 that spreads each bit over all (Wellons' "lowbias32")."""
    bits = (bits ^ (bits >> 16)) * jnp.uint32(0x7FEB352D)
    bits = (bits ^ (bits >> 15)) * jnp.uint32(0x846CA68B)
    return bits ^ (bits >> 16)


def root(seed: jax.Array, index: jax.Array) -> jax.Array:
    """The key u32[] of one scene; two indices of one seed never share it."""
    return mix(jnp.asarray(index).astype(jnp.uint32) ^ mix(jnp.asarray(seed).astype(jnp.uint32)))


def split(key: jax.Array, count: int = 2) -> jax.Array:
    """New keys u32[count]."""
    numbers = jnp.arange(1, count + 1, dtype=jnp.uint32) * jnp.uint32(0x9E3779B1)
    return mix(key + numbers)


def bits(key: jax.Array, shape: tuple[int, ...] = ()) -> jax.Array:
    """u32[shape], each value as likely as any other."""
    size = 1
    for extent in shape:
        size *= extent
    numbers = jnp.arange(size, dtype=jnp.uint32).reshape(shape) * jnp.uint32(0x85EBCA77)
    return mix((key ^ jnp.uint32(0x5BD1E995)) + numbers)


def uniform(key: jax.Array, low=0.0, high=1.0, shape: tuple[int, ...] = ()) -> jax.Array:
    """f32[shape] in low..high."""
    unit = (bits(key, shape) >> 8).astype(jnp.float32) / (2.0**24 - 1)
    return low + unit * (high - low)


def normal(key: jax.Array, shape: tuple[int, ...] = ()) -> jax.Array:
    """f32[shape], mean zero and variance one."""
    unit = uniform(key, 2.0**-24, 1.0, shape)
    return jnp.sqrt(2.0) * jax.lax.erf_inv(2 * unit - 1)


def gumbel(key: jax.Array, shape: tuple[int, ...] = ()) -> jax.Array:
    """f32[shape] of the standard Gumbel distribution."""
    return -jnp.log(-jnp.log(uniform(key, 2.0**-24, 1 - 2.0**-24, shape)))


def integer(key: jax.Array, count: int, shape: tuple[int, ...] = ()) -> jax.Array:
    """i32[shape] in 0..count-1."""
    return (bits(key, shape) % jnp.uint32(count)).astype(jnp.int32)


def chance(key: jax.Array, probability) -> jax.Array:
    """bool[], true with this probability."""
    return uniform(key) < probability


def pick(key: jax.Array, *choices: int) -> jax.Array:
    """One of the numbers, i32[]."""
    return jnp.array(choices, jnp.int32)[integer(key, len(choices))]
