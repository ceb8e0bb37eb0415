"""Predicts eight numbers in eight units with one network (Flax linen), each by a head of its own.

python docs/examples/regression.py

The targets differ in scale by a factor of a thousand, as kilometres and metres do. With the plain
sum of the squared errors the shared layers follow the largest numbers alone. The mask `heads` says
which parameters belong to one task: they have weights of their own.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from mtl_jax.weighting import TITLES, combine_tasks, task_gradients

SHOWN = ("equal", "uw", "dwa", "imtl_g", "nash", "fairgrad")
SEEDS = 3
TASKS = 8
SCALES = jnp.logspace(-1.5, 1.5, TASKS)


class Network(nn.Module):
    """Shared layers, and a layer for each task."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        features = nn.tanh(nn.Dense(32, name="trunk")(x))
        return jnp.concatenate([nn.Dense(1, name=f"head{i}")(features) for i in range(TASKS)], 1)


def belongs_to_head(params: dict) -> dict:
    """Returns the mask of the parameters."""
    return {name: name.startswith("head") for name in params}


def make_data(key: jax.Array, count: int = 256) -> tuple[jax.Array, jax.Array]:
    """Returns inputs f32[count, 4] and targets f32[count, TASKS]: waves in different directions."""
    x = jax.random.uniform(key, (count, 4), minval=-1, maxval=1)
    directions = jax.random.normal(jax.random.key(0), (4, TASKS))
    return x, SCALES * jnp.sin(2 * x @ directions)


def train(method: str, seed: jax.Array, steps: int) -> jax.Array:
    """Returns the errors f32[TASKS] on new data in parts of the variance, 1 for a constant."""
    keys = jax.random.split(jax.random.key(seed), 3)
    network, (x, targets) = Network(), make_data(keys[0])
    params = network.init(keys[1], x)["params"]
    weigh = combine_tasks(method, num_tasks=TASKS, heads=belongs_to_head, seed=seed)
    tx = optax.chain(weigh, optax.adam(optax.cosine_decay_schedule(1e-2, steps)))

    def losses_of(params: dict) -> jax.Array:
        return jnp.mean((network.apply({"params": params}, x) - targets) ** 2, axis=0)

    def step(carry: tuple, _: None) -> tuple:
        params, state = carry
        losses, gradients = task_gradients(losses_of, params)
        updates, state = tx.update(gradients, state, params, losses=losses)
        return (optax.apply_updates(params, updates), state), losses

    (params, _), _ = jax.lax.scan(step, (params, tx.init(params)), length=steps)
    x, targets = make_data(keys[2], count=1024)
    error = network.apply({"params": params}, x) - targets
    return jnp.mean(error**2, axis=0) / jnp.var(targets, axis=0)


def errors(method: str, steps: int = 1000) -> jax.Array:
    """Returns the mean errors f32[TASKS] over the seeds, from the smallest to the largest unit."""
    each = jax.jit(jax.vmap(lambda seed: train(method, seed, steps)))(jnp.arange(SEEDS))
    return jnp.mean(each, axis=0)


if __name__ == "__main__":
    print(f"{'':16} error / variance in %, from the smallest unit to the largest; mean")
    for method in SHOWN:
        found = 100 * errors(method)
        print(f"{TITLES[method]:16}", *(f"{x:6.1f}" for x in found), f"; {found.mean():.1f}")
