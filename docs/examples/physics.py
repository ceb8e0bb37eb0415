"""Solves a differential equation with a network (Equinox): losses of very different sizes.

python docs/examples/physics.py

A physics-informed network u(x) is to satisfy u'' = f for -1 < x < 1 and u(-1) = u(1) = 0. Its two
tasks are the equation, whose loss begins at the mean of f squared, 780, and the boundary, whose
loss is below one. The plain sum neglects the boundary, so that a straight line is added to u.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import optax

from mtl_jax.weighting import TITLES, combine_tasks, task_gradients

SHOWN = ("equal", "uw", "pcgrad", "upgrad", "nash", "config")
SEEDS = 5
POINTS = jnp.linspace(-1, 1, 32)
FREQUENCY = 2 * jnp.pi


def solution(x: jax.Array) -> jax.Array:
    """Returns the exact u(x)."""
    return jnp.sin(FREQUENCY * x)


def losses_of(network: eqx.Module) -> list[jax.Array]:
    """Returns the losses of the equation and of the boundary."""

    def u(x: jax.Array) -> jax.Array:
        return network(x[None])[0]

    source = -(FREQUENCY**2) * solution(POINTS)
    residual = jax.vmap(jax.grad(jax.grad(u)))(POINTS) - source
    ends = jax.vmap(u)(jnp.array([-1.0, 1.0]))
    return [jnp.mean(residual**2), jnp.mean(ends**2)]


def train(method: str, seed: jax.Array, steps: int) -> jax.Array:
    """Returns the relative error of the network after training."""
    key = jax.random.key(seed)
    network = eqx.nn.MLP(1, 1, width_size=32, depth=2, activation=jnp.sin, key=key)
    # The arrays are trained; the rest, such as the activation, stays as it is.
    params, static = eqx.partition(network, eqx.is_inexact_array)
    schedule = optax.cosine_decay_schedule(3e-3, steps)
    tx = optax.chain(combine_tasks(method, num_tasks=2, seed=seed), optax.adam(schedule))

    def step(carry: tuple, _: None) -> tuple:
        params, state = carry
        losses, gradients = task_gradients(lambda p: losses_of(eqx.combine(p, static)), params)
        updates, state = tx.update(gradients, state, params, losses=losses)
        return (eqx.apply_updates(params, updates), state), losses

    (params, _), _ = jax.lax.scan(step, (params, tx.init(params)), length=steps)
    network, x = eqx.combine(params, static), jnp.linspace(-1, 1, 257)
    error = jax.vmap(network)(x[:, None])[:, 0] - solution(x)
    return jnp.sqrt(jnp.mean(error**2) / jnp.mean(solution(x) ** 2))


def errors(method: str, steps: int = 600) -> jax.Array:
    """Returns the relative errors f32[SEEDS] of networks that start from different seeds."""
    return jax.jit(jax.vmap(lambda seed: train(method, seed, steps)))(jnp.arange(SEEDS))


if __name__ == "__main__":
    print(f"{'':16} relative error in %, {SEEDS} seeds; median")
    for method in SHOWN:
        found = 100 * errors(method)
        print(f"{TITLES[method]:16}", *(f"{x:6.2f}" for x in found), f"; {jnp.median(found):.2f}")
