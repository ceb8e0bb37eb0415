"""Trains a policy for three rewards at once (Flax NNX): multi-objective reinforcement learning.

python docs/examples/policy.py

In every state the agent chooses one of eight actions and gets three rewards in different units. The
losses are those of REINFORCE, one for each reward. They have no lower bound and any sign, so only
methods by the gradients fit. `nnx.Optimizer` passes the losses on to `combine_tasks`.
"""

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from mtl_jax.weighting import TITLES, combine_tasks, task_gradients

SHOWN = ("equal", "pcgrad", "mgda", "imtl_g", "nash", "upgrad")
STATES, ACTIONS, REWARDS = 6, 8, 3
UNITS = jnp.array([0.1, 1.0, 10.0])


def rewards_of(states: jax.Array) -> jax.Array:
    """Returns the rewards f32[n, ACTIONS, REWARDS] of all actions in states f32[n, STATES]."""
    tables = jax.random.normal(jax.random.key(7), (STATES, ACTIONS, REWARDS))
    return UNITS * jnp.einsum("ns,sar->nar", states, tables)


class Policy(nnx.Module):
    """Logits f32[n, ACTIONS] of the actions."""

    def __init__(self, rngs: nnx.Rngs):
        self.first = nnx.Linear(STATES, 32, rngs=rngs)
        self.last = nnx.Linear(32, ACTIONS, rngs=rngs)

    def __call__(self, states: jax.Array) -> jax.Array:
        return self.last(nnx.tanh(self.first(states)))


@nnx.jit
def step(policy: Policy, optimizer: nnx.Optimizer, key: jax.Array) -> None:
    """Plays 256 states once and makes one step."""
    keys = jax.random.split(key)
    states = jax.random.normal(keys[0], (256, STATES))
    rewards = rewards_of(states)
    actions = jax.random.categorical(keys[1], policy(states))
    gained = jnp.take_along_axis(rewards, actions[:, None, None], axis=1)[:, 0]
    advantages = gained - jnp.mean(rewards, axis=1)
    graph, params, rest = nnx.split(policy, nnx.Param, ...)

    def losses_of(params: nnx.State) -> jax.Array:
        logits = nnx.merge(graph, params, rest)(states)
        chosen = jnp.take_along_axis(jax.nn.log_softmax(logits), actions[:, None], axis=1)
        return -jnp.mean(advantages * chosen, axis=0)

    losses, gradients = task_gradients(losses_of, params)
    optimizer.update(policy, gradients, losses=losses)


def train(method: str, steps: int = 400, seed: int = 0) -> jax.Array:
    """Returns the mean rewards f32[REWARDS] in parts of the best that each reward allows alone."""
    policy = Policy(nnx.Rngs(seed))
    tx = optax.chain(combine_tasks(method, num_tasks=REWARDS, seed=seed), optax.adam(1e-2))
    optimizer = nnx.Optimizer(policy, tx, wrt=nnx.Param)
    for key in jax.random.split(jax.random.key(seed), steps):
        step(policy, optimizer, key)
    states = jax.random.normal(jax.random.key(1000), (2000, STATES))
    rewards, shares = rewards_of(states), jax.nn.softmax(policy(states))
    return jnp.mean(jnp.einsum("na,nar->nr", shares, rewards), 0) / jnp.mean(rewards.max(1), 0)


if __name__ == "__main__":
    print(f"{'':16} each reward in % of the best that it allows; the smallest")
    for method in SHOWN:
        found = 100 * train(method)
        print(f"{TITLES[method]:16}", *(f"{x:6.1f}" for x in found), f"; {found.min():.1f}")
